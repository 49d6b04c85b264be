"""Which messages have an author that readers may disagree about: a table. tests/interop/test_readers_agree.py asks other readers.

Leaves out: what follows for a stranger (policy) or a user (submission).
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubako.message.ambiguity import Ambiguity, author_is_ambiguous, field_is_ambiguous

PLAIN = [
    b"From: a@b.test",
    b"FROM:a@b.test",
    b"From: Alice <a@b.test>",
    b"From: Alice\r\n <a@b.test>",
    b'From: "Doe, J. \\"x\\"" <a@b.test>',
    b"From: John Q. Doe <a@b.test>",
    b"From: a@b.test (Al)",
    b"From: a@b.test, C <c@d.test>",
    b"From: =?utf-8?q?ceo=40bank.test?= <a@b.test>",
    b"From: =?iso-2022-jp?B?GyRCSjghGyhC?= <a@b.test>",
    b"From: <a+b.c_d=e@[192.0.2.1]>",
    "From: Jürgen <jürgen@bücher.test>".encode(),
    b"From: caf\xe9 <a@b.test>",
    b"From: a@b.test\r\nno field, and behind it",
    b"X-From: x\r\nFrom: a@b.test\r\nFrom-Line: y",
]
AMBIGUOUS = [
    (b"To: x@y.test", Ambiguity.MISSING),
    (b"From: a@b.test\r\nfrom: ceo@bank.test", Ambiguity.SEVERAL),
    (b"X: y\nFrom: ceo@bank.test", Ambiguity.IRREGULAR),
    (b"X: y\rFrom: ceo@bank.test\r\nFrom: a@b.test", Ambiguity.IRREGULAR),
    (b"X: \0\r\nFrom: a@b.test", Ambiguity.IRREGULAR),
    (b"From : ceo@bank.test\r\nFrom: a@b.test", Ambiguity.NAME),
    (b"From\r\n : ceo@bank.test\r\nFrom: a@b.test", Ambiguity.NAME),
    (b"Fr\xadom: ceo@bank.test\r\nFrom: a@b.test", Ambiguity.NAME),
    (b"From\t: a@b.test", Ambiguity.NAME),
    (b"no field\r\nFrom: a@b.test", Ambiguity.NO_FIELD),
    (b": x\r\nFrom: a@b.test", Ambiguity.NO_FIELD),
    (b" folded\r\nFrom: a@b.test", Ambiguity.NO_FIELD),
    (b"From someone Thu Nov 26 12:00:00 2026\r\nFrom: a@b.test", Ambiguity.NO_FIELD),
    (b"Subject: x\r\n \r\nFrom: a@b.test", Ambiguity.BLANK_LINE),
    (b"From: a@b.test,\r\n \r\n ceo@bank.test", Ambiguity.BLANK_LINE),
    (b"From: ", Ambiguity.EMPTY),
    (b"From: root", Ambiguity.GRAMMAR),
    (b"From: ceo@bank.test <a@b.test>", Ambiguity.GRAMMAR),
    (b"From: <ceo@bank.test> <a@b.test>", Ambiguity.GRAMMAR),
    (b"From: <a@b.test> x", Ambiguity.GRAMMAR),
    (b"From: Everybody: a@b.test;", Ambiguity.GRAMMAR),
    (b"From: <@x.test:a@b.test>", Ambiguity.GRAMMAR),
    (b'From: "ceo@bank.test"@b.test', Ambiguity.GRAMMAR),
    (b'From: "open <a@b.test>', Ambiguity.GRAMMAR),
    (b"From: (x (y) ceo@bank.test) a@b.test", Ambiguity.GRAMMAR),
    (b"From: a@ba\r\n nk.test", Ambiguity.GRAMMAR),
    (b"From: a@b.test\x01", Ambiguity.GRAMMAR),
    (b"From: \xff@b.test", Ambiguity.CHARSET),
    (b"From: =?utf-8?q?ceo?=@bank.test", Ambiguity.ENCODED),
    (b"From: =?utf-8?q?x=0D=0AFrom=3A_ceo?= <a@b.test>", Ambiguity.ENCODED),
    (b"From: =?utf-8?b?PGNlb0BiYW5rLnRlc3Q+?= <a@b.test>", Ambiguity.ENCODED),
    (b"From: " + b", ".join([b"a@b.test"] * 21), Ambiguity.TOO_LONG),
    (b"From: " + b"a" * 9000 + b"@b.test", Ambiguity.TOO_LONG),
]


@pytest.mark.parametrize("header", PLAIN)
def test_plain(header):
    assert author_is_ambiguous(header + b"\r\nTo: x@y.test\r\n\r\nFrom: in the body\r\n") is None


@pytest.mark.parametrize(("header", "reason"), AMBIGUOUS)
def test_ambiguous(header, reason):
    assert author_is_ambiguous(header + b"\r\n\r\nbody\r\n") is reason


def test_another_field():
    assert field_is_ambiguous(b"Subject: a\r\nTo: b\r\n\r\n", b"subject") is None
    assert field_is_ambiguous(b"To: b\r\n\r\n", b"subject") is None
    assert field_is_ambiguous(b"Subject: a\r\nSubject: b\r\n\r\n", b"subject") is Ambiguity.SEVERAL


@given(st.binary())
def test_any_octets_have_an_answer(octets):
    author_is_ambiguous(b"From: " + octets)
    author_is_ambiguous(octets)

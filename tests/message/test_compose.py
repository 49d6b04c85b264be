"""What a program wrote, as a letter that can travel."""

import pytest

from fubako.message import compose
from fubako.message.address import Address, parse_address
from fubako.message.octets import irregularity

GIVEN = compose.Given(parse_address("u@here.test"), 'A "B"', "here.test", 1795335601, "id1")


def complete(octets: bytes) -> bytes:
    return compose.complete(compose.draft(octets), GIVEN).content


def test_missing_fields_are_put_in_and_bcc_is_taken_out():
    made = complete(b"To: x@y.z\nBcc: secret@y.z,\n other@y.z\nSubject: s\n\nbody\n")
    assert made == (
        b'To: x@y.z\r\nSubject: s\r\nFrom: "A \\"B\\"" <u@here.test>\r\nDate: Sun, 22 Nov 2026 08:20:01 +0000\r\n'
        b"Message-ID: <id1@here.test>\r\n\r\nbody\r\n"
    )


def test_what_is_there_stays_as_it_is():
    letter = (
        b"From: a@b.c\r\nDate: now\r\nMessage-ID: <1@b.c>\r\nTo: x@y.z\r\nX-Odd:   folded\r\n\tline\r\n\r\nbody\r\n"
    )
    assert complete(letter) == letter


@pytest.mark.parametrize("body", [b"just words\nmore\n", b"", b"no colon here\n\nSubject: not a header\n"])
def test_a_letter_without_a_header_is_a_body(body):
    made = complete(body)
    assert made.endswith(b"\r\n\r\n" + body.replace(b"\n", b"\r\n"))
    assert b"To: undisclosed-recipients:;" in made


def test_no_line_is_too_long_for_smtp():
    made = compose.draft(b"Subject: " + b"word " * 400 + b"\n\n" + b"x" * 5000 + b"\n")
    assert irregularity(made.content) is None


def test_a_name_writes_no_field():
    given = compose.Given(Address("a", "b.test"), "x\r\nBcc: c@d.test", "here.test", 1.0, "1")
    assert b"Bcc" not in compose.complete(compose.draft(b"\n\nhi\n"), given).content
    assert b"Bcc" not in compose.submitted(b"\r\nhi\r\n", given)


def test_a_mbox_line_and_bare_line_ends():
    assert complete(b"From u Sun Nov 22\nSubject: s\rTo: x@y.z\n\na\rb\nc").endswith(b"\r\n\r\na\r\nb\r\nc")


def test_a_header_that_ends_without_its_empty_line():
    draft = compose.draft(b"Subject: s\nTo: x@y.z\nhello there\n\nmore\n")
    assert [name for name, _ in draft.fields] == [b"subject", b"to"]
    assert draft.body == b"hello there\r\n\r\nmore\r\n"


def recipients(octets: bytes) -> list[str]:
    return [str(one) for one in compose.recipients(compose.draft(octets), "here.test")]


def test_recipients_of_the_header():
    letter = b"To: A <a@x.test>, group: b@x.test;\nCc: a@x.test\nBcc: c@x.test\nTo: d@x.test\n\n"
    assert set(recipients(letter)) == {"a@x.test", "b@x.test", "c@x.test", "d@x.test"}
    assert len(recipients(letter)) == 4
    assert recipients(b"To: a@x.test\nResent-To: r@x.test\n\n") == ["r@x.test"]
    assert recipients(b"To: (nobody), <>, @@@\n\n") == []
    assert recipients(b"To: root, Bob <bob>\n\nx") == ["root@here.test", "bob@here.test"]

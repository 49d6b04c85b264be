"""Policies as RFC 8461 writes them, and as others do."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubako.trust import mtasts

GOOD = b"version: STSv1\r\nmode: enforce\r\nmx: mail.example.test\r\nmx: *.example.net\r\nmax_age: 604800\r\n"


def test_a_policy():
    policy = mtasts.parse(GOOD)
    assert policy == mtasts.Policy("enforce", ("mail.example.test", "*.example.net"), 604800)
    for host, allowed in (
        ("mail.example.test", True), ("MAIL.example.test.", True), ("a.example.net", True), ("a.b.example.net", False),
        ("example.net", False), ("evil.test", False), ("xmail.example.test", False),
    ):  # fmt: skip
        assert policy.allows(host) is allowed, host


def test_line_ends_spaces_and_unknown_keys_do_not_matter():
    assert mtasts.parse(GOOD.replace(b"\r\n", b"\n").replace(b": ", b":   ") + b"extra: yes\n\n") == mtasts.parse(GOOD)
    assert mtasts.parse(b"version: STSv1\nmode: none\nmax_age: 1").mode == "none"
    assert mtasts.parse(GOOD.replace(b"604800", b"9999999999")).max_age == mtasts.MAX_AGE_MAX


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"STSv1", b"STSv2"), (b"mode: enforce", b"mode: force"), (b"mode: enforce\r\n", b""), (b"604800", b"a week"),
        (b"max_age: 604800", b""), (b"mx: mail.example.test\r\nmx: *.example.net\r\n", b""), (b"mode: ", b"mode "),
        (b"mode", b"\xff"),
    ],
)  # fmt: skip
def test_what_is_no_policy(old, new):
    assert old in GOOD
    with pytest.raises(mtasts.StsError):
        mtasts.parse(GOOD.replace(old, new))


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([b"v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        ([b"v=STSv1;id=1"], "1"),
        ([b"v=STSv1; x=y; id=1; z=2"], "1"),
        ([b"v=spf1 -all", b"v=STSv1; id=7"], "7"),
        ([b"v=STSv1; id=1", b"v=STSv1; id=2"], ""),
        ([b"v=STSv1; id="], ""),
        ([b"v=STSv1; id=a-b"], ""),
        ([], ""),
    ],
)
def test_records(texts, found):
    assert mtasts.record_id(texts) == found


@given(st.binary(max_size=300))
def test_any_octets_give_a_policy_or_a_reason(octets):
    mtasts.record_id([octets, b"v=STSv1;" + octets])
    with suppress(mtasts.StsError):
        assert mtasts.parse(b"version: STSv1\n" + octets).mode in ("enforce", "testing", "none")

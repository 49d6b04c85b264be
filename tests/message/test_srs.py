"""Forwarding addresses lead back to their sender, and nobody else can make one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubako.message import srs
from fubako.message.address import Address, parse_address

SECRET = b"s" * 32
locals_ = st.from_regex(r"[a-zA-Z0-9.!#$%&'*+/?^_`{|}~-]{1,40}", fullmatch=True).filter(
    lambda text: not text.startswith(".") and not text.endswith(".") and ".." not in text
)


@given(locals_, st.integers(0, 100_000), st.integers(0, srs.DAYS))
def test_there_and_back(local, day, later):
    sender = Address(local, "far.test")
    made = srs.forward(sender, "here.test", SECRET, day)
    assert made.domain == "here.test" and srs.is_rewritten(parse_address(str(made)))
    assert srs.back(made, SECRET, day + later) == sender
    lowered = Address(made.local.lower(), made.domain)
    assert srs.back(lowered, SECRET, day).key == sender.key


def test_a_second_forwarder_leads_back_through_the_first():
    first = srs.forward(parse_address("eve@far.test"), "one.test", b"1" * 32, 20_000)
    second = srs.forward(first, "two.test", b"2" * 32, 20_000)
    third = srs.forward(second, "three.test", b"3" * 32, 20_000)
    assert second.local.startswith("SRS1=") and third.local.startswith("SRS1=")
    assert srs.back(second, b"2" * 32, 20_000) == first
    assert srs.back(third, b"3" * 32, 20_000) == first


@pytest.mark.parametrize(
    "local",
    [
        "SRS0=AAAAAA=AA=far.test=eve",
        "SRS0=",
        "SRS1=AAAAAA=one.test=x",
        "SRS1=",
        "SRS0=AAAAAA=!!=a=b",
        "eve",
        "SRS0=a=b",
    ],
)
def test_what_we_did_not_make_leads_nowhere(local):
    with pytest.raises(srs.NotOurs):
        srs.back(Address(local, "here.test"), SECRET, 20_000)


def test_an_old_address_leads_nowhere():
    made = srs.forward(parse_address("eve@far.test"), "here.test", SECRET, 20_000)
    with pytest.raises(srs.NotOurs):
        srs.back(made, SECRET, 20_000 + srs.DAYS + 1)


def test_the_null_sender_and_our_own_stay_who_they_are():
    for text in ("", "alice@here.test"):
        sender = parse_address(text) if text else Address("", "")
        assert srs.forward(sender, "here.test", SECRET, 1) == sender

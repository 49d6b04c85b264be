"""DNS lists: what counts as listed (RFC 5782). Leaves out time: a list that is slow."""

import asyncio
import ipaddress

import pytest
from zone import Zone

from fubako.policy.dnslist import DnsList, DnsLists

NAME = "1.2.0.192.dul.test"


def judged(zone, returns=None):
    entry = DnsList("dul.test") if returns is None else DnsList("dul.test", returns=(ipaddress.ip_network(returns),))
    return asyncio.run(DnsLists([entry], zone, lambda: 0.0).judge("192.0.2.1", "c.test", "b.test"))


@pytest.mark.parametrize(
    ("addresses", "texts", "returns", "listed"),
    [
        (["127.0.0.2"], [], None, True),
        (["127.0.0.2"], [b"dial-up"], None, True),
        ([], [b"dial-up"], None, True),
        ([], [b"dial-up"], "127.0.0.4/32", False),
        (["127.0.0.2"], [b"dial-up"], "127.0.0.4/32", False),
        (["192.0.2.7"], [b"parked"], None, False),  # a domain that was sold answers with some address (RFC 5782 §2.3)
        ([], [], None, False),
    ],
)
def test_what_counts(addresses, texts, returns, listed):
    zone = Zone(addresses={NAME: addresses}, texts={NAME: texts})
    verdict = judged(zone, returns)
    assert verdict.accepted is not listed
    if listed and texts:
        assert "dial-up" in str(verdict.status)


def test_a_list_that_does_not_answer_refuses_nobody():
    assert judged(Zone(fails=[NAME])).accepted

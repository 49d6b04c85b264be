"""Counting connections and guesses."""

import pytest

from fubako.policy.limits import Connections, network_of


@pytest.mark.parametrize(("peer", "network"), [
    ("192.0.2.7:4000", "192.0.2.7"),
    ("[2001:db8:1:2:3::9]:25", "2001:db8:1:2::"),
    ("unix socket", "unix socket"),
])  # fmt: skip
def test_network(peer, network):
    assert network_of(peer) == network


def test_connections_in_all_and_by_network():
    limits = Connections(total_max=3, network_max=2)
    assert limits.enter("192.0.2.1:1") and limits.enter("192.0.2.1:2")
    assert not limits.enter("192.0.2.1:3")
    assert limits.enter("192.0.2.2:1")
    assert not limits.enter("192.0.2.3:1")
    limits.leave("192.0.2.1:1")
    assert limits.enter("192.0.2.3:1")
    assert limits.total == 3

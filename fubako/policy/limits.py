"""How many at once: connections by network."""

import ipaddress
from functools import lru_cache


def network_of(peer: str) -> str:
    """The network that a limit counts: an IPv4 address, an IPv6 /64; a Unix socket as it is named."""
    return _network(peer.rsplit(":", 1)[0].strip("[]"))


@lru_cache(maxsize=4096)
def _network(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return host


class Connections:
    """Open connections in all and by network."""

    def __init__(self, total_max: int, network_max: int) -> None:
        self._total_max, self._network_max = total_max, network_max
        self._open: dict[str, int] = {}
        self.total = 0

    def enter(self, peer: str) -> bool:
        """Whether one more may come in; what entered must leave."""
        network = network_of(peer)
        if self.total >= self._total_max or self._open.get(network, 0) >= self._network_max:
            return False
        self._open[network] = self._open.get(network, 0) + 1
        self.total += 1
        return True

    def leave(self, peer: str) -> None:
        network = network_of(peer)
        left = self._open[network] - 1
        self.total -= 1
        if left:
            self._open[network] = left
        else:
            del self._open[network]

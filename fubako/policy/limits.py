"""How often and how many at once: connections by network, and logins that guess."""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

_TRACKED_MAX = 50_000
LOOPBACK_SECONDS_MAX = 1.0  # who shares the machine shares one address: one who guesses must not stop all others


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


def _is_loopback(network: str) -> bool:
    return network.startswith("127.") or network == "::"


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


@dataclass(slots=True)
class _Failures:
    count: int
    last: float


class Guessing:
    """Failed logins by network: each one makes the next answer slower, success and time forgive."""

    def __init__(
        self, monotonic: Callable[[], float], *, seconds_max: float = 10.0, forgive_seconds: float = 900.0
    ) -> None:
        self._monotonic = monotonic
        self._seconds_max = seconds_max
        self._forgive = forgive_seconds
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def failed(self, peer: str) -> float:
        """Count one failure; returns how many seconds to wait before the answer."""
        network, now = network_of(peer), self._monotonic()
        entry = self._failures.get(network)
        if entry is None or now - entry.last > self._forgive:
            entry = self._failures[network] = _Failures(0, now)
        entry.count, entry.last = entry.count + 1, now
        self._failures.move_to_end(network)
        if len(self._failures) > _TRACKED_MAX:
            self._failures.popitem(last=False)
        most = min(self._seconds_max, LOOPBACK_SECONDS_MAX) if _is_loopback(network) else self._seconds_max
        return float(min(most, 0.25 * 2 ** min(entry.count - 1, 10)))

    def count(self, peer: str) -> int:
        """How often this network has failed lately."""
        entry = self._failures.get(network_of(peer))
        return entry.count if entry is not None and self._monotonic() - entry.last <= self._forgive else 0

    def succeeded(self, peer: str) -> None:
        self._failures.pop(network_of(peer), None)

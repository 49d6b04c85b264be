"""How many letters in how much time: by account, by network, by domain. Each worker counts what it sees."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from fubako.policy.limits import network_of
from fubako.policy.verdict import ACCEPT, Verdict, refuse

TRACKED_MAX = 50_000


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Recipients an hour; 0 is no limit."""

    account: int = 0  # of one account, by submission
    account_domain: int = 0  # of all accounts of one domain together
    network: int = 0  # from one IPv4 address or IPv6 /64, at the service smtp
    sender_domain: int = 0  # of strangers who write under one domain

    def __bool__(self) -> bool:
        return bool(self.account or self.account_domain or self.network or self.sender_domain)


class Bucket:
    """`limit` an hour, all of it at once if need be, filled again evenly."""

    def __init__(self, monotonic: Callable[[], float], limit: int) -> None:
        self._monotonic, self._limit = monotonic, limit
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> bool:
        """Whether one more may pass; then it is counted."""
        if not self._limit:
            return True
        now = self._monotonic()
        level, at = self._levels.get(key, (float(self._limit), now))
        level = min(float(self._limit), level + (now - at) * self._limit / 3600)
        passes = level >= 1
        self._levels[key] = level - 1 if passes else level, now
        self._levels.move_to_end(key)
        if len(self._levels) > TRACKED_MAX:
            self._levels.popitem(last=False)
        return passes


class Rates:
    def __init__(self, limits: RateLimits, monotonic: Callable[[], float]) -> None:
        self.account = Bucket(monotonic, limits.account)
        self.account_domain = Bucket(monotonic, limits.account_domain)
        self.network = Bucket(monotonic, limits.network)
        self.sender_domain = Bucket(monotonic, limits.sender_domain)

    def recipient(self, peer: str, user: str, sender_domain: str) -> Verdict:
        """One more recipient; asking later may help."""
        if user:
            if not self.account.take(user):
                return _slower(f"{user} sends too much", "rate account")
            if not self.account_domain.take(user.rpartition("@")[2]):
                return _slower(f"{user.rpartition('@')[2]} sends too much", "rate domain")
            return ACCEPT
        if not self.network.take(network_of(peer)):
            return _slower("your network sends too much", "rate network")
        if sender_domain and not self.sender_domain.take(sender_domain.lower()):
            return _slower(f"{sender_domain} sends too much", "rate sender domain")
        return ACCEPT


def _slower(text: str, rule: str) -> Verdict:
    return refuse(450, "4.7.1", f"{text}; try again later", rule)

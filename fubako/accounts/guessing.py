"""`Guessing`: who has failed waits before the next proof is looked at, in line, whatever connection or worker it comes by.

Counted are the network and, apart from it, the account that strangers try; strangers whose network has not failed stand before
those whose network has. Whoever comes from a network that the account is known from stands in a line of his own: strangers cannot
make it longer, and what he does makes theirs no shorter. The time is charged when an attempt begins and given back when it holds,
so that hanging up saves nothing.
"""

import asyncio
import hashlib
import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from fubako.accounts import directory, networks
from fubako.clock import Env
from fubako.protocol.sasl import SaslFailure
from fubako.store.guesses import Count, SharedCounts
from fubako.store.interface import Transaction

FREE_NETWORK = 8  # failures that cost nothing: a device with an old password, fingers
FREE_ACCOUNT = 20  # the same at one account by all strangers together
FIRST_SECONDS = 0.25  # each further one doubles it
LONGEST_SECONDS = 10.0
LOCAL_SECONDS = 1.0  # who shares the machine shares one address: one who guesses must not stop all others
LINE_SECONDS_MAX = 10.0  # who would stand longer is refused for now


class TooManyGuesses(SaslFailure):
    """Nothing was looked at."""

    def __init__(self) -> None:
        super().__init__("too many failed logins: try again later", temporary=True)


class Attempt:
    """One attempt that was let in. What ends without a word has failed."""

    def __init__(self, guessing: "Guessing", charged: dict[str, tuple[float, float]], *, known: bool) -> None:
        self._guessing, self._charged, self._known, self._open = guessing, charged, known, True

    def held(self) -> None:
        if self._open:
            self._open = False
            self._guessing._held(self._charged, known=self._known)

    def failed(self) -> None:
        if self._open:
            self._open = False
            self._guessing._failed(self._charged)

    def __del__(self) -> None:
        self.failed()


class Guessing:
    def __init__(self, counts: SharedCounts, env: Env) -> None:
        self._counts, self._env = counts, env
        self._here: dict[str, Count] = {}  # attempts that are under way in this process, and what they are charged

    async def admit(self, network: str, user: str = "") -> Attempt:
        """Wait in line. Raises TooManyGuesses; then nothing may be looked at."""

        def ask(tx: Transaction) -> tuple[Iterable[str], bool]:
            name = user if "@" in user or not user else f"{user}@{directory.default_domain(tx)}"
            known = bool(user) and _known(tx, name.lower(), network)
            failed = self._failures(tx, f"network {network}") if network else 0
            return _subjects(network, name.lower(), known=known, failed=bool(failed)), known

        found, known = await self._counts.look(ask)
        now = self._env.clock.now()
        starts = {subject: max(now, count.until, self._until(subject)) for subject, count in found.items()}
        start = max(starts.values(), default=now)
        if start - now > LINE_SECONDS_MAX:
            raise TooManyGuesses
        charged = {}
        for subject, count in found.items():
            here = self._here.setdefault(subject, Count())
            seconds = _seconds(subject, count.failures + here.failures, network)
            here.failures += 1
            here.until = start + seconds if seconds else here.until
            charged[subject] = (seconds, here.until)
        attempt = Attempt(self, charged, known=known)
        if start > now:
            await asyncio.sleep(start - now)
        return attempt

    def _failures(self, tx: Transaction, subject: str) -> int:
        here = self._here.get(subject)
        return self._counts.now(tx, subject).failures + (here.failures if here is not None else 0)

    async def close(self) -> None:
        await self._counts.close()

    def _until(self, subject: str) -> float:
        here = self._here.get(subject)
        return here.until if here is not None else 0.0

    def _held(self, charged: dict[str, tuple[float, float]], *, known: bool) -> None:
        for subject, (seconds, _) in charged.items():
            self._left(subject, seconds)
            if known:  # only the owner gets here: what failed in his own line is half forgiven
                self._counts.forgive(subject)

    def _failed(self, charged: dict[str, tuple[float, float]]) -> None:
        for subject, (_, until) in charged.items():
            self._counts.add(subject, 1, until)
            self._left(subject, 0.0)

    def _left(self, subject: str, given_back: float) -> None:
        here = self._here[subject]
        here.failures -= 1
        here.until -= given_back
        if not here.failures:
            del self._here[subject]


def _known(tx: Transaction, name: str, network: str) -> bool:
    try:
        account = directory.account(tx, name)
    except directory.NoSuchEntry:
        return False
    return networks.is_known(tx, account.account_id, network)


def _subjects(network: str, name: str, *, known: bool, failed: bool) -> list[str]:
    """An account's name is kept as a hash: rows of the same size for whatever is tried."""
    account = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=12).hexdigest() if name else ""
    if known:
        return [f"pair {account} {network}"]
    line = "account" if failed or not network else "first"
    return [*([f"network {network}"] if network else []), *([f"{line} {account}"] if account else [])]


def _seconds(subject: str, failures: int, network: str) -> float:
    line = subject.partition(" ")[0]
    over = failures - (FREE_ACCOUNT if line in ("account", "first") else FREE_NETWORK)
    if over < 0:
        return 0.0
    if line == "first":
        return FIRST_SECONDS
    return float(min(_longest(network), FIRST_SECONDS * 2 ** min(over, 10)))


@lru_cache(maxsize=4096)
def _longest(network: str) -> float:
    """This machine, and programs on it that ask for others, are many under one name."""
    try:
        address = ipaddress.ip_address(network)
    except ValueError:
        return LOCAL_SECONDS
    # the /64 of ::1 is counted as ::
    return LOCAL_SECONDS if address.is_loopback or address.is_unspecified else LONGEST_SECONDS

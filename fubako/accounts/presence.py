"""`Presence`: the open sessions of accounts in this process, and their end when an account changes.

A change is seen by its counter (`changing.py`), which one query reads for all accounts that are here, every `LOOK_SECONDS` and at
each hint; hints may be missed, the query is the truth.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from fubako.accounts import conditions
from fubako.accounts.changing import ACCOUNT_ITSELF
from fubako.accounts.identity import Identity
from fubako.clock import Env
from fubako.store.interface import Changes, Database, StoreError, Transaction
from fubako.telemetry import Telemetry

ENDS_SECONDS_MAX = 5.0  # after a change is committed its sessions have ended, on every worker
LOOK_SECONDS = 2.0
_ASKED_MAX = 500  # accounts in one query

T = TypeVar("T")


class Stay:
    """One session of an account. `end` is called once, when the account has changed."""

    def __init__(self, presence: "Presence", identity: Identity, end: Callable[[], None]) -> None:
        self._presence, self.end = presence, end
        self.watched = identity.watched
        self.changing = False  # it is about to change its own account
        self._unsubscribe = [presence.changes.subscribe(one, presence.hinted) for one, _ in self.watched]

    def leave(self) -> None:
        self._presence.left(self)
        for one in self._unsubscribe:
            one()
        self._unsubscribe = []

    def database(self, database: Database) -> "OwnChanges":
        """To change one's own account by: refused when it has changed meanwhile, and this session goes on after it."""
        return OwnChanges(database, self)


class OwnChanges:
    """A `Database` through which a session changes its own account."""

    def __init__(self, database: Database, stay: Stay) -> None:
        self._database, self._stay = database, stay

    async def write(self, unit: Callable[[Transaction], T], *, patient: bool = False) -> T:
        """Raises StoreError when the account is no longer what it was when this session was proved."""
        watched = self._stay.watched

        def guarded(tx: Transaction) -> tuple[T, tuple[tuple[int, int], ...]]:
            conditions.require(tx, watched)
            result = unit(tx)
            rows = [(one, tx.row("SELECT changed FROM account WHERE account_id=?", (one,))) for one, _ in watched]
            return result, tuple((one, row[0]) for one, row in rows if row is not None)

        self._stay.changing = True
        try:
            result, self._stay.watched = await self._database.write(guarded, patient=patient)
        finally:
            self._stay.changing = False
        return result

    async def read(self, unit: Callable[[Transaction], T]) -> T:
        return await self._database.read(unit)

    async def close(self) -> None:
        """The store is not ours to close."""


class Presence:
    def __init__(self, database: Database, changes: Changes, env: Env, telemetry: Telemetry) -> None:
        self._database, self.changes, self._env, self._telemetry = database, changes, env, telemetry
        self._stays: set[Stay] = set()
        self._task: asyncio.Task[None] | None = None
        self._hint = asyncio.Event()

    def enter(self, identity: Identity, end: Callable[[], None]) -> Stay:
        stay = Stay(self, identity, end)
        self._stays.add(stay)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look_again())
        return stay

    def left(self, stay: Stay) -> None:
        self._stays.discard(stay)
        if not self._stays and self._task is not None:
            self._task.cancel()
            self._task = None

    def hinted(self, mailbox_id: int) -> None:
        if mailbox_id == ACCOUNT_ITSELF:
            self._hint.set()

    async def _look_again(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._hint.wait()
            except TimeoutError:
                pass
            self._hint.clear()
            try:
                await self.look()
            except StoreError as error:
                self._telemetry.event("store.error", reason=str(error))

    async def look(self) -> None:
        """End what is no longer true."""
        ids = sorted({one for stay in self._stays for one, _ in stay.watched})
        now = int(self._env.clock.now())
        true = await self._database.read(lambda tx: _counters(tx, ids, now))
        for stay in list(self._stays):
            if not stay.changing and any(true.get(one) != changed for one, changed in stay.watched):
                self._stays.discard(stay)
                stay.end()


def _counters(tx: Transaction, ids: list[int], now: int) -> dict[int, int]:
    """account_id -> its counter, of those that may be here."""
    found: dict[int, int] = {}
    for start in range(0, len(ids), _ASKED_MAX):
        some = ids[start : start + _ASKED_MAX]
        rows = tx.rows(
            f"SELECT account_id, changed FROM account WHERE account_id IN ({','.join('?' * len(some))})"
            " AND enabled<>0 AND (expires=0 OR expires>?)",
            (*some, now),
        )
        found.update((row[0], row[1]) for row in rows)
    return found

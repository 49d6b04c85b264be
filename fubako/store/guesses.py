"""`SharedCounts`: failures by subject (a network, an account, a pair of both), in rows that all workers share.

Counts are kept in memory and written together once a second, so that whoever guesses cannot load the disk; whoever asks sees
the rows of all workers and what of his own is not written yet.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from msgspec import Struct

from fubako.clock import Env
from fubako.store.interface import Database, StoreError, Transaction

FORGIVE_SECONDS = 900  # after which a subject without a failure starts anew
FLUSH_SECONDS = 1.0
PRUNE_SECONDS = 60.0
ROWS_MAX = 100_000

T = TypeVar("T")


class Count(Struct):
    """`until`: seconds since the epoch before which nothing more of this subject is looked at."""

    failures: int = 0
    until: float = 0.0


class SharedCounts:
    def __init__(self, database: Database, env: Env) -> None:
        self._database, self._env = database, env
        self._fresh: dict[str, Count] = {}  # not written yet
        self._leaving: dict[str, Count] = {}  # being written
        self._forgiven: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: set[asyncio.Task[None]] = set()
        self._pruned = float("-inf")

    async def look(self, ask: Callable[[Transaction], tuple[Iterable[str], T]]) -> tuple[dict[str, Count], T]:
        """What is counted of the subjects that `ask` names in the same read."""

        def unit(tx: Transaction) -> tuple[dict[str, Count], T]:
            subjects, answer = ask(tx)
            return {one: self.now(tx, one) for one in subjects}, answer

        return await self._database.read(unit)

    def now(self, tx: Transaction, subject: str) -> Count:
        count = read(tx, subject, self._env.clock.now())
        for fresh in (self._fresh.get(subject), self._leaving.get(subject)):
            if fresh is not None:
                count.failures += fresh.failures
                count.until = max(count.until, fresh.until)
        return count

    def add(self, subject: str, failures: int, until: float = 0.0) -> None:
        fresh = self._fresh.setdefault(subject, Count())
        fresh.failures += failures
        fresh.until = max(fresh.until, until)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._due)

    def forgive(self, subject: str) -> None:
        """Half of what is counted in the rows, at the next writing."""
        self._forgiven.add(subject)
        self.add(subject, 0)

    def _due(self) -> None:
        self._timer = None
        task = asyncio.get_running_loop().create_task(self.flush())
        self._flushing.add(task)
        task.add_done_callback(self._flushing.discard)

    async def flush(self) -> None:
        """Write what is new. What the store cannot take now is kept for the next time."""
        written = self._leaving = self._fresh
        self._fresh = {}
        forgiven, self._forgiven = self._forgiven, set()
        now = self._env.clock.now()
        prune = now >= self._pruned + PRUNE_SECONDS

        def unit(tx: Transaction) -> None:
            if prune:
                forget(tx, now)
            tx.many("UPDATE guess SET failures=failures/2 WHERE subject=?", [(one,) for one in forgiven])
            add(tx, {one: count for one, count in written.items() if count.failures}, now)

        try:
            if written:
                await self._database.write(unit)
                self._pruned = now if prune else self._pruned
        except StoreError:
            for subject, count in written.items():
                self.add(subject, count.failures, count.until)
        finally:
            self._leaving = {}

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self.flush()
        if self._timer is not None:
            self._timer.cancel()


def read(tx: Transaction, subject: str, now: float) -> Count:
    row: Any = tx.row("SELECT failures, last, until FROM guess WHERE subject=?", (subject,))
    if row is None or row[1] < now - FORGIVE_SECONDS:
        return Count()
    return Count(max(0, row[0]), row[2] / 1000)


def add(tx: Transaction, counts: dict[str, Count], now: float) -> None:
    tx.many(
        "INSERT INTO guess (subject, failures, last, until) VALUES (?,?,?,?) ON CONFLICT (subject) DO UPDATE SET"
        " failures=CASE WHEN guess.last<? THEN excluded.failures ELSE guess.failures+excluded.failures END,"
        " last=excluded.last, until=CASE WHEN excluded.until>guess.until THEN excluded.until ELSE guess.until END",
        [
            (subject, count.failures, int(now), int(count.until * 1000), int(now - FORGIVE_SECONDS))
            for subject, count in counts.items()
        ],
    )


def forget(tx: Transaction, now: float) -> None:
    """What is forgiven; of too many rows those that have failed least."""
    tx.run("DELETE FROM guess WHERE last<?", (int(now - FORGIVE_SECONDS),))
    count = int(tx.rows("SELECT count(*) FROM guess")[0][0])
    if count > ROWS_MAX:
        tx.run(
            "DELETE FROM guess WHERE subject IN (SELECT subject FROM guess ORDER BY failures, last LIMIT ?)",
            (count - ROWS_MAX,),
        )

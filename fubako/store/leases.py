"""`Leases`: what this process holds by name, kept alive while it is held.

Invariant: a lease is held by one session of one process at a time, until it is released or lost.
"""

import asyncio
from contextlib import suppress

from fubako.clock import Clock
from fubako.store import lease
from fubako.store.interface import Database, StoreError, Transaction
from fubako.store.lease import LEASE_SECONDS, NAMES, Sightings

BEAT_SECONDS = LEASE_SECONDS / 4
WATCHED_SECONDS = 10 * LEASE_SECONDS  # so long others are watched after somebody wanted what they hold


class Lease:
    """Something that is held. What is written because of that is written with `require`."""

    def __init__(self, leases: "Leases", name: str, epoch: int) -> None:
        self._leases, self.name, self.epoch = leases, name, epoch

    def require(self, tx: Transaction) -> None:
        """Raises LeaseLost."""
        lease.require(tx, NAMES, self.name, self._leases.owner, self.epoch)

    def drop(self, tx: Transaction) -> None:
        """Part of a unit that ends it, where others are to see both at once; `release` is still to be called."""
        lease.drop(tx, self.name, self._leases.owner, self.epoch)

    def release(self) -> None:
        """The row goes a moment later."""
        self._leases._released(self)


class Leases:
    """One a process. `owner`: its name, which no other process has or will have."""

    def __init__(self, database: Database, clock: Clock, owner: str) -> None:
        self.owner = owner
        self._database, self._clock = database, clock
        self._sightings = Sightings()
        self._held: dict[str, Lease] = {}
        self._wanted: set[str] = set()  # is being taken just now
        self._watch_until = float("-inf")
        self._beating: asyncio.Task[None] | None = None
        self._dropping: set[asyncio.Task[None]] = set()

    async def take(self, name: str) -> Lease | None:
        """None: somebody holds it. Raises StoreError."""
        if name in self._held or name in self._wanted:
            return None
        self._wanted.add(name)
        try:
            gone = self._sightings.gone(name, self._clock.monotonic())
            epoch = await self._database.write(lambda tx: lease.take(tx, NAMES, name, self.owner, gone))
            if epoch is not None:
                self._held[name] = Lease(self, name, epoch)
            else:
                await self._look()
                self._watch_until = self._clock.monotonic() + WATCHED_SECONDS
            self._beat()
            return self._held.get(name)
        finally:
            self._wanted.discard(name)

    def _beat(self) -> None:
        if self._beating is None or self._beating.done():
            self._beating = asyncio.get_running_loop().create_task(self._beat_on())

    async def _beat_on(self) -> None:
        """As long as something is held, or wanted of others."""
        while self._held or self._clock.monotonic() < self._watch_until:
            await asyncio.sleep(BEAT_SECONDS)
            with suppress(StoreError):  # the next one may succeed; who judges us counts the time, not the beats
                await self._look()
                await self._renew()

    async def _look(self) -> None:
        holdings = await self._database.read(lambda tx: lease.held(tx, NAMES))
        self._sightings.note(holdings, self._clock.monotonic())

    async def _renew(self) -> None:
        names = list(self._held)

        def unit(tx: Transaction) -> None:
            tx.many("UPDATE lease SET beat=beat+1 WHERE name=? AND owner=?", [(name, self.owner) for name in names])

        if names:
            await self._database.write(unit, patient=True)

    def _released(self, one: Lease) -> None:
        if self._held.get(one.name) is not one:
            return
        del self._held[one.name]
        task = asyncio.get_running_loop().create_task(self._drop(one))
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)

    async def _drop(self, one: Lease) -> None:
        with suppress(StoreError):  # it then ends by itself
            await self._database.write(one.drop)

    async def close(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
        for one in list(self._held.values()):
            one.release()
        if self._dropping:
            await asyncio.wait(self._dropping)

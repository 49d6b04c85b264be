"""`SegmentBlobs`: contents gather while the batch before is being synced; reads wait for a disk beside the loop."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

from fubako.clock import Clock, SystemClock
from fubako.store import ownership
from fubako.store.group import GATHER_SECONDS, Gathering, Syncing, settle
from fubako.store.interface import BlobRef, Damaged, Database, Gone, StoreError, StoreFull
from fubako.store.segments import SegmentCore

BATCH_MAX = 512
READERS = 4  # threads that wait for the disk
ON_LOOP_OCTETS_MAX = 1024 * 1024  # more is proved beside the loop, in memory or not
NUMBERS_MAX = 64  # that may be taken by others before it is our fault
TOLD_MAX = 1000  # damaged contents that are told of, each once

T = TypeVar("T")
Waiting = tuple[Sequence[bytes], "asyncio.Future[BlobRef]"]


def _tell_nobody(_error: Damaged) -> None:
    """Where nobody asked to be told."""


class SegmentBlobs:
    """The embedded `Blobs`. `owner`: the name of this process's life in rows. `told`: called once for each content that is found
    damaged."""

    def __init__(self, core: SegmentCore, database: Database, owner: str, *, clock: Clock | None = None) -> None:
        self.core = core
        self.told: Callable[[Damaged], None] = _tell_nobody
        self._database = database
        self._owner = owner
        self._clock = clock or SystemClock()
        self._loop = asyncio.get_running_loop()
        self._syncing = Syncing("segments")
        self._readers: ThreadPoolExecutor | None = None
        self._waiting: list[Waiting] = []
        self._busy = False
        self._idle: list[asyncio.Future[None]] = []
        self._gathering = Gathering()
        self._expected = 0
        self._timer: asyncio.TimerHandle | None = None  # a batch waits for company
        self._damaged: set[int] = set()
        self._beginning: asyncio.Task[None] | None = None

    # -- writing

    def expect(self, change: int) -> None:
        self._expected += change
        if not self._expected and self._timer is not None:
            self._timer.cancel()
            self._begin()

    async def put(self, chunks: Sequence[bytes]) -> BlobRef:
        future: asyncio.Future[BlobRef] = self._loop.create_future()
        self._waiting.append((chunks, future))
        self._gathering.arrived(self._loop.time())
        if not self._busy:
            self._busy = True
            self._gather()
        return await future

    def _gather(self) -> None:
        if self._expected and self._gathering.busy:
            self._timer = self._loop.call_later(GATHER_SECONDS, self._begin)
        else:
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._timer = None
        if self.core.full:
            self._beginning = self._loop.create_task(self._begin_segment())
            return
        batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
        contents = [chunks for chunks, _ in batch]
        refs = self.core.place([sum(map(len, chunks)) for chunks in contents])
        self._syncing.run(
            partial(self.core.write, refs, contents), lambda _, error: self._end(batch, refs, error)
        )  # fmt: skip

    async def _begin_segment(self) -> None:
        """A segment of our own first; what waits fails where there can be none."""
        try:
            await self._fresh()
        except BaseException as error:
            batch, self._waiting = self._waiting, []
            self._end(
                batch, [], error if isinstance(error, StoreError) else StoreFull(f"the store cannot write: {error}")
            )
            if not isinstance(error, StoreError):
                raise
            return
        self._begin()

    async def _fresh(self) -> None:
        for _ in range(NUMBERS_MAX):
            number = await self._database.write(ownership.next_number)
            if not await self._run(partial(self.core.begin, number)):
                continue
            now = int(self._clock.now())
            if await self._database.write(partial(ownership.begin, number=number, owner=self._owner, now=now)):
                return
            await self._run(self.core.leave)
        raise StoreError("no number for a new segment is free: look at the folder of segments")

    def _end(self, batch: list[Waiting], refs: list[BlobRef], error: BaseException | None) -> None:
        for (_, future), result in zip(batch, [error] * len(batch) if error else refs, strict=True):
            settle(future, result)
        if self._gathering.busy and not error and self.core.runs_out:
            self._syncing.run(self.core.reserve, lambda _result, _error: None)
        self._go_on()

    def _go_on(self) -> None:
        if self._waiting:
            self._gather()
            return
        self._busy = False
        idle, self._idle = self._idle, []
        for one in idle:
            settle(one, None)

    async def _run(self, work: Callable[[], T]) -> T:
        """On the thread that writes."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._syncing.run(work, lambda result, error: settle(future, error or result))
        return await future

    async def leave(self) -> None:
        """Append to a new segment from now on, so that the one before can be emptied."""
        await self._quiet()
        self._busy = True  # what comes meanwhile waits
        try:
            left = await self._run(self.core.leave)
            if left:
                await self._database.write(partial(ownership.leave, owner=self._owner))
        finally:
            self._go_on()

    async def _quiet(self) -> None:
        while self._busy:
            idle: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(idle)
            await idle

    # -- reading

    async def read(self, ref: BlobRef, start: int = 0, length: int | None = None) -> bytes:
        try:
            return await self._read(ref, start, length)
        except Gone:
            found = await self._database.read(partial(ownership.moved, ref=ref))
            try:
                if found is not None:
                    return await self._read(found, start, length)
            except (Gone, Damaged) as error:
                raise self._tell(ref, str(error)) from None
            raise self._tell(ref, f"segment {ref.segment:x} is missing") from None
        except Damaged as error:
            self._once(error)
            raise

    async def _read(self, ref: BlobRef, start: int, length: int | None) -> bytes:
        if (ref.size if length is None else length) <= ON_LOOP_OCTETS_MAX:
            found = self.core.read_now(ref, start, length)
            if found is not None:
                return found
        if self._readers is None:
            self._readers = ThreadPoolExecutor(READERS, "blobs")
        return await self._loop.run_in_executor(self._readers, self.core.read, ref, start, length)

    def _tell(self, ref: BlobRef, reason: str) -> Damaged:
        error = Damaged(ref.blob_id, reason)
        self._once(error)
        return error

    def _once(self, error: Damaged) -> None:
        if error.blob_id not in self._damaged and len(self._damaged) < TOLD_MAX:
            self._damaged.add(error.blob_id)
            self.told(error)

    # -- the end

    async def close(self) -> None:
        await self._quiet()
        await self._syncing.close()
        if self._readers is not None:
            self._readers.shutdown()
        left = self.core.close()
        if left:
            with suppress(StoreError):  # the next start seals it
                await self._database.write(partial(ownership.leave, owner=self._owner))

"""`Indexer`: keeps the search indexes of all accounts up to date, on a thread of its own, when somebody searches."""

import asyncio
import fcntl
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from fubako.message.headers import header_end
from fubako.message.text import body_text, header_text
from fubako.store import messages
from fubako.store.interface import BlobRef, Blobs, Database, Place, StoreError, Transaction
from fubako.store.search import Found, SearchIndex

T = TypeVar("T")

_BATCH = 50
READING_SECONDS = 1.0
_DUE_MAX = 10_000
_OPEN_MAX = 32


class Indexer:
    """One search at a time touches an index; searches of an account wait for the letters that are not in it yet."""

    def __init__(self, directory: Path, database: Database, blobs: Blobs) -> None:
        self._directory = directory
        self._database = database
        self._blobs = blobs
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._open: OrderedDict[int, SearchIndex] = OrderedDict()
        self._busy: dict[int, asyncio.Lock] = {}
        self.reading_at = float("-inf")  # when somebody last read much; indexing steps aside for a moment

    def reading(self) -> None:
        """Somebody reads much just now."""
        self.reading_at = asyncio.get_running_loop().time()

    async def find(
        self, account_id: int, mailbox_id: int, uids: Sequence[int], needle: str, column: str
    ) -> Found | None:
        """See SearchIndex.find; `uids` (sorted) are in the index when it is asked."""
        try:
            await self.catch_up(account_id, mailbox_id, uids)
            return await self._run(self._index(account_id).find, mailbox_id, needle, column)
        except StoreError:  # a search goes on without its index
            return None

    async def catch_up(
        self, account_id: int, mailbox_id: int, uids: Sequence[int], go_on: Callable[[], bool] = lambda: True
    ) -> None:
        """Put the letters that are missing into the index, a batch at a time while `go_on` says so."""
        async with self._busy.setdefault(account_id, asyncio.Lock()), self._alone(account_id):
            index = self._index(account_id)
            last: int = await self._run(index.indexed, mailbox_id)
            missing = uids[bisect_right(uids, last) :]
            for start in range(0, len(missing), _BATCH):
                if not go_on():
                    return
                contents = await self._contents(account_id, mailbox_id, missing[start : start + _BATCH])
                await self._run(_add, index, mailbox_id, contents)

    @asynccontextmanager
    async def _alone(self, account_id: int) -> AsyncIterator[None]:
        """Other processes do not put the same letters in at the same time."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(self._directory / f"{account_id}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await self._run(fcntl.flock, fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    async def _contents(self, account_id: int, mailbox_id: int, uids: Sequence[int]) -> list[tuple[int, bytes]]:
        def unit(tx: Transaction) -> list[tuple[int, BlobRef]]:
            rows = messages.select(tx, "uid, blob_id", account_id, mailbox_id, uids)
            return [(uid, messages.blob_of(tx, blob_id)) for uid, blob_id in rows]

        contents: list[tuple[int, bytes]] = []
        for uid, ref in await self._database.read(unit):
            try:
                contents.append((uid, self._blobs.read(ref)))
            except StoreError:  # damaged content is `store verify`'s to tell; a search goes on
                contents.append((uid, b""))
        return contents

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _index(self, account_id: int) -> SearchIndex:
        index = self._open.get(account_id)
        if index is None:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            index = self._open[account_id] = SearchIndex(self._directory / f"{account_id}.sqlite")
        self._open.move_to_end(account_id)
        if len(self._open) > _OPEN_MAX:
            _, oldest = self._open.popitem(last=False)
            self._thread.submit(oldest.close)
        return index

    def close(self) -> None:
        for index in self._open.values():
            self._thread.submit(index.close)
        self._thread.shutdown(wait=True)


def _add(index: SearchIndex, mailbox_id: int, contents: list[tuple[int, bytes]]) -> None:
    index.add(mailbox_id, ((uid, header_text(c[: header_end(c)]), body_text(c)) for uid, c in contents))


class QuietIndexing:
    """Puts new letters into the index once a process has been quiet for a while, so that a search finds it done."""

    def __init__(self, indexer: Indexer, database: Database, quiet_seconds: float = 5.0) -> None:
        self._indexer = indexer
        self._database = database
        self._quiet_seconds = quiet_seconds
        self._due: set[Place] = set()
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def noticed(self, places: set[Place]) -> None:
        loop = asyncio.get_running_loop()
        self._last = loop.time()
        if len(self._due) < _DUE_MAX:
            self._due |= places
        if self._timer is None and self._task is None:
            self._timer = loop.call_later(self._quiet_seconds, self._look)

    def _quiet(self) -> bool:
        now = asyncio.get_running_loop().time()
        return now - self._last >= self._quiet_seconds and now - self._indexer.reading_at >= READING_SECONDS

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        if self._quiet():
            self._task = loop.create_task(self._work())
        else:
            self._timer = loop.call_at(max(self._last + self._quiet_seconds, loop.time() + READING_SECONDS), self._look)

    async def _work(self) -> None:
        try:
            while self._due and self._quiet():
                account_id, mailbox_id = place = next(iter(self._due))
                uids = await self._database.read(lambda tx, p=place: messages.uids(tx, *p))  # type: ignore[misc]  # binds the loop's value
                await self._indexer.catch_up(account_id, mailbox_id, uids, self._quiet)
                if self._quiet():
                    self._due.discard(place)
        except StoreError:  # a search will put in what is missing, or do without
            self._due.clear()
        finally:
            self._task = None
            if self._due and self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(self._quiet_seconds, self._look)

    async def close(self) -> None:
        self._due.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()

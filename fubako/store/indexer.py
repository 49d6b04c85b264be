"""`Indexer`: keeps the search indexes of all accounts up to date. Workers of `scan` read messages, a thread writes what they found.

Invariant: a message at which its worker fails is noted in the index and not tried again; one at which this process itself ended is
tried once more, alone. A damaged index is removed and made anew. Neither keeps other messages, or other accounts, waiting.
"""

import asyncio
import fcntl
import os
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from fubako import modes
from fubako.scan.jobs import Failure, Holds, Indexed, JobFailed
from fubako.scan.pool import Pool
from fubako.scan.turns import Asker
from fubako.store import messages
from fubako.store.interface import BlobRef, Blobs, Database, Place, StoreError, Transaction
from fubako.store.search import DamagedIndex, Found, SearchIndex
from fubako.telemetry import Telemetry

T = TypeVar("T")
P = ParamSpec("P")

_BATCH = 50
TRIES_MAX = 1  # of a message alone, when the process ended while it was tried
_OPEN_MAX = 32


class Unsearchable(StoreError):
    """Messages cannot be read now: no worker can be had, or all are taken. Later it may be so."""


class Indexer:
    """One search at a time touches an index; searches of an account wait for the messages that are not in it yet."""

    def __init__(self, directory: Path, database: Database, blobs: Blobs, pool: Pool) -> None:
        self._directory = directory
        self._database = database
        self._blobs = blobs
        self.pool = pool
        self.telemetry = Telemetry(quiet=True)
        self.unfinished: Callable[[set[Place]], None] = lambda _places: None  # told what a search could not wait for
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._open: OrderedDict[int, SearchIndex] = OrderedDict()
        self._busy: dict[int, asyncio.Lock] = {}
        self.reading_at = float("-inf")  # when somebody last read much; indexing steps aside for a moment

    def reading(self) -> None:
        """Somebody reads much just now."""
        self.reading_at = asyncio.get_running_loop().time()

    # -- what a search asks

    async def find(
        self, account_id: int, mailbox_id: int, uids: Sequence[int], needle: str, column: str
    ) -> Found | None:
        """See SearchIndex.find; `uids` (sorted) are in the index when it is asked. None: a search goes on without it."""
        for _ in range(2):  # a damaged index is made anew once
            try:
                await self.catch_up(account_id, mailbox_id, uids)
                return await self._on(account_id, SearchIndex.find, mailbox_id, needle, column)
            except DamagedIndex:
                continue
            except Unsearchable:
                raise
            except StoreError:
                return None
        return None

    async def passed_over(self, account_id: int, mailbox_id: int) -> set[int]:
        """UIDs of messages that are not read any more."""
        try:
            return set(await self._on(account_id, SearchIndex.skipped, mailbox_id))
        except StoreError:
            return set()

    async def holds(self, place: Place, uid: int, content: bytes, question: Holds) -> tuple[bool, ...]:
        """Which texts one message holds. Raises Unsearchable."""
        account_id, mailbox_id = place
        try:
            return await self._tried(lambda: self.pool.holds(content, question, Asker(account_id)))
        except JobFailed as failed:
            with suppress(StoreError):  # the index then meets it itself
                await self._pass_over(account_id, mailbox_id, {uid: str(failed)})
            return (False,) * len(question.texts)

    # -- putting in

    async def catch_up(
        self,
        account_id: int,
        mailbox_id: int,
        uids: Sequence[int],
        go_on: Callable[[], bool] = lambda: True,
        *,
        waiting: bool = True,
    ) -> None:
        """Put the messages that are missing into the index, a batch at a time while `go_on` says so. `waiting`: somebody waits."""
        asker = Asker(account_id, waiting)
        try:
            await self._catch_up(asker, mailbox_id, uids, go_on)
        except DamagedIndex:  # it is gone: all are missing now
            await self._catch_up(asker, mailbox_id, uids, go_on)

    async def _catch_up(self, asker: Asker, mailbox_id: int, uids: Sequence[int], go_on: Callable[[], bool]) -> None:
        account_id = asker.account_id
        async with self._busy.setdefault(account_id, asyncio.Lock()), self._alone(account_id):
            last, left = await self._on(account_id, SearchIndex.standing, mailbox_id)
            known = await self._on(account_id, SearchIndex.skipped, mailbox_id)
            for batch in _batches(uids[bisect_right(uids, last) :], left):
                if not go_on():
                    return
                await self._put_in(mailbox_id, batch, asker, known)

    async def _put_in(self, mailbox_id: int, batch: Sequence[int], asker: Asker, known: Container[int]) -> None:
        """What is tried is written down first: a message that ends even this process is found there by the next one."""
        account_id, last = asker.account_id, batch[-1]
        tries = await self._on(account_id, SearchIndex.begin, mailbox_id, batch[0], last)
        found: list[tuple[int, str, str]] = []
        skipped: dict[int, str] = {}
        if len(batch) == 1 and tries > TRIES_MAX:
            skipped[last] = f"the server ended while it was read, {tries} times"
        else:
            try:
                wanted = [uid for uid in batch if uid not in known]
                for uid, size, ref in await self._refs(account_id, mailbox_id, wanted):
                    try:
                        texts = await self._texts(ref, size, asker)
                        found.append((uid, texts.header, texts.body))
                    except JobFailed as failed:
                        skipped[uid] = str(failed)
            except BaseException:  # nothing ended: it is not a try
                self._thread.submit(self._apply, account_id, SearchIndex.release, mailbox_id)
                raise
        await self._pass_over(account_id, mailbox_id, skipped)
        await self._on(account_id, SearchIndex.add, mailbox_id, found, last)

    async def _texts(self, ref: BlobRef, header_size: int, asker: Asker) -> Indexed:
        try:
            content = await self._blobs.read(ref)
        except StoreError:  # damaged content is `store verify`'s to tell; a search goes on
            return Indexed("", "")
        return await self._tried(lambda: self.pool.index(content, header_size, asker))

    async def _tried(self, ask: Callable[[], Awaitable[T]]) -> T:
        """A worker may have ended for another reason than the message: then once more. Raises JobFailed, Unsearchable."""
        for last_try in (False, True):
            try:
                return await ask()
            except JobFailed as failed:
                if not failed.of_content:
                    raise Unsearchable(str(failed)) from None
                if last_try or failed.kind is not Failure.DIED:
                    raise
        raise AssertionError

    async def _pass_over(self, account_id: int, mailbox_id: int, skipped: dict[int, str]) -> None:
        if not skipped:
            return
        await self._on(account_id, SearchIndex.skip, mailbox_id, skipped, int(time.time()))
        for uid, reason in skipped.items():
            self.telemetry.event("index.skipped", account=account_id, mailbox=mailbox_id, uid=uid, reason=reason)

    async def _refs(self, account_id: int, mailbox_id: int, uids: Sequence[int]) -> list[tuple[int, int, BlobRef]]:
        def unit(tx: Transaction) -> list[tuple[int, int, BlobRef]]:
            rows = messages.select(tx, f"uid, header_size, {messages.PLACE}", account_id, mailbox_id, uids)
            return [(uid, size, BlobRef(*place)) for uid, size, *place in rows]

        return await self._database.read(unit)

    # -- letting go

    async def forget(self) -> int:
        """The words of messages that are gone, and the indexes of accounts that are, leave the disk; how many messages'. Raises
        StoreError."""
        count = 0
        for path in sorted(self._directory.glob("*.sqlite")):
            if path.stem.isdigit():
                count += await self._forget(int(path.stem))
        return count

    async def _forget(self, account_id: int) -> int:
        count = 0
        async with self._busy.setdefault(account_id, asyncio.Lock()), self._alone(account_id):
            if not await self._database.read(lambda tx: messages.has_account(tx, account_id)):
                await self._run(self._remove, account_id)
                (self._directory / f"{account_id}.lock").unlink(missing_ok=True)
                return 0
            for mailbox_id in await self._on(account_id, SearchIndex.mailboxes):
                held = await self._on(
                    account_id, SearchIndex.held, mailbox_id
                )  # before the rows: none is put in behind them
                live = set(await self._database.read(lambda tx, i=mailbox_id: messages.uids(tx, account_id, i)))  # type: ignore[misc]  # binds the loop's value
                gone = [uid for uid in held if uid not in live]
                if gone:
                    await self._on(account_id, SearchIndex.forget, mailbox_id, gone)
                count += len(gone)
        return count

    # -- the files

    @asynccontextmanager
    async def _alone(self, account_id: int) -> AsyncIterator[None]:
        """Other processes do not put the same messages in at the same time. Raises StoreError."""
        try:
            modes.folder(self._directory)
            fd = os.open(self._directory / f"{account_id}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, modes.FILE)
        except OSError as error:
            raise StoreError(f"the search index cannot be locked: {error}") from None
        try:
            await self._run(fcntl.flock, fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    async def _on(
        self, account_id: int, work: Callable[Concatenate[SearchIndex, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Something of an account's index, on the thread. Raises StoreError; a damaged index is gone by then (DamagedIndex)."""
        try:
            return await self._run(self._apply, account_id, work, *args)
        except DamagedIndex as error:
            await self._run(self._remove, account_id)
            self.telemetry.event("index.rebuilt", account=account_id, reason=str(error))
            raise

    def _apply(self, account_id: int, work: Callable[..., T], *args: Any) -> T:
        return work(self._index(account_id), *args)

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _index(self, account_id: int) -> SearchIndex:
        path = self._directory / f"{account_id}.sqlite"
        index = self._open.get(account_id)
        if index is not None and not index.in_place(path):  # another process has made it anew
            self._open.pop(account_id).close()
            index = None
        if index is None:
            modes.folder(self._directory)
            index = self._open[account_id] = SearchIndex(path)
        self._open.move_to_end(account_id)
        if len(self._open) > _OPEN_MAX:
            self._open.popitem(last=False)[1].close()
        return index

    def _remove(self, account_id: int) -> None:
        """All of it can be made again."""
        index = self._open.pop(account_id, None)
        if index is not None:
            index.close()
        try:
            for ending in ("", "-wal", "-shm", "-journal"):
                (self._directory / f"{account_id}.sqlite{ending}").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"the damaged search index cannot be removed: {error}") from None

    def close(self) -> None:
        for index in self._open.values():
            self._thread.submit(index.close)
        self._thread.shutdown(wait=True)


def _batches(uids: Sequence[int], left: tuple[int, int] | None) -> Iterator[Sequence[int]]:
    """What was being tried when a process ended comes one by one, the rest many at a time."""
    alone = bisect_right(uids, left[1]) if left is not None else 0
    for position in range(alone):
        yield uids[position : position + 1]
    for start in range(alone, len(uids), _BATCH):
        yield uids[start : start + _BATCH]

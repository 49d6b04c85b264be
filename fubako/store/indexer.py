"""`Indexer`: keeps the search indexes of all accounts up to date, on a thread of its own, when somebody searches."""

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from fubako.message.headers import header_end
from fubako.message.text import body_text, header_text
from fubako.store import messages
from fubako.store.interface import BlobRef, Blobs, Database, StoreError, Transaction
from fubako.store.search import Found, SearchIndex

T = TypeVar("T")

_BATCH = 200
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

    async def find(
        self, account_id: int, mailbox_id: int, uids: Sequence[int], needle: str, column: str
    ) -> Found | None:
        """See SearchIndex.find; `uids` (sorted) are in the index when it is asked."""
        await self.catch_up(account_id, mailbox_id, uids)
        index = self._index(account_id)
        return await self._run(index.find, mailbox_id, needle, column)

    async def catch_up(self, account_id: int, mailbox_id: int, uids: Sequence[int]) -> None:
        lock = self._busy.setdefault(account_id, asyncio.Lock())
        async with lock:
            index = self._index(account_id)
            last: int = await self._run(index.indexed, mailbox_id)
            missing = uids[bisect_right(uids, last) :]
            for start in range(0, len(missing), _BATCH):
                contents = await self._contents(account_id, mailbox_id, missing[start : start + _BATCH])
                await self._run(_add, index, mailbox_id, contents)

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

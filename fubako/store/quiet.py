"""`QuietIndexing`: puts new messages into the index once a process has been quiet for a while, so that a search finds it done."""

import asyncio

from fubako.store import messages
from fubako.store.indexer import Indexer, Unsearchable
from fubako.store.interface import Database, Place, StoreError

READING_SECONDS = 1.0
_DUE_MAX = 10_000


class QuietIndexing:
    """One account's trouble keeps no other one from being indexed."""

    def __init__(self, indexer: Indexer, database: Database, quiet_seconds: float = 5.0) -> None:
        self._indexer = indexer
        self._database = database
        self._quiet_seconds = quiet_seconds
        self._due: set[Place] = set()
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        indexer.unfinished = self.noticed

    def noticed(self, places: set[Place]) -> None:
        loop = asyncio.get_running_loop()
        self._last = loop.time()
        if len(self._due) < _DUE_MAX:
            self._due |= {place for place in places if place[1]}  # mailbox 0: the account itself
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
                place = next(iter(self._due))
                try:
                    await self._catch_up(*place)
                except Unsearchable:  # nobody can be indexed now: later
                    return
                except StoreError as error:  # a search will put in what is missing, or do without
                    self._indexer.telemetry.event("index.failed", account=place[0], reason=str(error))
                    self._due.discard(place)
                    continue
                if self._quiet():
                    self._due.discard(place)
        finally:
            self._task = None
            if self._due and self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(self._quiet_seconds, self._look)

    async def _catch_up(self, account_id: int, mailbox_id: int) -> None:
        uids = await self._database.read(lambda tx: messages.uids(tx, account_id, mailbox_id))
        await self._indexer.catch_up(account_id, mailbox_id, uids, self._quiet, waiting=False)

    async def close(self) -> None:
        self._due.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()

"""`Turns`: who may compute a slow hash next. Few at once; of those who wait the best rank goes first, and when too many wait
the worst rank has to go."""

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

Rank = int  # 0 for a network where this account has logged in before, else 1


class Full(Exception):
    """Too many wait."""


class Turns:
    def __init__(self, places: int, waiting_max: int) -> None:
        self._free = places
        self._waiting_max = waiting_max
        self._waiting: list[tuple[Rank, int, asyncio.Future[None]]] = []
        self._number = count()

    @property
    def busy(self) -> bool:
        """Whether one more would have to wait."""
        return not self._free

    @asynccontextmanager
    async def turn(self, rank: Rank) -> AsyncIterator[None]:
        """Raises Full, at once or when others with a better rank came."""
        await self._take(rank)
        try:
            yield
        finally:
            self._next()

    async def _take(self, rank: Rank) -> None:
        if self._free:
            self._free -= 1
            return
        if len(self._waiting) >= self._waiting_max:
            worst = max(self._waiting)
            if rank >= worst[0]:
                raise Full
            self._waiting.remove(worst)
            heapq.heapify(self._waiting)
            if not worst[2].done():
                worst[2].set_exception(Full())
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (rank, next(self._number), mine)
        heapq.heappush(self._waiting, entry)
        try:
            await mine
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
                heapq.heapify(self._waiting)
            elif mine.done() and not mine.cancelled() and mine.exception() is None:
                self._next()  # the turn came, and nobody takes it
            raise

    def _next(self) -> None:
        while self._waiting:
            _, _, waiting = heapq.heappop(self._waiting)
            if not waiting.done():
                waiting.set_result(None)
                return
        self._free += 1

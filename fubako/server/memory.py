"""`Memory`: how much of whole messages this process works on at a time, all sessions together.

What is done with a complete message (examined, filtered, signed, described) needs it whole, a few times
over. Sessions take their turns at that in the order of their coming; who would wait too long is told to
come again.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

COPIES = 4  # of a message, while it is worked on
WAIT_SECONDS = 60.0


class NoMemory(Exception):
    """Others work on so much that this one would wait too long."""


class Memory:
    """`octets`: of all copies together. One message alone may need more than there is."""

    def __init__(self, octets: int) -> None:
        self._max = octets
        self._taken = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def held(self, size: int) -> AsyncIterator[None]:
        """While a message of `size` octets is worked on. Raises NoMemory."""
        octets = min(size * COPIES, self._max)
        if self._waiting or self._taken + octets > self._max:
            await self._turn(octets)
        else:
            self._taken += octets
        try:
            yield
        finally:
            self._taken -= octets
            self._serve()

    async def _turn(self, octets: int) -> None:
        place = octets, asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await place[1]
        except TimeoutError:
            self._leave(place)
            raise NoMemory from None
        except asyncio.CancelledError:
            self._leave(place)
            raise

    def _leave(self, place: tuple[int, "asyncio.Future[None]"]) -> None:
        if place in self._waiting:
            self._waiting.remove(place)
        elif place[1].done() and not place[1].cancelled():  # it had been given just now
            self._taken -= place[0]
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._taken + self._waiting[0][0] <= self._max:
            octets, turn = self._waiting.popleft()
            if turn.cancelled():
                continue
            self._taken += octets
            turn.set_result(None)

"""`Syncing`: one thread that waits for the disk, so that the loop does not.

The heart of group commit: everything that needs the interpreter runs on the loop; the thread only makes the system call
that waits, because each return from one has to win the interpreter back from a busy loop. While one batch is being synced,
the next one gathers.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any

Done = Callable[[Any, BaseException | None], None]


class Syncing:
    """`run(work, done)`: `work()` on the thread, then `done(result, error)` on the loop, in order."""

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[tuple[Callable[[], Any], Done] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], Any], done: Done) -> None:
        self._queue.put((work, done))

    def _serve(self) -> None:
        while (job := self._queue.get()) is not None:
            work, done = job
            result, error = None, None
            try:
                result = work()
            except BaseException as caught:  # whoever waits must learn of it, whatever it is
                error = caught
            try:
                self._loop.call_soon_threadsafe(done, result, error)
            except RuntimeError:  # the loop has been closed: nobody waits any more
                return

    async def close(self) -> None:
        """Do what is waiting, then end."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)


class Gathering:
    """Whether a batch should wait for company, up to `GATHER_SECONDS`: once letters come faster than one commit can be made,
    because a commit costs the same for one letter as for twenty."""

    def __init__(self) -> None:
        self._last = float("-inf")
        self._interval = 1.0

    def arrived(self, now: float) -> None:
        self._interval += (min(now - self._last, 1.0) - self._interval) / SMOOTHING
        self._last = now

    @property
    def busy(self) -> bool:
        return self._interval < BUSY_INTERVAL_SECONDS


GATHER_SECONDS = 0.003
BUSY_INTERVAL_SECONDS = 0.0015
SMOOTHING = 8


def settle(future: "asyncio.Future[Any]", result: Any) -> None:
    """Give a waiter its result, or raise it there when it is an exception; one that no longer waits is left alone."""
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)

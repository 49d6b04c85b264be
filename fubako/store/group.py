"""`Group`: one thread that does the work of all who wait in one go, and wakes them together.

The heart of group commit: while one batch is being synced, the next one gathers.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

J = TypeVar("J")
R = TypeVar("R")

BATCH_MAX = 512

_Entry = tuple[J, "asyncio.Future[R]"]


class Group(Generic[J, R]):
    """`work(jobs)` runs on the thread and gives a result or an exception for each job, in order."""

    def __init__(self, name: str, work: Callable[[Sequence[J]], Sequence[R | BaseException]]) -> None:
        self._work = work
        self._queue: queue.SimpleQueue[_Entry[J, R] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: J) -> "asyncio.Future[R]":
        future: asyncio.Future[R] = self._loop.create_future()
        self._queue.put((job, future))
        return future

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            batch, last = [first], False
            while len(batch) < BATCH_MAX:
                try:
                    entry = self._queue.get_nowait()
                except queue.Empty:
                    break
                if entry is None:
                    last = True
                    break
                batch.append(entry)
            results = self._try([job for job, _ in batch])
            try:
                self._loop.call_soon_threadsafe(self._wake, [future for _, future in batch], results)
            except RuntimeError:  # the loop has been closed: nobody waits any more
                return
            if last:
                return

    def _try(self, jobs: Sequence[J]) -> Sequence[R | BaseException]:
        try:
            return self._work(jobs)
        except BaseException as error:  # whoever waits must learn of it, whatever it is
            return [error] * len(jobs)

    @staticmethod
    def _wake(futures: "Sequence[asyncio.Future[R]]", results: Sequence[R | BaseException]) -> None:
        for future, result in zip(futures, results, strict=True):
            if future.done():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

    async def close(self) -> None:
        """Do what is waiting, then end."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

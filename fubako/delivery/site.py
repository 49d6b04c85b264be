"""`Site`: one way out, and the letters that wait for it: urgent ones first, then senders in turn."""

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from msgspec import Struct

from fubako.message.target import Way
from fubako.store.queue import Outgoing, Queued

SESSIONS_A_SITE_MAX = 20


class Job(Struct, frozen=True):
    """One letter and those of its recipients who go the same way."""

    lane_id: int
    epoch: int  # of the lease under which it was loaded: another owner may have sent it since that was lost
    letter: Outgoing
    recipients: tuple[Queued, ...]


@dataclass(slots=True)
class Site:
    """Senders of one priority take turns, so that nobody's hundred thousand letters stand before somebody's one."""

    key: str
    way: Way
    domain: str
    # by priority (RFC 6710), then by sender
    jobs: dict[int, OrderedDict[str, deque[Job]]] = field(default_factory=dict)
    active: int = 0  # sessions
    limit: float = 2.0
    idlers: list[asyncio.Future[Job | None]] = field(default_factory=list)  # connections that wait for another letter

    @property
    def waiting(self) -> int:
        """How many letters."""
        return sum(len(some) for senders in self.jobs.values() for some in senders.values())

    @property
    def idle(self) -> int:
        """How many connections wait for a letter."""
        return len(self.idlers)

    def add(self, job: Job) -> None:
        """It goes to the connection that has waited the shortest, so that those which are not needed end."""
        while self.idlers:
            idler = self.idlers.pop()
            if not idler.done():
                idler.set_result(job)
                return
        senders = self.jobs.setdefault(job.letter.priority, OrderedDict())
        senders.setdefault(job.letter.submitter or job.letter.sender, deque()).append(job)

    def take(self) -> Job | None:
        if not self.jobs:
            return None
        priority = max(self.jobs)
        senders = self.jobs[priority]
        sender, waiting = senders.popitem(last=False)
        job = waiting.popleft()
        if waiting:
            senders[sender] = waiting  # behind the others
        elif not senders:
            del self.jobs[priority]
        return job

    async def next(self, seconds: float) -> Job | None:
        """A letter for an open connection, which waits a little for it."""
        job = self.take()
        if job is not None:
            return job
        loop = asyncio.get_running_loop()
        idler: asyncio.Future[Job | None] = loop.create_future()
        self.idlers.append(idler)
        timer = loop.call_later(seconds, self._expire, idler)
        try:
            return await idler
        finally:
            timer.cancel()
            if idler in self.idlers:  # it was cancelled
                self.idlers.remove(idler)

    def _expire(self, idler: "asyncio.Future[Job | None]") -> None:
        if not idler.done():
            self.idlers.remove(idler)
            idler.set_result(None)

    def take_all(self) -> list[Job]:
        found = [job for senders in self.jobs.values() for waiting in senders.values() for job in waiting]
        self.jobs.clear()
        return found

    def went_well(self) -> None:
        self.limit = min(self.limit + 1 / self.limit, SESSIONS_A_SITE_MAX)

    def went_badly(self) -> None:
        self.limit = max(1.0, self.limit / 2)

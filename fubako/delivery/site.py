"""`Site`: one way out, and the letters that wait for it: urgent ones first, then senders in turn."""

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from fubako.store.queue import Outgoing, Queued

SESSIONS_A_SITE_MAX = 20


@dataclass(frozen=True, slots=True)
class Job:
    """One letter and those of its recipients who go the same way."""

    lane_id: int
    epoch: int  # of the lease under which it was loaded: another owner may have sent it since that was lost
    letter: Outgoing
    recipients: tuple[Queued, ...]


@dataclass(slots=True)
class Site:
    """Senders of one priority take turns, so that nobody's hundred thousand letters stand before somebody's one."""

    key: str
    domain: str
    jobs: dict[int, OrderedDict[str, deque[Job]]] = field(
        default_factory=dict
    )  # by priority (RFC 6710), then by sender
    active: int = 0  # sessions
    idle: int = 0  # those of them whose connection waits for another letter
    limit: float = 2.0
    more: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def waiting(self) -> int:
        """How many letters."""
        return sum(len(some) for senders in self.jobs.values() for some in senders.values())

    def add(self, job: Job) -> None:
        self.more.set()
        senders = self.jobs.setdefault(job.letter.priority, OrderedDict())
        senders.setdefault(job.letter.submitter or job.letter.sender, deque()).append(job)

    def take(self) -> Job | None:
        if not self.jobs:
            self.more.clear()
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

    def take_all(self) -> list[Job]:
        found = [job for senders in self.jobs.values() for waiting in senders.values() for job in waiting]
        self.jobs.clear()
        return found

    def went_well(self) -> None:
        self.limit = min(self.limit + 1 / self.limit, SESSIONS_A_SITE_MAX)

    def went_badly(self) -> None:
        self.limit = max(1.0, self.limit / 2)

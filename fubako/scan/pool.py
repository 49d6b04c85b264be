"""`Pool`: jobs in, answers out; a worker that dies, hangs or grows is replaced, and who asked is told."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from fubako.message.canonical import Wanted
from fubako.scan import frames, jobs
from fubako.scan.jobs import Failure, JobFailed
from fubako.scan.limits import ScanLimits
from fubako.scan.nursery import Nursery
from fubako.scan.turns import Asker, Turns
from fubako.telemetry import Telemetry

A = TypeVar("A", jobs.Indexed, jobs.Held, jobs.Hashes, jobs.Reports)


@dataclass(slots=True)
class _Worker:
    channel: socket.socket
    pid: int
    answered: int = 0


class Pool:
    """The workers of one serving process; none is started before it is needed. `nursery`: one that runs already."""

    def __init__(
        self,
        limits: ScanLimits | None = None,
        telemetry: Telemetry | None = None,
        nursery: Nursery | None = None,
        start: Callable[[], Nursery] = Nursery.start,
    ) -> None:
        self.limits = limits or ScanLimits()
        self.telemetry = telemetry or Telemetry(quiet=True)
        self._nursery = nursery
        self._start = start
        self._turns = Turns(self.limits)
        self._idle: list[_Worker] = []
        self._rest_until = 0.0
        self._told = False

    async def index(self, content: bytes, header_size: int, asker: Asker) -> jobs.Indexed:
        """The terms of a message. Raises JobFailed, as all of these do."""
        return await self._run(jobs.Index(header_size), content, asker, jobs.Indexed)

    async def holds(self, content: bytes, question: jobs.Holds, asker: Asker) -> tuple[bool, ...]:
        held = (await self._run(question, content, asker, jobs.Held)).held
        if len(held) != len(question.texts):
            raise JobFailed(Failure.REFUSED, "an answer does not fit the question")
        return held

    async def hash_body(self, body: bytes, wanted: Sequence[Wanted], asker: Asker) -> jobs.Hashes:
        return await self._run(jobs.HashBody(tuple(wanted)), body, asker, jobs.Hashes)

    async def reports(self, content: bytes, asker: Asker) -> jobs.Reports:
        return await self._run(jobs.ReadReports(), content, asker, jobs.Reports)

    async def _run(self, job: jobs.Job, content: bytes, asker: Asker, kind: type[A]) -> A:
        await self._turns.take(asker)
        try:
            worker = self._idle.pop() if self._idle else await self._hire()
            answer = await self._asked(worker, job, content)
        finally:
            self._turns.give_back(asker)
        if isinstance(answer, jobs.Failed):
            raise JobFailed(answer.kind, answer.reason)
        if not isinstance(answer, kind):
            raise JobFailed(Failure.REFUSED, "an answer does not fit the question")
        return answer

    async def _asked(self, worker: _Worker, job: jobs.Job, content: bytes) -> jobs.Answer:
        began = time.monotonic()
        failed: JobFailed | None = None
        try:
            async with asyncio.timeout(self.limits.deadline_seconds):
                answer = jobs.answer(await frames.ask(worker.channel, jobs.encode(job), content))
        except TimeoutError:
            failed = JobFailed(Failure.DEADLINE, f"no answer within {self.limits.deadline_seconds:g} s")
        except (OSError, frames.FrameError, msgspec.MsgspecError) as error:
            failed = self._ended(time.monotonic() - began, error)
        except BaseException:
            self._dismiss(worker)
            raise
        if failed is not None:
            self._dismiss(worker)
            self.telemetry.event("scan.worker_ended", kind=failed.kind.value, reason=failed.reason, pid=worker.pid)
            raise failed
        worker.answered += 1
        if isinstance(answer, jobs.Failed) or self._tired(worker, content):
            worker.channel.close()  # it ends by itself
        else:
            self._idle.append(worker)
        return answer

    def _ended(self, seconds: float, error: Exception) -> JobFailed:
        """The kernel ends a worker that has had its processor time; it cannot have had that sooner."""
        if seconds >= self.limits.cpu_seconds * 0.9:
            return JobFailed(Failure.DEADLINE, f"more than {self.limits.cpu_seconds:g} s of processor time")
        return JobFailed(Failure.DIED, str(error))

    def _tired(self, worker: _Worker, content: bytes) -> bool:
        return len(content) >= self.limits.retire_octets or worker.answered >= self.limits.jobs_max

    def _dismiss(self, worker: _Worker) -> None:
        worker.channel.close()
        if self._nursery is not None:
            with contextlib.suppress(OSError):
                self._nursery.kill(worker.pid)

    async def _hire(self) -> _Worker:
        """Raises JobFailed (UNAVAILABLE); for a while after that at once."""
        if time.monotonic() < self._rest_until:
            raise JobFailed(Failure.UNAVAILABLE, "no worker could be started a moment ago")
        problem = ""
        for _ in range(2):  # a nursery that has ended is started anew once
            try:
                return await self._hired()
            except (OSError, TimeoutError, frames.FrameError, msgspec.MsgspecError) as error:
                problem = str(error) or type(error).__name__
                if self._nursery is not None:
                    self._nursery.close()
                    self._nursery = None
        self._rest_until = time.monotonic() + self.limits.rest_seconds
        self.telemetry.event("scan.unavailable", reason=problem)
        raise JobFailed(Failure.UNAVAILABLE, problem)

    async def _hired(self) -> _Worker:
        if self._nursery is None:
            self._nursery = self._start()
        channel = self._nursery.worker(self.limits)
        try:
            async with asyncio.timeout(self.limits.start_seconds):
                ready = jobs.answer(await frames.answered(channel))
        except BaseException:
            channel.close()
            raise
        if not isinstance(ready, jobs.Ready):
            channel.close()
            raise frames.FrameError("a worker did not say that it is ready")
        if not self._told:
            self._told = True
            self.telemetry.event(
                "sandbox.applied", part="scan", held=ready.held, missing=ready.missing, landlock=ready.landlock
            )
        return _Worker(channel, ready.pid)

    def close(self) -> None:
        for one in self._idle:
            one.channel.close()
        self._idle.clear()
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None

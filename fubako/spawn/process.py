"""The spawner: starts what confined processes ask for, tells how it ended, and ends what nobody waits for any more.

It has one thread, speaks to nobody else, and starts only what `permits` lets: a process whose code was taken over can ask for
programs that the administrator named, and for nothing else. It ends with its door, and its programs with it.
"""

import asyncio
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import FileIO
from typing import Any

import msgspec

from fubako.confine.kernel import PR_SET_PDEATHSIG, prctl
from fubako.net import become
from fubako.spawn import requests
from fubako.spawn.commands import Command, command, purpose, seconds
from fubako.spawn.door import DESCRIPTORS
from fubako.spawn.requests import End, Outcome, Purpose, Request

REQUEST_OCTETS_MAX = 4 * 1024 * 1024
AT_ONCE = {Purpose.DELIVERY: 64, Purpose.FILTER: 64, Purpose.CHECK: 128, Purpose.NAMES: 32}
WAITING_MAX = 512  # requests that wait for their turn, of all purposes
_PACKET_MAX = 64
_REASON_MAX = 1000

Permits = Callable[[Request], str]  # why a request is refused; empty: it is not


class Spawner:
    """Serves a door. Runs on a loop that is its own."""

    def __init__(self, door: socket.socket, permits: Permits) -> None:
        self._door, self._permits = door, permits
        self._turns = {purpose: asyncio.Semaphore(count) for purpose, count in AT_ONCE.items()}
        self._running: dict[subprocess.Popen[bytes], asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()

    async def serve(self) -> None:
        """Until nobody holds the other end of the door."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        loop.add_reader(self._door, self._hear)
        await self._closed.wait()
        loop.remove_reader(self._door)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _hear(self) -> None:
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._door, _PACKET_MAX, DESCRIPTORS)
        except OSError:  # no packet, or no descriptors left: who asked hears that its channel has ended
            return
        given = [FileIO(one, "rb") for one in descriptors]
        if not packet:
            self._closed.set()
        elif len(given) != DESCRIPTORS or len(self._tasks) >= sum(AT_ONCE.values()) + WAITING_MAX:
            _close(given)
        else:
            task = asyncio.get_running_loop().create_task(self._answer(given))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, given: Sequence[FileIO]) -> None:
        first, asked, *streams = given
        with socket.socket(fileno=os.dup(first.fileno())) as channel:
            channel.setblocking(False)
            try:
                outcome = await self._outcome(_read(asked), channel, streams)
            except (become.NotAllowed, msgspec.DecodeError) as error:
                outcome = Outcome(end=End.REFUSED, reason=str(error)[:_REASON_MAX])
            except ValueError as error:
                outcome = Outcome(end=End.FAILED, reason=str(error)[:_REASON_MAX])
            except OSError as error:
                outcome = Outcome(end=End.FAILED, code=error.errno or 0, reason=error.strerror or str(error))
            finally:
                _close(given)
            with suppress(OSError):
                channel.send(requests.encode(outcome))

    async def _outcome(self, octets: bytes, channel: socket.socket, streams: Sequence[FileIO]) -> Outcome:
        request = requests.request(octets)
        gone = asyncio.ensure_future(_gone(channel))
        try:
            turn = self._turns[purpose(request)]
            if not await _first(asyncio.ensure_future(turn.acquire()), gone):
                return Outcome(end=End.LATE)
            try:
                refused = self._permits(request)
                if refused:
                    return Outcome(end=End.REFUSED, reason=refused[:_REASON_MAX])
                return await self._run(command(request), seconds(request), streams, gone)
            finally:
                turn.release()
        finally:
            gone.cancel()

    async def _run(
        self, made: Command, limit: float, streams: Sequence[FileIO], gone: "asyncio.Future[None]"
    ) -> Outcome:
        process = subprocess.Popen(  # noqa: S603, ASYNC220  # what an administrator named; it waits for exec alone
            made.words, stdin=streams[0], stdout=streams[1], stderr=streams[2], env=made.environment,
            start_new_session=True, preexec_fn=_end_with_us,
        )  # fmt: skip
        ended = self._running[process] = asyncio.get_running_loop().create_future()
        _close(streams)  # who reads what it writes hears its end
        self._reap()
        try:
            await asyncio.wait([ended, gone], timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return Outcome(end=End.EXITED, code=process.returncode)
            return Outcome(end=End.LATE)
        finally:
            if not ended.done():
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                await asyncio.wait({ended})
            self._running.pop(process, None)

    def _reap(self) -> None:
        for process, ended in list(self._running.items()):
            if process.poll() is not None and not ended.done():
                ended.set_result(None)


def _end_with_us() -> None:
    """In the child: should the spawner die, nobody would end it in time."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _read(asked: FileIO) -> bytes:
    """A request. No pipe, which could keep us waiting. Raises OSError."""
    facts = os.fstat(asked.fileno())
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > REQUEST_OCTETS_MAX:
        raise OSError(0, "the request is too long")
    return os.pread(asked.fileno(), REQUEST_OCTETS_MAX, 0)


async def _gone(channel: socket.socket) -> None:
    """Until whoever asked has closed the channel; it says nothing."""
    with suppress(OSError):
        await asyncio.get_running_loop().sock_recv(channel, 1)


async def _first(wanted: "asyncio.Future[bool]", gone: "asyncio.Future[None]") -> bool:
    """Whether `wanted` came before whoever waits for it went."""
    either: list[asyncio.Future[Any]] = [wanted, gone]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if wanted.done():
        return True
    wanted.cancel()
    return False


def _close(given: Sequence[FileIO]) -> None:
    for one in given:
        one.close()

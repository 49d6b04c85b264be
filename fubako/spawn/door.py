"""`Asking`: how a confined process has programs started. What runs at the other end is `process`.

The door is a socket of whole packets that all serving processes share. A packet carries five descriptors: the channel on which the
outcome comes back, the request, and the program's standard input, output and error. Closing the channel ends the program.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from typing import Any

import msgspec

from fubako.net import become
from fubako.net.program import readable
from fubako.spawn import requests
from fubako.spawn.commands import seconds
from fubako.spawn.launcher import Conversation
from fubako.spawn.requests import End, Outcome, Request

ASK = b"start"
DESCRIPTORS = 5
OUTCOME_OCTETS_MAX = 4096
SAID_OCTETS_MAX = 256 * 1024 * 1024  # of a program's standard output; a filter writes a message
WRONG_OCTETS_MAX = 1024 * 1024  # of its standard error
TURN_SECONDS = 60.0  # how long one may wait until fewer programs run
_CHUNK = 64 * 1024


class Asking:
    """A serving process's end of the door. Forked processes share it."""

    def __init__(self, door: socket.socket) -> None:
        self._door = door
        self._turn = asyncio.Lock()

    async def run(self, request: Request, given: bytes) -> tuple[int, bytes, bytes]:
        """See `Launcher.run`."""
        with ExitStack() as kept:
            channel, theirs = _channel(kept)
            said, their_said = _pipe(kept)
            wrong, their_wrong = _pipe(kept)
            async with asyncio.timeout(seconds(request) + TURN_SECONDS):
                with _input(given) as stdin, readable(requests.encode(request)) as asked:
                    await self._send([theirs.fileno(), asked, stdin, their_said.fileno(), their_wrong.fileno()])
                for one in (theirs, their_said, their_wrong):
                    one.close()
                return await _all(channel, _read(said, SAID_OCTETS_MAX), _read(wrong, WRONG_OCTETS_MAX))

    async def converse(self, request: Request) -> Conversation:
        """See `Launcher.converse`."""
        with ExitStack() as kept:
            channel, theirs = _channel(kept)
            ours, stream = socket.socketpair()
            kept.callback(stream.close)
            kept.callback(ours.close)
            ours.setblocking(False)
            with readable(requests.encode(request)) as asked, FileIO(os.devnull, "wb") as nowhere:
                async with asyncio.timeout(TURN_SECONDS):
                    await self._send([theirs.fileno(), asked, stream.fileno(), stream.fileno(), nowhere.fileno()])
            reader, writer = await asyncio.open_connection(sock=ours.dup())
            return AskedTalker(channel.dup(), reader, writer)

    async def _send(self, descriptors: list[int]) -> None:
        """Raises OSError."""
        async with self._turn:
            while True:
                try:
                    socket.send_fds(self._door, [ASK], descriptors)
                except BlockingIOError:  # the spawner has much to read
                    await self._writable()
                else:
                    return

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        free: asyncio.Future[None] = loop.create_future()
        loop.add_writer(self._door, _settle, free)
        try:
            await free
        finally:
            loop.remove_writer(self._door)


def _settle(free: "asyncio.Future[None]") -> None:
    if not free.done():
        free.set_result(None)


class AskedTalker:
    """A program that answers lines over one socket, its standard input and output. Its channel keeps it alive."""

    def __init__(self, channel: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._channel, self._reader, self._writer = channel, reader, writer
        channel.setblocking(False)

    def say(self, line: bytes) -> None:
        self._writer.write(line)

    async def ask(self, line: bytes) -> bytes:
        self.say(line)
        answer = await self._reader.readline()
        if not answer:
            _code(await _outcome(self._channel))  # says why, where it was refused
        return answer

    async def end(self) -> None:
        self._channel.close()
        self._writer.close()


def _channel(kept: ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept.callback(ours.close)
    kept.callback(theirs.close)
    ours.setblocking(False)
    return ours, theirs


def _pipe(kept: ExitStack) -> tuple[FileIO, FileIO]:
    """(to read, to write)."""
    read, write = os.pipe()
    return kept.enter_context(FileIO(read, "rb")), kept.enter_context(FileIO(write, "wb"))


@contextmanager
def _input(given: bytes) -> Iterator[int]:
    if given:
        with readable(given) as fd:
            yield fd
    else:
        with open(os.devnull, "rb") as nothing:
            yield nothing.fileno()


async def _all(
    channel: socket.socket, said: Coroutine[Any, Any, bytes], wrong: Coroutine[Any, Any, bytes]
) -> tuple[int, bytes, bytes]:
    """What came of it, when all three are known. Raises as `_code` and `_read` do."""
    first, second = asyncio.ensure_future(said), asyncio.ensure_future(wrong)
    try:
        ended, *_ = await asyncio.gather(_outcome(channel), first, second)
        return _code(ended), first.result(), second.result()
    finally:
        first.cancel()
        second.cancel()


async def _outcome(channel: socket.socket) -> Outcome:
    """Raises OSError when the spawner is gone."""
    octets = await asyncio.get_running_loop().sock_recv(channel, OUTCOME_OCTETS_MAX)
    try:
        return requests.outcome(octets)
    except msgspec.DecodeError:
        raise OSError(errno.EPIPE, "the process that starts programs has ended") from None


def _code(outcome: Outcome) -> int:
    """Raises TimeoutError, OSError, become.NotAllowed."""
    match outcome.end:
        case End.EXITED:
            return outcome.code
        case End.LATE:
            raise TimeoutError
        case End.REFUSED:
            raise become.NotAllowed(outcome.reason)
        case End.FAILED:
            raise OSError(outcome.code, outcome.reason)


async def _read(pipe: FileIO, octets_max: int) -> bytes:
    """All that is written. Raises OSError past `octets_max`."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    parts, left = [], octets_max
    try:
        while part := await reader.read(_CHUNK):
            left -= len(part)
            if left < 0:
                raise OSError(errno.EFBIG, "the program writes too much")
            parts.append(part)
    finally:
        transport.close()
    return b"".join(parts)

"""`StdioStream`: standard input and output as a stream, for programs that are started by another one (sendmail -bs, ssh)."""

import asyncio
import os
import shutil
import socket
import stat
import sys
import threading
from contextlib import suppress
from typing import Any, BinaryIO

from fubako.net.stream import BufferedStream


class StdioStream(BufferedStream, asyncio.Protocol):
    """`peer` says who is at the other end, as the caller knows it."""

    def __init__(self, peer: str) -> None:
        super().__init__(peer, local=True)
        self.typed = False  # by a person at a terminal, whose lines end as a terminal's do
        self._reader: asyncio.ReadTransport | None = None
        self._writer: asyncio.WriteTransport | _FileWriter | None = None
        self.gone: asyncio.Future[None] | None = None  # of one socket for both ways

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Both pipes report here; which is which is known to `standard`."""

    def data_received(self, data: bytes) -> None:
        self._arrived(data.replace(b"\n", b"\r\n") if self.typed else data)

    def eof_received(self) -> bool:
        self._ended()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended()
        if self.gone is not None:
            self._lost()
            if not self.gone.done():
                self.gone.set_result(None)

    def pause_writing(self) -> None:
        self._writing_paused()

    def resume_writing(self) -> None:
        self._writing_resumed()

    def _transmit(self, octets: bytes) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(octets)

    def _hold(self, held: bool) -> None:
        if self._reader is not None:
            if held:
                self._reader.pause_reading()
            else:
                self._reader.resume_reading()

    def _shut(self) -> None:
        for transport in (self._reader, self._writer):
            if transport is not None:
                transport.close()


class _Output(asyncio.Protocol):
    """The writing half: its back-pressure is the stream's."""

    def __init__(self, stream: StdioStream) -> None:
        self._stream = stream
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def pause_writing(self) -> None:
        self._stream.pause_writing()

    def resume_writing(self) -> None:
        self._stream.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stream._lost()
        if not self.closed.done():
            self.closed.set_result(None)


def _readable() -> BinaryIO:
    """Standard input; a file goes through a pipe, because a loop cannot wait for files."""
    if not stat.S_ISREG(os.fstat(0).st_mode):
        # libuv never closes the first three descriptors, and aborts when it is told to
        return os.fdopen(os.dup(0), "rb")
    ours, theirs = os.pipe()

    def copy() -> None:
        with os.fdopen(theirs, "wb") as target, suppress(BrokenPipeError):
            shutil.copyfileobj(sys.stdin.buffer, target)

    threading.Thread(target=copy, daemon=True).start()
    return os.fdopen(ours, "rb")


class _FileWriter:
    """Standard output that is a file takes everything at once."""

    def write(self, octets: bytes) -> None:
        sys.stdout.buffer.write(octets)

    def close(self) -> None:
        sys.stdout.buffer.flush()

    def is_closing(self) -> bool:
        return False


def inherited_socket() -> socket.socket | None:
    """Standard input as a network connection, as inetd and systemd (Accept=yes) hand it over; None: it is something else."""
    if not stat.S_ISSOCK(os.fstat(0).st_mode):
        return None
    found = socket.socket(fileno=os.dup(0))
    if found.family not in (socket.AF_INET, socket.AF_INET6):
        found.close()
        return None
    found.setblocking(False)
    return found


def _one_socket() -> socket.socket | None:
    """Standard input and output where they are one socket, as socat and sshd make them. As two pipes they would be read twice:
    who writes to a pipe reads from it, too, to learn that it was closed."""
    inward, outward = os.fstat(0), os.fstat(1)
    if not stat.S_ISSOCK(inward.st_mode) or (inward.st_dev, inward.st_ino) != (outward.st_dev, outward.st_ino):
        return None
    found = socket.socket(fileno=os.dup(0))
    found.setblocking(False)
    return found


async def standard(peer: str) -> tuple[StdioStream, asyncio.Future[None]]:
    """The stream, and a future that is done when all that was written has left. Raises OSError, ValueError for odd files."""
    loop: Any = asyncio.get_running_loop()
    stream = StdioStream(peer)
    stream.typed = os.isatty(0)
    both = _one_socket()
    if both is not None:
        stream.gone = loop.create_future()
        transport, _ = await loop.connect_accepted_socket(lambda: stream, both)
        stream._reader = stream._writer = transport
        return stream, stream.gone
    if stat.S_ISREG(os.fstat(1).st_mode):
        writer, closed = _FileWriter(), loop.create_future()
        closed.set_result(None)
    else:
        writer, output = await loop.connect_write_pipe(lambda: _Output(stream), os.fdopen(os.dup(1), "wb"))
        closed = output.closed
    reader, _ = await loop.connect_read_pipe(lambda: stream, _readable())
    stream._writer, stream._reader = writer, reader
    return stream, closed

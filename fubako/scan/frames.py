"""How questions and answers lie on a channel: two lengths, a struct of `jobs`, and the content of a message behind it.

Invariant: neither side reads more than it has a limit for; a peer that goes past one is not listened to again.
"""

import asyncio
import socket
import struct

_LENGTHS = struct.Struct("<IQ")
JOB_OCTETS_MAX = 1024 * 1024
CONTENT_OCTETS_MAX = 1024 * 1024 * 1024
ANSWER_OCTETS_MAX = 96 * 1024 * 1024


class FrameError(Exception):
    """The other side broke the rules of the channel, or ended in the middle."""


def lengths(head: bytes | bytearray, struct_max: int, content_max: int) -> tuple[int, int]:
    """Raises FrameError."""
    size, content = _LENGTHS.unpack(head)
    if size > struct_max or content > content_max:
        raise FrameError("a frame is too long")
    return size, content


# -- in a worker, which waits


def receive(channel: socket.socket) -> tuple[bytearray, bytearray] | None:
    """A job and its content; None at the end."""
    head = _received(channel, _LENGTHS.size)
    if head is None:
        return None
    size, content = lengths(head, JOB_OCTETS_MAX, CONTENT_OCTETS_MAX)
    first, second = _received(channel, size), _received(channel, content)
    return None if first is None or second is None else (first, second)


def _received(channel: socket.socket, count: int) -> bytearray | None:
    octets = bytearray(count)
    view, done = memoryview(octets), 0
    while done < count:
        got = channel.recv_into(view[done:])
        if not got:
            return None
        done += got
    return octets


def send(channel: socket.socket, octets: bytes) -> None:
    channel.sendall(_LENGTHS.pack(len(octets), 0))
    channel.sendall(octets)


# -- in who asks, on the loop


async def ask(channel: socket.socket, job: bytes, content: bytes) -> bytearray:
    """Raises FrameError, OSError."""
    loop = asyncio.get_running_loop()
    if len(content) < 65536:
        await loop.sock_sendall(channel, _LENGTHS.pack(len(job), len(content)) + job + content)
    else:
        await loop.sock_sendall(channel, _LENGTHS.pack(len(job), len(content)) + job)
        await loop.sock_sendall(channel, content)
    return await answered(channel)


async def answered(channel: socket.socket) -> bytearray:
    """Raises FrameError, OSError."""
    head = await _awaited(channel, _LENGTHS.size)
    size, _ = lengths(head, ANSWER_OCTETS_MAX, 0)
    return await _awaited(channel, size)


async def _awaited(channel: socket.socket, count: int) -> bytearray:
    loop = asyncio.get_running_loop()
    octets = bytearray(count)
    view, done = memoryview(octets), 0
    while done < count:
        got = await loop.sock_recv_into(channel, view[done:])
        if not got:
            raise FrameError("the worker has ended")
        done += got
    return octets

"""`Channel`: an owner's end of the stream to a process that it handed strangers to (a front, a process for TLS).

What the other side says is cut into frames and given to `_heard`; descriptors go that way and none comes. Invariant: whatever
breaks the rules of the channel ends it, and `ended` is told once.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

from fubako.front import frames
from fubako.front.frames import FrameError, Ready

UNSENT_OCTETS_MAX = 64 * 1024 * 1024  # to a process that does not listen


class Channel:
    """`ended(channel, reason)`: it is of no more use. `ready` is the other side's first word."""

    def __init__(self, channel: socket.socket, ended: Callable[[Any, str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[Ready] = self._loop.create_future()
        self._channel, self._over = channel, ended
        self._cutter = frames.Cutter()
        self._unsent: list[bytes] = []
        self._unsent_octets = 0
        self._given: list[int] = []  # descriptors of what is unsent
        self._leaving = self._blocked = self._closed = False
        channel.setblocking(False)
        self._loop.add_reader(channel, self._hear)

    def _heard(self, number: int, payload: memoryview) -> None:
        """One frame. Raises FrameError."""
        raise NotImplementedError

    def _cut(self) -> None:
        """All that was held there is gone."""
        raise NotImplementedError

    def _is_ready(self, said: Ready) -> None:
        """Raises FrameError."""
        if self.ready.done():
            raise FrameError("the process said twice that it is ready")
        self.ready.set_result(said)

    # -- to the other side

    def tell(self, number: int, said: Any, *given: socket.socket) -> None:
        """A struct, and descriptors beside it. All that is said in one turn of the loop leaves together."""
        if self._closed:
            return
        octets = frames.frame(number, said)
        self._unsent.append(octets)
        self._unsent_octets += len(octets)
        for one in given:
            self._given.append(os.dup(one.fileno()))  # it may be closed before it leaves
        if self._unsent_octets > UNSENT_OCTETS_MAX:
            self._break("it does not listen")
        elif len(self._given) >= frames.DESCRIPTORS_MAX - 1 and not self._blocked:
            self._leave()
        elif not self._leaving and not self._blocked:
            self._leaving = True
            self._loop.call_soon(self._leave)

    def flush(self) -> None:
        """Before the end: what was said leaves now, as far as the other side takes it."""
        self._leave()

    def _leave(self) -> None:
        self._leaving = False
        if self._closed or not self._unsent:
            return
        octets = b"".join(self._unsent)
        try:
            sent = socket.send_fds(self._channel, [octets], self._given) if self._given else self._channel.send(octets)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._break(error.strerror or str(error))
            return
        if sent:
            self._drop_given()
        self._unsent = [octets[sent:]] if sent < len(octets) else []
        self._unsent_octets = len(octets) - sent
        if bool(self._unsent) is not self._blocked:
            self._blocked = bool(self._unsent)
            if self._blocked:
                self._loop.add_writer(self._channel, self._leave)
            else:
                self._loop.remove_writer(self._channel)

    def _drop_given(self) -> None:
        for file in self._given:
            os.close(file)
        self._given.clear()

    # -- from the other side

    def _hear(self) -> None:
        try:
            octets = self._channel.recv(frames.READ_OCTETS)
            if not octets:
                self._break("it has ended")
                return
            for number, payload in self._cutter.feed(octets):
                self._heard(number, payload)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, FrameError) as error:
            self._break(str(error))

    def _break(self, reason: str) -> None:
        if not self._closed:
            self.shut()
            self._over(self, reason)

    def shut(self) -> None:
        """The other side ends, and so does all that it holds."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._channel)
        self._loop.remove_writer(self._channel)
        self._channel.close()
        self._drop_given()
        if not self.ready.done():
            self.ready.set_exception(FrameError("it has ended"))
            self.ready.exception()  # whether anybody waits or not
        self._cut()

"""`FrontChannel`: a front process as its owner hears it, and `FrontStream`: one connection whose octets are read there.

The owner keeps a descriptor of each connection, so that what a peer is called, and whether it may come in, is known from the kernel
and not from the front.
"""

import socket
from collections import deque
from collections.abc import Callable
from itertools import count

from fubako.front import frames
from fubako.front.frames import Ended, FrameError, Ready, ToFront, ToOwner
from fubako.front.judge import judge
from fubako.net.channel import Channel
from fubako.net.interface import StreamClosed, TlsError
from fubako.net.stream import BufferedStream
from fubako.protocol.sasl.mechanism import SecurityLayer
from fubako.protocol.smtp import SmtpLimits
from fubako.protocol.smtp_events import Content


class FrontStream(BufferedStream):
    """One connection. What the peer said is heard as events; what is written leaves as octets."""

    def __init__(self, channel: "FrontChannel", number: int, connection: socket.socket, peer: str) -> None:
        super().__init__(peer)
        self._channel, self._number = channel, number
        self._connection: socket.socket | None = connection
        self._heard: deque[ToOwner] = deque()
        self._open = frames.WINDOW_OCTETS  # so much content may still come
        self._taken = 0
        self._waiting = 0  # events that are no content
        self.limits: SmtpLimits = channel.settings.smtp

    def hear(self, said: ToOwner) -> None:
        """Raises FrameError."""
        if isinstance(said, Content):
            self._open -= len(said.octets)
            if self._open < 0:
                raise FrameError("more content than was asked for")
        elif not isinstance(said, Ended | frames.Released):
            if isinstance(said, Ready):
                raise FrameError("a word of the process in a conversation")
            judge(said, self.limits)
            self._waiting += 1
        if len(self._heard) >= frames.PIECES_MAX or self._waiting > frames.EVENTS_MAX:
            raise FrameError("more was said than anybody waits for")
        self._heard.append(said)
        self._silent = False
        self._wake()

    async def said(self) -> ToOwner:
        """The next thing. Raises StreamTimeout, StreamClosed."""
        while not self._heard:
            if self._at_end:
                return Ended(frames.Ending.GONE)
            await self._arrival()
        said = self._heard.popleft()
        if isinstance(said, Content):
            self._take(len(said.octets))
        elif not isinstance(said, Ended | frames.Released):
            self._waiting -= 1
        return said

    def _take(self, octets: int) -> None:
        self._taken += octets
        if self._taken >= frames.WINDOW_OCTETS // 2:
            self._open += self._taken
            self.tell(frames.Taken(self._taken))
            self._taken = 0

    def tell(self, said: ToFront, *given: socket.socket) -> None:
        if not self._gone:
            self._channel.tell(self._number, said, *given)

    def cut(self) -> None:
        """The front is gone."""
        self._lost()

    @property
    def connection(self) -> socket.socket:
        """The connection itself, for whoever does TLS on it. Raises StreamClosed."""
        if self._connection is None:
            raise StreamClosed("the connection is closed")
        return self._connection

    # -- BufferedStream

    def begin_layer(self, layer: SecurityLayer) -> None:
        raise TlsError("octets are read elsewhere, where no login is known")

    def _transmit(self, octets: bytes) -> None:
        self.tell(frames.Words(octets))

    def _shut(self) -> None:
        self._channel.close(self._number)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class FrontChannel(Channel):
    """All connections of one front. `settings` are for those to come."""

    def __init__(
        self, channel: socket.socket, settings: frames.Settings, ended: Callable[["FrontChannel", str], None]
    ) -> None:
        super().__init__(channel, ended)
        self.settings = settings
        self._streams: dict[int, FrontStream] = {}
        self._numbers = count(1)
        self.tell(frames.ITSELF, settings)

    def follow(self, settings: frames.Settings) -> None:
        if settings != self.settings:
            self.settings = settings
            self.tell(frames.ITSELF, settings)

    def open(self, connection: socket.socket, peer: str, plaintext: socket.socket | None = None) -> FrontStream:
        """A connection that was accepted here. `plaintext`: where TLS ends elsewhere, what came out of it."""
        number = next(self._numbers)
        stream = self._streams[number] = FrontStream(self, number, connection, peer)
        self.tell(number, frames.Open(), plaintext or connection)
        return stream

    def close(self, number: int) -> None:
        if self._streams.pop(number, None) is not None:
            self.tell(number, frames.Close())

    def _heard(self, number: int, payload: memoryview) -> None:
        said = frames.to_owner(payload)
        if number == frames.ITSELF:
            if not isinstance(said, Ready):
                raise FrameError("the process said what no process says")
            self._is_ready(said)
            return
        stream = self._streams.get(number)
        if stream is not None:  # else it was closed here meanwhile
            stream.hear(said)

    def _cut(self) -> None:
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.cut()

"""`Line`: an engine on a stream. The only read loop and the only STARTTLS in the program."""

from typing import Any, Generic

from fubako.net.interface import Pump, Stream, StreamClosed, TlsError
from fubako.protocol.engine import E_co, Engine, ProtocolError


class Line(Generic[E_co]):
    """One conversation. Replies to pipelined commands leave in one write, when no more events are waiting."""

    __slots__ = ("engine", "stream")

    def __init__(self, engine: Engine[E_co], stream: Stream) -> None:
        self.engine = engine
        self.stream = stream

    async def event(self) -> E_co:
        """The next event. Raises ProtocolError, StreamClosed, StreamTimeout, TlsError."""
        engine = self.engine
        while (event := engine.next_event()) is None:
            if self._speak():
                await self.stream.drain()
            octets = await self.stream.read()
            if not octets:
                raise StreamClosed("the peer ended the connection")
            engine.receive(octets)
        return event

    async def events(self, count: int) -> list[E_co]:
        """The next ones: a client's way to hear what was said to a group of commands."""
        engine, found = self.engine, list[E_co]()
        while len(found) < count:
            event = engine.next_event()
            found.append(event if event is not None else await self.event())
        return found

    async def event_or_nudge(self) -> E_co | None:
        """Like `event`, but None when the stream was nudged."""
        engine = self.engine
        while (event := engine.next_event()) is None:
            if self._speak():
                await self.stream.drain()
            octets = await self.stream.read_or_nudge()
            if octets is None:
                return None
            if not octets:
                raise StreamClosed("the peer ended the connection")
            engine.receive(octets)
        return event

    def _speak(self) -> bool:
        """Send what the engine has to say; whether the peer should be waited for."""
        octets = self.engine.output()
        if not octets:
            return False
        self.stream.write(octets)
        return self.stream.congested

    async def flush(self) -> None:
        if self._speak():
            await self.stream.drain()

    async def start_tls(self, pump: Pump) -> None:
        """The reply to STARTTLS has been said to the engine: send it, shake hands, forget everything before.

        Bytes that wait behind the command, in the engine or below it, were put there by somebody on the way: they end
        the connection before the handshake (CVE-2011-0411).
        """
        if self.engine.pending or self.stream.pending:
            self.engine.output()
            raise ProtocolError("bytes were sent behind STARTTLS")
        self.stream.write(self.engine.output())
        await self.stream.start_tls(pump)
        self.engine.tls_started()

    def close(self) -> None:
        """Say what is still to be said, and end."""
        try:
            octets = self.engine.output()
            if octets:
                self.stream.write(octets)
        except TlsError:
            pass
        self.stream.close()


AnyLine = Line[Any]

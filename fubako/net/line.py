"""`Line`: an engine on a stream. The only read loop and the only STARTTLS in the program.

A line with a `Pace` is a server's: its peer gets a turn of the loop at a time, and its deadlines are no octet's to move.
"""

import asyncio
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, Generic

from fubako.net.interface import Pump, Stream, StreamClosed, TlsError
from fubako.net.pace import EVENTS_A_TURN, PIECES_A_TURN, SEND_OCTETS, TURN_SECONDS, Pace
from fubako.owed import Owed
from fubako.protocol.engine import E_co, Engine, ProtocolError, Unfinished


class LineEnding(Exception):
    """Nothing more is asked of the peer: the conversation is to end here."""


class Line(Generic[E_co]):
    """One conversation. Replies to pipelined commands leave in one write, when no more events are
    waiting or a turn is over.

    `due`, in the loop's time, is when the conversation must have come to where its session wants
    it: every wait ends then, whatever is said meanwhile.

    `busy`: the session works on the last event, and nothing is waited for but that. `ending`: there
    will be no other event. `owed`: what the session must not be kept from saying.
    """

    __slots__ = (
        "_events",
        "_octets",
        "_pace",
        "_turn_ends",
        "_waited",
        "busy",
        "due",
        "ending",
        "engine",
        "owed",
        "stream",
    )

    def __init__(self, engine: Engine[E_co], stream: Stream, pace: Pace | None = None) -> None:
        self.engine = engine
        self.stream = stream
        self.due = inf
        self.busy = self.ending = False
        self.owed = Owed()
        self._pace = pace
        self._events = 0  # in this turn
        self._turn_ends = 0.0
        self._waited = 0.0  # seconds, for the rest of what the peer has begun
        self._octets = 0  # that came meanwhile
        if pace is not None:
            stream.taking_seconds = pace.taking_seconds

    async def event(self) -> E_co:
        """The next event. Raises LineEnding, ProtocolError, StreamClosed, StreamTimeout, TlsError."""
        event = await self._next(nudged=False)
        assert event is not None  # nobody asked to be nudged
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
        return await self._next(nudged=True)

    async def _next(self, *, nudged: bool) -> E_co | None:
        self.busy = self.owed.begun = False  # the answers are said, or will be before anything is waited for
        if self.ending:
            raise LineEnding
        event = await self._next_event(nudged=nudged)
        self.busy = True
        return event

    async def _next_event(self, *, nudged: bool) -> E_co | None:
        """What another kind of line hears otherwise; `_next` is for all of them."""
        engine = self.engine
        event = engine.next_event()
        if event is not None:
            await self._take_turn()
            return event
        while event is None:
            if self._speak():
                await self.stream.drain()
            octets = await self._heard(nudged=nudged)
            if octets is None:
                return None
            if not octets:
                raise StreamClosed("the peer ended the connection")
            engine.receive(octets)
            event = engine.next_event()
        self._arrived()
        return event

    def _arrived(self) -> None:
        """What the peer had begun is there; content only when all of it is."""
        if self._pace is not None and self.engine.unfinished is not Unfinished.CONTENT:
            self._waited, self._octets = 0.0, 0

    async def _heard(self, *, nudged: bool) -> bytes | None:
        """What comes next, within what is left of the time for it."""
        stream, pace = self.stream, self._pace
        self._events = 0  # to wait is to give others their turn
        unfinished = self.engine.unfinished if pace is not None else Unfinished.NOTHING
        if pace is None or unfinished is Unfinished.NOTHING:
            stream.due = self.due
            return await (stream.read_or_nudge() if nudged else stream.read())
        loop = asyncio.get_running_loop()
        began = loop.time()
        stream.due = min(self.due, began + pace.allowed(unfinished, self._octets) - self._waited)
        octets = await (stream.read_or_nudge() if nudged else stream.read())
        self._waited += loop.time() - began
        self._octets += len(octets or b"")
        return octets

    async def _take_turn(self) -> None:
        """A peer that said much at once does not keep others waiting for all of it."""
        if self._pace is None:
            return
        self._arrived()
        now = asyncio.get_running_loop().time()
        if not self._events:
            self._turn_ends = now + TURN_SECONDS
        self._events += 1
        if self._events >= EVENTS_A_TURN or now >= self._turn_ends:
            await self.give_way()

    async def give_way(self) -> None:
        """Send what is to be said, and let everybody else have a turn. Raises StreamClosed, StreamTimeout."""
        await self.flush()
        self._events = 0
        await asyncio.sleep(0)

    async def turn(self) -> None:
        """Between two steps of long work: others have their turns once ours is over."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._turn_ends:
            await self.give_way()
            self._turn_ends = loop.time() + TURN_SECONDS

    async def send(self, octets: bytes) -> None:
        """Behind what the engine has said: a part of a long reply, of about SEND_OCTETS. The peer has to take it."""
        said = self.engine.output()
        self.stream.write(said + octets if said else octets)
        if self.stream.congested:
            await self.stream.drain()
        await self._take_turn()

    async def send_all(self, pieces: Iterable[bytes]) -> None:
        """A long reply, made while it is taken: a part of it leaves at a time, and others have their
        turns between. A piece may be empty, where looking was all the work."""
        parts: list[bytes] = []
        octets, loop = 0, asyncio.get_running_loop()
        ends = loop.time() + TURN_SECONDS
        for count, piece in enumerate(pieces, 1):
            parts.append(piece)
            octets += len(piece)
            if octets < SEND_OCTETS and count % PIECES_A_TURN and loop.time() < ends:
                continue
            self.stream.write(self.engine.output() + b"".join(parts))
            parts, octets = [], 0
            await self.give_way()
            ends = loop.time() + TURN_SECONDS
        self.stream.write(self.engine.output() + b"".join(parts))
        await self.flush()

    def _speak(self) -> bool:
        """Send what the engine has to say; whether the peer should be waited for."""
        octets = self.engine.output()
        if not octets:
            return False
        self.stream.write(octets)
        return self.stream.congested

    async def flush(self) -> None:
        if self._speak() or self.stream.congested:
            await self.stream.drain()

    async def start_tls(self, make: Callable[[], Pump]) -> None:
        """The reply to STARTTLS has been said to the engine: send it, shake hands, forget everything before.

        Bytes that wait behind the command, in the engine or below it, were put there by somebody on the way: they end
        the connection before the handshake (CVE-2011-0411).
        """
        if self.engine.pending or self.stream.pending:
            self.engine.output()
            raise ProtocolError("bytes were sent behind STARTTLS")
        self.stream.write(self.engine.output())
        self.stream.due = self.due
        if self.stream.secure is not None:
            await self.stream.start_tls_elsewhere()
        else:
            await self.stream.start_tls(make())
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

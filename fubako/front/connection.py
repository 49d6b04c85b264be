"""`Conversation`: one peer's connection in the front: octets through the engine, events to the owner, replies back.

Invariant: one event at a time waits for its reply; while it does, no more than what had already come is kept of the peer's octets.
"""

import os
import select
from collections.abc import Callable
from math import inf

from fubako.front.frames import (
    WINDOW_OCTETS,
    Close,
    Ended,
    Ending,
    Foresee,
    Lenient,
    Released,
    Reply,
    Say,
    Settings,
    Taken,
    ToFront,
    ToOwner,
    Words,
)
from fubako.message.status import Status
from fubako.protocol.engine import ProtocolError, Unfinished
from fubako.protocol.smtp_events import Content, Event, Quit, StartTls
from fubako.protocol.smtp_order import verb_of
from fubako.protocol.smtp_server import SmtpServer

BLOCK_OCTETS = 64 * 1024  # taken from a peer at a time
IN, OUT = select.EPOLLIN, select.EPOLLOUT
Tell = Callable[[ToOwner], None]


class Conversation:
    """`file`: its descriptor, -1 when there is none."""

    __slots__ = (
        "_awaits", "_began", "_closing", "_ended", "_engine", "_foreseen", "_octets", "_poll", "_said_by", "_say", "_say_later",
        "_secures", "_settings", "_taken_by", "_unsent", "_wanted", "_window", "file",
    )  # fmt: skip

    def __init__(self, file: int, settings: Settings, poll: select.epoll, say: Tell, say_later: Tell) -> None:
        """`say_later`: what the owner need not hear before the next thing that is said."""
        self._settings, self._poll, self._say, self._say_later = settings, poll, say, say_later
        self._foreseen: dict[str, Status] = {}
        self._engine = SmtpServer(settings.smtp)
        self._window = WINDOW_OCTETS
        self.file = -1
        self._awaits = True  # the greeting
        self._secures = self._closing = self._ended = False
        self._begin(file)

    def _begin(self, file: int) -> None:
        self.file, self._wanted = file, IN
        self._unsent = b""
        self._said_by = self._taken_by = inf  # what the peer has begun; what was said to it
        self._began, self._octets = 0.0, 0
        self._poll.register(file, IN)

    @property
    def over(self) -> bool:
        """Whether all is said and the descriptor gone."""
        return self._closing and self.file < 0

    def is_late(self, now: float) -> bool:
        return now >= self._said_by or now >= self._taken_by

    # -- the peer

    def happened(self, mask: int, now: float) -> None:
        """What the kernel told of the descriptor."""
        if mask & OUT:
            self._send(now)
        if mask & ~OUT and self.file >= 0:
            if self._ended:
                self.let_go()
            elif self._awaits and not mask & IN:  # it is gone for good: nobody will take the reply
                self._end(Ended(Ending.GONE))
            elif self._awaits:
                self._want(self._wanted & ~IN)
            else:
                self._read(now)

    def _read(self, now: float) -> None:
        try:
            octets = os.read(self.file, BLOCK_OCTETS)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:
            self._end(Ended(Ending.GONE))
            return
        self._octets += len(octets)
        self._engine.receive(octets)
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        """Say what the peer said, as far as it may be said now."""
        engine = self._engine
        try:
            while not self._awaits and not self._ended:
                if self._window <= 0:
                    self._said_by = inf  # it is the owner who is waited for
                    self._want(self._wanted & ~IN)
                    return
                event = engine.next_event()
                if event is None:
                    self._await_peer(now)
                    return
                if isinstance(event, Content):
                    self._window -= len(event.octets)
                elif (status := self._foreseen.pop(verb_of(event), None)) is not None:
                    self._answer(event, status, now)
                    continue
                else:
                    self._awaits, self._secures = True, isinstance(event, StartTls)
                    self._said_by, self._began, self._octets = inf, 0.0, 0
                self._say(event)
        except ProtocolError as error:
            self._end(Ended(Ending.BROKEN, str(error), error.farewell))

    def _answer(self, event: Event, status: Status, now: float) -> None:
        """The owner said before what is to be said."""
        self._engine.reply(status)
        if isinstance(event, Quit):
            self._say(event)
            self._close(now)
        else:
            self._say_later(event)

    def _await_peer(self, now: float) -> None:
        """More octets are needed: replies leave, and the rest of what the peer has begun has its time (see net.pace)."""
        self._send(now)
        unfinished = self._engine.unfinished
        if unfinished is Unfinished.NOTHING:
            self._said_by, self._began, self._octets = inf, 0.0, 0
        else:
            content = unfinished is Unfinished.CONTENT
            self._began = self._began or now
            given = self._settings.content_seconds if content else self._settings.command_seconds
            self._said_by = self._began + given + self._octets / self._settings.rate
        self._want(OUT if self._unsent else IN)

    def be_late(self) -> None:
        if self._unsent:
            self.let_go()  # who takes nothing is told nothing
        self._taken_by = inf
        self._end(Ended(Ending.LATE))

    def _end(self, said: Ended) -> None:
        """Nothing is read any more; the owner says the last words, and closes."""
        self._ended, self._said_by = True, inf
        self._want(0)
        if said.ending is Ending.GONE:
            self.let_go()
        self._say(said)

    def _want(self, wanted: int) -> None:
        if wanted != self._wanted and self.file >= 0:
            self._wanted = wanted
            self._poll.modify(self.file, wanted)

    def _send(self, now: float) -> None:
        """As much as the peer's side takes; the rest has `taking_seconds`, in which nothing more is read."""
        octets = self._unsent + self._engine.output()
        if not octets or self.file < 0:
            return
        try:
            octets = octets[os.write(self.file, octets) :]
        except BlockingIOError:
            pass
        except OSError:
            self._end(Ended(Ending.GONE))
            return
        self._unsent = octets
        if octets and not self._wanted & OUT:
            self._taken_by = now + self._settings.taking_seconds
            self._want(OUT)
        elif not octets and self._wanted & OUT:
            self._taken_by = inf
            self._want(0 if self._ended else IN)
        if not octets and self._closing:
            self.let_go()

    # -- the owner

    def told(self, said: ToFront, now: float) -> None:
        match said:
            case Reply(status):
                self._engine.reply(status)
                if not (self._secures and status.ok):  # behind that comes Release, and nothing of the peer's
                    self._awaits = False
                    self._go_on(now)
            case Say(status):
                self._engine.say(status)
                self._send(now)
            case Words(octets):
                self._unsent += self._engine.output() + octets
                self._send(now)
            case Foresee(replies):
                self._foreseen, self._awaits = replies, False
                self._go_on(now)
            case Lenient(on):
                self._engine.lenient = on
            case Taken(octets):
                self._window += octets
                self._go_on(now)
            case Close():
                self._close(now)
            case _:
                self._release(now)

    def _close(self, now: float) -> None:
        self._closing = self._ended = True
        self._said_by = inf
        self._want(self._wanted & ~IN)
        self._send(now)
        if not self._unsent:
            self.let_go()

    def _release(self, now: float) -> None:
        """TLS begins. What waits behind STARTTLS was put there by somebody on the way (CVE-2011-0411)."""
        if self._engine.pending:
            self._engine.output()
            self._end(Ended(Ending.BROKEN, "bytes were sent behind STARTTLS"))
            return
        self._send(now)
        if self._unsent:
            self._end(Ended(Ending.GONE, "the peer does not take the reply to STARTTLS"))
            return
        self.let_go()
        self._say(Released())

    def resume(self, file: int) -> None:
        self._engine.tls_started()
        self._foreseen = {}
        self._awaits = False
        self._begin(file)

    def let_go(self) -> None:
        if self.file >= 0:
            self._poll.unregister(self.file)
            os.close(self.file)
            self.file = -1

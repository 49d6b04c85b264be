"""`FrontedLine`: a `Line` whose engine runs in a front: events come, replies go, and their order is judged here once more."""

import asyncio
from collections.abc import Callable

from fubako.front import frames
from fubako.front.frames import Ended, Ending
from fubako.message.status import Status
from fubako.net.front import FrontStream
from fubako.net.interface import Pump, Stream, StreamClosed, StreamTimeout, TlsError
from fubako.net.line import Line
from fubako.net.pace import Pace
from fubako.protocol.engine import ProtocolError, Unfinished
from fubako.protocol.smtp import SmtpLimits
from fubako.protocol.smtp_events import Event
from fubako.protocol.smtp_order import Order, OutOfOrder, verb_of
from fubako.protocol.smtp_server import SmtpServer
from fubako.telemetry import visible

_OURS = Status(421, "4.3.0", "an error on our side, try again later")


class FrontedSmtp:
    """What a session asks of `SmtpServer`, when that runs elsewhere. Replies leave at once."""

    pending = False
    unfinished = Unfinished.NOTHING

    def __init__(self, stream: FrontStream, limits: SmtpLimits) -> None:
        self._stream = stream
        self.order = Order(limits)
        self._foreseen: dict[str, Status] = {}
        self._answered: Status | None = None  # what the front has said to the event at hand

    def foresee(self, replies: dict[str, Status]) -> None:
        """What will be said to the next command of each of these verbs. It must not depend on anything that may come before."""
        self._foreseen = dict(replies)
        self._stream.tell(frames.Foresee(replies))

    def admit(self, event: Event) -> None:
        """Raises OutOfOrder."""
        self.order.admit(event)
        self._answered = self._foreseen.pop(verb_of(event), None)

    @property
    def lenient(self) -> bool:
        return self.order.lenient

    @lenient.setter
    def lenient(self, on: bool) -> None:
        if on is not self.order.lenient:
            self.order.lenient = on
            self._stream.tell(frames.Lenient(on))

    def greet(self, text: str) -> None:
        self.say(Status(220, "", text))

    def say(self, status: Status) -> None:
        self._stream.tell(frames.Say(status))

    def reply(self, status: Status) -> None:
        self.order.reply(status)
        if self._answered is None:
            self._stream.tell(frames.Reply(status))
        elif self._answered.code != status.code:
            raise AssertionError(f"{status} was to be said, and {self._answered} was foreseen")
        self._answered = None

    # -- of an engine

    def receive(self, octets: bytes) -> None:
        """Octets are read elsewhere."""

    def next_event(self) -> Event | None:
        return None

    def output(self) -> bytes:
        return b""

    def tls_started(self) -> None:
        self._foreseen = {}
        self.order.tls_started()


class FrontedLine(Line[Event]):
    """One conversation of SMTP."""

    __slots__ = ("_fronted", "smtp")

    def __init__(self, stream: FrontStream, limits: SmtpLimits) -> None:
        self._fronted, self.smtp = stream, FrontedSmtp(stream, limits)
        super().__init__(self.smtp, stream)

    async def _next_event(self, *, nudged: bool) -> Event:
        """Raises ProtocolError, StreamClosed, StreamTimeout. Nobody nudges a conversation of SMTP."""
        self._fronted.due = self.due
        said = await self._fronted.said()
        match said:
            case Ended():
                raise _failure(said)
            case frames.Released() | frames.Ready():
                raise _distrust("it let go of what nobody asked for")
        try:
            self.smtp.admit(said)
        except OutOfOrder as error:
            raise _distrust(str(error)) from None
        return said

    async def start_tls(self, make: Callable[[], Pump]) -> None:
        """In the process that has the keys; the front goes on with what that decrypts. What waits behind STARTTLS ends the
        connection there (CVE-2011-0411)."""
        stream = self._fronted
        stream.due = self.due
        stream.tell(frames.Release())
        said = await stream.said()
        if isinstance(said, Ended):
            raise _failure(said)
        if not isinstance(said, frames.Released):
            raise _distrust("it goes on where TLS begins")
        if stream.secure is None:
            raise TlsError("no process does TLS here")
        try:
            async with asyncio.timeout(min(stream.idle_seconds, self.due - asyncio.get_running_loop().time())):
                facts, plaintext = await stream.secure(stream.connection)
        except TimeoutError:
            raise StreamTimeout("the handshake took too long") from None
        with plaintext:
            stream.tell(frames.Resume(), plaintext)
        stream.tls = facts
        self.smtp.tls_started()


def _distrust(reason: str) -> ProtocolError:
    return ProtocolError(f"the front said what it may not: {reason}", _OURS.wire())


def _failure(said: Ended) -> Exception:
    match said.ending:
        case Ending.BROKEN:
            return ProtocolError(visible(said.reason), said.farewell)
        case Ending.LATE:
            return StreamTimeout("the peer did not say in time what was waited for")
        case Ending.GONE:
            return StreamClosed("the peer ended the connection")
        case Ending.BUG:
            return RuntimeError(f"the front failed: {visible(said.reason)}")


SmtpSpeech = SmtpServer | FrontedSmtp


def smtp_line(stream: Stream, limits: SmtpLimits, pace: Pace, *, lmtp: bool = False) -> tuple[SmtpSpeech, Line[Event]]:
    """The engine on a stream, wherever that runs."""
    if isinstance(stream, FrontStream):
        fronted = FrontedLine(stream, limits)
        return fronted.smtp, fronted
    engine = SmtpServer(limits, lmtp=lmtp)
    return engine, Line(engine, stream, pace)

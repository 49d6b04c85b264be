"""The order of SMTP: the table `ALLOWED`, `after` (what a reply changes), and `Order`, which judges events of another process.

Invariant: `SmtpServer`, which reads the octets, and `Order`, which believes nobody who did, follow the same table.
"""

from enum import Enum, auto

from fubako.message.octets import Inspector
from fubako.message.status import Status
from fubako.protocol.smtp import SmtpLimits
from fubako.protocol.smtp_events import (
    Auth,
    AuthResponse,
    ChunkEnd,
    Content,
    ContentEnd,
    Data,
    Event,
    Hello,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Reset,
    StartTls,
    XClient,
)


class State(Enum):
    """What has been said so far."""

    CONNECTED = auto()  # no HELO yet
    READY = auto()
    MAIL = auto()  # a sender
    RCPT = auto()  # and at least one recipient accepted
    CHUNKS = auto()  # inside a BDAT sequence


_ANY = tuple(State)
_GREETED = (State.READY, State.MAIL, State.RCPT)
ALLOWED: dict[str, tuple[State, ...]] = {
    "HELO": _ANY,
    "EHLO": _ANY,
    "LHLO": _ANY,
    "STARTTLS": (State.READY, State.MAIL, State.RCPT),
    "AUTH": (State.READY,),
    "MAIL": (State.READY,),
    "RCPT": (State.MAIL, State.RCPT),
    "DATA": (State.RCPT,),
    "BDAT": (State.MAIL, State.RCPT, State.CHUNKS),
    "XCLIENT": (State.CONNECTED, State.READY),
    "RSET": _ANY,
    "NOOP": _ANY,
    "VRFY": _GREETED,
    "EXPN": _GREETED,
    "HELP": _ANY,
    "QUIT": _ANY,
}


def after(state: State, event: Event | None, status: Status) -> State:
    """The state once `event` was answered so. None: nobody had asked."""
    match event:
        case Mail() if status.ok:
            return State.MAIL
        case Rcpt() if status.ok:
            return State.RCPT
        case ContentEnd():
            return State.READY
        case Hello() if status.ok:
            return State.READY
        case Reset():
            return State.CONNECTED if state is State.CONNECTED else State.READY
        case XClient() if status.ok:
            return State.CONNECTED
        case _:
            return state


class OutOfOrder(Exception):
    """What was said may not come here: who said it is no `SmtpServer`."""


_VERBS: dict[type[Event], str] = {
    Hello: "EHLO", StartTls: "STARTTLS", Auth: "AUTH", Mail: "MAIL", Rcpt: "RCPT", Data: "DATA", XClient: "XCLIENT",
    Reset: "RSET", Quit: "QUIT",
}  # fmt: skip


class Order:
    """One connection's events, as they may follow each other. `admit` raises OutOfOrder."""

    def __init__(self, limits: SmtpLimits) -> None:
        self.limits = limits
        self.lenient = False
        self.state = State.CONNECTED
        self._waiting: Event | None = None  # what is to be answered
        self._in_data = self._in_chunk = self._in_auth = False
        self._begin_content()

    def _begin_content(self) -> None:
        self._received = 0
        self._inspector = Inspector(long_lines=self.limits.long_lines)

    def admit(self, event: Event) -> None:
        if self._waiting is not None:
            raise OutOfOrder("something was said before the last reply")
        if isinstance(event, Content | ChunkEnd | ContentEnd):
            self._admit_content(event)
        elif isinstance(event, AuthResponse) is not self._in_auth or self._in_data or self._in_chunk:
            raise OutOfOrder("a command in the midst of something else")
        elif not self._in_auth and self.state not in ALLOWED[verb_of(event)]:
            raise OutOfOrder(f"{verb_of(event)} in the state {self.state.name}")
        if not isinstance(event, Content):
            self._waiting = event

    def _admit_content(self, event: Content | ChunkEnd | ContentEnd) -> None:
        if self._in_auth or self.state not in ALLOWED["BDAT"][1:] or (self._in_data and isinstance(event, ChunkEnd)):
            raise OutOfOrder("content that nobody announced")
        if not self._in_data:
            self.state, self._in_chunk = State.CHUNKS, isinstance(event, Content)
        if isinstance(event, Content):
            self._received += len(event.octets)
            if self._received > self.limits.message:
                raise OutOfOrder("more content than the limit")
            self._inspector.feed(event.octets)
        elif isinstance(event, ContentEnd) and self._inspector.end() is not None and event.irregular is None:
            raise OutOfOrder("irregular content that is called regular")

    def reply(self, status: Status) -> None:
        event, self._waiting = self._waiting, None
        self.state = after(self.state, event, status)
        self._in_data = isinstance(event, Data) and status.code == 354
        self._in_auth = isinstance(event, Auth | AuthResponse) and status.code == 334
        if isinstance(event, ContentEnd | Reset | Hello | XClient):
            self._begin_content()

    def tls_started(self) -> None:
        """All that was said in the clear is forgotten (RFC 3207 §4.2)."""
        self.__init__(self.limits)  # type: ignore[misc]  # all begins anew


def verb_of(event: Event) -> str:
    """Under which `ALLOWED` has it; empty for what is no command."""
    return event.verb if isinstance(event, Noop | Hello) else _VERBS.get(type(event), "")

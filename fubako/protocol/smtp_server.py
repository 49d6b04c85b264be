"""`SmtpServer`: the server's side of SMTP, submission and LMTP.

Owns syntax, order, line limits and dot-stuffing; says itself what is refused for these. Everything that needs a decision
is an event (`smtp_events`), and the session answers it with `reply`. The order of commands is the table `ALLOWED` of `smtp_order`.
"""

from collections import deque

from fubako.message.octets import Inspector, Irregularity
from fubako.message.status import Status
from fubako.protocol.engine import ProtocolError, Unfinished
from fubako.protocol.lines import LineEngine, LineTooLong
from fubako.protocol.others import refuse_http, refuse_tls
from fubako.protocol.smtp import BAD_ORDER, BARE_LINE_END, SYNTAX, SmtpLimits, SyntaxFault, xtext_decode
from fubako.protocol.smtp_arguments import parse_mail, parse_rcpt
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
from fubako.protocol.smtp_order import ALLOWED, State, after

_EMPTY = (Reset, Noop, Hello)
_PLAIN: dict[str, Event] = {"STARTTLS": StartTls(), "DATA": Data(), "RSET": Reset(), "QUIT": Quit()}
_HELLOS = ("HELO", "EHLO", "LHLO")
_CONTENT_BLOCK = 1 << 20
CHUNK_OCTETS_LEAST = 512  # a BDAT of fewer that is not the last one counts as an empty command


_OTHERS = Status(554, "5.5.1", "this is SMTP, and nothing else is spoken here").wire()


class SmtpServer(LineEngine):
    """One connection. `lmtp` changes the greeting verb and the number of replies behind the content (RFC 2033 §4).

    `lenient`: the peer is known (a user, a device of the house), so that a command may end in LF alone and
    the content may be mended by who reads the events. The end of DATA stays CRLF.CRLF; it is LF.LF only where
    the line DATA itself ended so: no text that somebody else wrote decides where a message ends.
    """

    def __init__(self, limits: SmtpLimits, *, lmtp: bool = False) -> None:
        self.limits = limits
        self.lmtp = lmtp
        self.state = State.CONNECTED
        super().__init__()
        self._waiting: Event | None = None  # an event whose reply is due
        self._mode = "command"  # command, auth, data, chunk, skip
        self._chunk_left = 0
        self._chunk_last = False
        self._received = 0
        self._held = b""  # the end of a block of DATA that could be the start of its terminator
        self._first = False
        self.lenient = False
        self._lf_alone = False  # how the last command ended
        self._by_lf = False  # and DATA
        self._inspector = Inspector(long_lines=limits.long_lines)
        self._ready: deque[Event] = deque()
        self._errors = 0
        self._empty = 0

    # -- the engine's interface

    def tls_started(self) -> None:
        super().tls_started()
        self._ready.clear()
        self.state, self._mode, self._waiting = State.CONNECTED, "command", None

    @property
    def unfinished(self) -> Unfinished:
        return super().unfinished if self._mode in ("command", "auth") else Unfinished.CONTENT

    def greet(self, text: str) -> None:
        self._say(Status(220, "", text))

    def next_event(self) -> Event | None:
        while True:
            if self._ready:
                event = self._ready.popleft()
                if not isinstance(event, Content):
                    self._waiting = event
                return event
            mode = self._mode
            if mode == "command" or mode == "auth":
                refuse_tls(self._input, _OTHERS)
                line = self._line()
                if line is None:
                    return None
                if mode == "command":
                    refuse_http(line, _OTHERS)
                said = AuthResponse(line) if mode == "auth" else self._command(line)
                if said is not None:
                    self._waiting = said
                    return said
            elif not (self._data() if mode == "data" else self._chunk()):
                return None

    def _line(self) -> bytes | None:
        try:
            line = self._input.line(
                self.limits.auth_response if self._mode == "auth" else self.limits.command, lf_ends=True
            )
        except LineTooLong as error:
            raise ProtocolError(str(error), Status(500, "5.5.2", "line too long").wire()) from None
        if line is None:
            return None
        self._lf_alone = line.endswith(b"\n")
        if self._lf_alone and self.lenient:
            line = line[:-1]
        if b"\n" in line or b"\r" in line:
            raise ProtocolError("bare CR or LF in a command", BARE_LINE_END.wire())
        return line

    def reply(self, status: Status) -> None:
        """Answer the last event, and move on in the table."""
        self._say(status)
        event, self._waiting = self._waiting, None
        self.state = after(self.state, event, status)
        match event:
            case Data() if status.code == 354:
                self._mode, self._received, self._held, self._first = "data", 0, b"\r\n", True
                self._by_lf = self.lenient and self._lf_alone
            case ContentEnd():
                self._empty = 0
                self._begin_content()
            case Hello() | XClient() | Reset() if status.ok:
                self._begin_content()
            case Auth() | AuthResponse():
                self._mode = "auth" if status.code == 334 else "command"
            case _:
                pass

    def say(self, status: Status) -> None:
        """One more reply that moves nothing (LMTP's replies for the other recipients, a 421)."""
        self._say(status)

    # -- commands

    def _say(self, status: Status) -> None:
        self._output.append(status.wire())

    def _begin_content(self) -> None:
        self._received = 0
        self._inspector = Inspector(long_lines=self.limits.long_lines)

    def _refuse(self, status: Status) -> None:
        self._say(status)
        self._errors += 1
        if self._errors >= self.limits.errors:
            raise ProtocolError("too many errors", Status(421, "4.7.0", "too many errors, closing connection").wire())

    def _command(self, line: bytes) -> Event | None:
        verb_octets, _, rest = line.partition(b" ")
        verb = verb_octets.decode("ascii", "replace").upper()
        allowed = ALLOWED.get(verb)
        if allowed is None or (verb in _HELLOS and (verb == "LHLO") is not self.lmtp):
            self._refuse(SYNTAX)
            return None
        try:
            argument = rest.decode("utf-8")
        except UnicodeDecodeError:
            self._refuse(Status(501, "5.5.2", "the command is not UTF-8"))
            return None
        if "\x00" in argument:
            self._refuse(Status(501, "5.5.2", "the command holds a NUL"))
            return None
        if self.state not in allowed:
            return self._out_of_order(verb, argument)
        try:
            event = self._parse(verb, argument.strip(" \t"))
        except SyntaxFault as fault:
            self._refuse(fault.status)
            return None
        if isinstance(event, _EMPTY):
            self._count_empty()
        return event

    def _out_of_order(self, verb: str, argument: str) -> Event | None:
        if verb == "BDAT":  # the octets follow whatever we say (RFC 3030 §2)
            self._chunk_left = self._chunk_size(argument)[0]
            self._mode = "skip"
        self._refuse(BAD_ORDER)
        return None

    def _count_empty(self) -> None:
        self._empty += 1
        if self._empty > self.limits.empty_commands and not self.lenient:
            farewell = Status(421, "4.7.0", "too many commands without a message, closing connection")
            raise ProtocolError("too many empty commands", farewell.wire())

    def _parse(self, verb: str, argument: str) -> Event | None:
        match verb:
            case "MAIL":
                return Mail(parse_mail(argument))
            case "RCPT":
                return Rcpt(parse_rcpt(argument))
            case "EHLO" | "HELO" | "LHLO":
                if self.lenient:  # some devices say nothing, or several words
                    argument = argument.partition(" ")[0] or "unknown"
                if not argument or len(argument) > 255 or " " in argument:
                    raise SyntaxFault(Status(501, "5.5.4", "a name or an address literal is needed"))
                return Hello(verb, argument)
            case "BDAT":
                self._begin_chunk(argument)
                return None
            case "AUTH":
                words = argument.split(" ")
                if not words[0] or len(words) > 2:
                    raise SyntaxFault(Status(501, "5.5.4", "AUTH takes a mechanism and at most one initial response"))
                return Auth(words[0].upper(), words[1].encode() if len(words) == 2 else None)
            case "NOOP" | "VRFY" | "EXPN" | "HELP":
                return Noop(verb, argument)
            case "XCLIENT":
                return XClient(_attributes(argument))
        if argument:
            raise SyntaxFault(Status(501, "5.5.4", f"{verb} takes no argument"))
        return _PLAIN[verb]

    # -- content

    def _data(self) -> bool:
        """DATA up to CRLF.CRLF. `_held` carries what could be part of a sign across blocks. False: more bytes are needed."""
        fresh = self._input.take(_CONTENT_BLOCK)
        if not fresh:
            return False
        block = self._held + (_with_crlf(fresh, self._held) if self._by_lf else fresh)
        end = block.find(b"\r\n.\r\n")
        if end >= 0:
            self._input.put_back(block[end + 5 :])
            self._content(block[: end + 2])
            self._end()
        else:
            cut = len(block) - _partial_end(block)
            self._held = block[cut:]
            self._content(block[:cut])
        return True

    def _content(self, content: bytes) -> None:
        """A piece of DATA: check it, take the stuffed dots out (RFC 5321 §4.5.2). What ends a line is never cut in two here."""
        if b"\r\n." in content:
            content = content.replace(b"\r\n.", b"\r\n")
        if self._first and content:
            content, self._first = content[2:], False  # the CRLF behind DATA is not the letter's
        self._deliver(content)
        if self._inspector.found is Irregularity.BARE and not self.lenient:
            # where a message ends is in doubt: nothing behind it can be believed to be a command
            raise ProtocolError("bare CR or LF in the content", BARE_LINE_END.wire())

    def _deliver(self, content: bytes) -> None:
        self._received += len(content)
        irregular = self._inspector.feed(content)
        if content and self._received <= self.limits.message and (irregular is None or self.lenient):
            self._ready.append(Content(content))

    def _end(self) -> None:
        self._ready.append(ContentEnd(self._received > self.limits.message, self._inspector.end()))
        self._mode = "command"

    def _chunk_size(self, argument: str) -> tuple[int, bool]:
        words = argument.split()
        if not words or not words[0].isascii() or not words[0].isdigit() or len(words[0]) > 12:
            farewell = Status(501, "5.5.4", "BDAT needs a size; closing connection")
            raise ProtocolError("BDAT without a size", farewell.wire())
        if len(words) > 2 or (len(words) == 2 and words[1].upper() != "LAST"):
            farewell = Status(501, "5.5.4", "BDAT takes a size and LAST; closing connection")
            raise ProtocolError("malformed BDAT", farewell.wire())
        return int(words[0]), len(words) == 2

    def _begin_chunk(self, argument: str) -> None:
        """BDAT (RFC 3030 §2): the octets follow whatever we say, so without a recipient they are read and refused."""
        self._chunk_left, self._chunk_last = self._chunk_size(argument)
        if self._chunk_left < CHUNK_OCTETS_LEAST and not self._chunk_last:
            self._count_empty()
        if self.state is State.MAIL:
            self._mode = "skip"
            raise SyntaxFault(Status(503, "5.5.1", "no valid recipients"))
        if self.state is State.RCPT:
            self._received = 0
        self.state = State.CHUNKS
        self._mode = "chunk"

    def _chunk(self) -> bool:
        """Octets of a BDAT. False: more bytes are needed."""
        while self._chunk_left:
            block = self._input.take(min(self._chunk_left, _CONTENT_BLOCK))
            if not block:
                return False
            self._chunk_left -= len(block)
            if self._mode == "chunk":
                self._deliver(block)
        if self._mode == "chunk" and self._chunk_last:
            self._end()
        elif self._mode == "chunk":
            self._ready.append(ChunkEnd())
        self._mode = "command"
        return True


ATTRIBUTES = frozenset({"NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT", "REVERSE_NAME"})


def _attributes(argument: str) -> dict[str, str]:
    """Raises SyntaxFault."""
    found: dict[str, str] = {}
    for word in argument.split():
        name, equals, value = word.partition("=")
        if not equals or name.upper() not in ATTRIBUTES:
            raise SyntaxFault(Status(501, "5.5.4", "an attribute of XCLIENT is not known"))
        found[name.upper()] = "" if value.upper() in ("[UNAVAILABLE]", "[TEMPUNAVAIL]") else xtext_decode(value)
    if not found:
        raise SyntaxFault(Status(501, "5.5.4", "XCLIENT needs an attribute"))
    return found


def _with_crlf(fresh: bytes, held: bytes) -> bytes:
    """The lines of a device that ends them in LF alone, with CRLF; `held` ends in the CR of a CRLF that was cut in two."""
    made = fresh.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return made[1:] if held.endswith(b"\r") and made.startswith(b"\r\n") else made


def _partial_end(block: bytes) -> int:
    """How many octets at the end could begin CRLF.CRLF, or a stuffed dot, or a CRLF."""
    for length in (4, 3, 2, 1):
        if block.endswith(b"\r\n.\r\n"[:length]):
            return length
    return 0

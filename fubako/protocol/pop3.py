"""POP3, both sides: `Pop3Server` and `Pop3Client` (RFC 1939, RFC 2449, RFC 2595, RFC 5034, RFC 6856).

The server's engine owns syntax and the order of commands, which is the table `ALLOWED`; decisions are the session's.
"""

from dataclasses import dataclass
from enum import Enum, auto

from fubako.message.octets import regular
from fubako.protocol.engine import ProtocolError
from fubako.protocol.lines import LineEngine, LineTooLong
from fubako.protocol.others import refuse_http, refuse_tls

COMMAND_MAX = 512  # RFC 2449 §4 asks for 255; a UTF-8 user name may be longer
AUTH_MAX = 12288
ERRORS_MAX = 20
REPLY_MAX = 1024
RETURNS_MAX = 1024  # CRs in a row that are looked at together


class State(Enum):
    AUTHORIZATION = auto()
    TRANSACTION = auto()


@dataclass(frozen=True, slots=True)
class Command:
    """One command: keyword in upper case, arguments as sent."""

    keyword: str
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuthResponse:
    line: bytes


Event = Command | AuthResponse

_AUTH, _TRANS = State.AUTHORIZATION, State.TRANSACTION
_BOTH = frozenset(State)
# keyword -> (states, fewest arguments, most arguments)
ALLOWED: dict[str, tuple[frozenset[State], int, int]] = {
    "CAPA": (_BOTH, 0, 0),
    "STLS": (frozenset({_AUTH}), 0, 0),
    "USER": (frozenset({_AUTH}), 1, 1),
    "PASS": (frozenset({_AUTH}), 1, 1),
    "APOP": (frozenset({_AUTH}), 2, 2),
    "AUTH": (frozenset({_AUTH}), 0, 2),
    "UTF8": (frozenset({_AUTH}), 0, 0),
    "LANG": (_BOTH, 0, 1),
    "STAT": (frozenset({_TRANS}), 0, 0),
    "LIST": (frozenset({_TRANS}), 0, 1),
    "UIDL": (frozenset({_TRANS}), 0, 1),
    "RETR": (frozenset({_TRANS}), 1, 1),
    "TOP": (frozenset({_TRANS}), 2, 2),
    "DELE": (frozenset({_TRANS}), 1, 1),
    "RSET": (frozenset({_TRANS}), 0, 0),
    "NOOP": (frozenset({_TRANS}), 0, 0),
    "QUIT": (_BOTH, 0, 0),
}


_OTHERS = b"-ERR this is POP3, and nothing else is spoken here\r\n"


class Pop3Server(LineEngine):
    """One connection, the server's side. The session sets `state` when a login has held."""

    def __init__(self) -> None:
        self.state = State.AUTHORIZATION
        super().__init__()
        self._auth = False
        self._errors = 0

    def tls_started(self) -> None:
        super().tls_started()
        self._auth = False

    def next_event(self) -> Event | None:
        while True:
            refuse_tls(self._input, _OTHERS)
            try:
                line = self._input.line(AUTH_MAX if self._auth else COMMAND_MAX, lf_ends=True)
            except LineTooLong as error:
                raise ProtocolError(str(error), b"-ERR line too long\r\n") from None
            if line is None:
                return None
            if b"\r" in line or b"\n" in line or b"\x00" in line:
                raise ProtocolError("bare CR, LF or NUL", b"-ERR a bare CR or LF is not a line end\r\n")
            if self._auth:
                return AuthResponse(line)
            refuse_http(line, _OTHERS)
            command = self._command(line)
            if command is not None:
                return command

    def _command(self, line: bytes) -> Command | None:
        try:
            keyword, _, rest = line.decode("utf-8").partition(" ")
        except UnicodeDecodeError:
            self._refuse("the command is not UTF-8")
            return None
        keyword = keyword.upper()
        rule = ALLOWED.get(keyword)
        if rule is None:
            self._refuse("unknown command")
            return None
        states, fewest, most = rule
        if self.state not in states:
            self._refuse(f"{keyword} is not allowed now")
            return None
        # a password may hold blanks, so PASS takes the rest of the line as it is (RFC 1939 §7)
        arguments = (rest,) if keyword == "PASS" and rest else tuple(rest.split())
        if not fewest <= len(arguments) <= most:
            self._refuse(f"{keyword} takes {fewest} to {most} arguments")
            return None
        return Command(keyword, arguments)

    def _refuse(self, text: str) -> None:
        self.err(text)
        self._errors += 1
        if self._errors >= ERRORS_MAX:
            raise ProtocolError("too many errors", b"-ERR too many errors, closing connection\r\n")

    def ok(self, text: str = "") -> None:
        self._output.append(f"+OK {text}".rstrip().encode() + b"\r\n")

    def err(self, text: str, code: str = "") -> None:
        self._output.append((f"-ERR [{code}] {text}" if code else f"-ERR {text}").encode() + b"\r\n")

    def challenge(self, line: bytes) -> None:
        """`+ base64` (RFC 5034 §4); the next line is the client's response."""
        self._auth = True
        self._output.append(b"+ " + line + b"\r\n")

    def auth_ended(self) -> None:
        self._auth = False

    def listing(self, lines: list[bytes]) -> None:
        """A multi-line reply of short lines that never begin with a dot."""
        self._output.append(b"".join([line + b"\r\n" for line in lines]) + b".\r\n")


class MultiLine:
    """The content of a multi-line reply, a piece at a time: dot-stuffed and closed (RFC 1939 §3).

    Octets that an older store keeps are made regular here: a client that takes a bare LF for a line end
    would find the end of the reply inside.
    """

    def __init__(self) -> None:
        self._returns = b""  # CRs at the end of the last piece: an LF may follow
        self._at_start = True  # of a line

    def piece(self, octets: bytes) -> bytes:
        octets = self._returns + octets
        kept = octets.rstrip(b"\r")
        self._returns = octets[len(kept) :]
        if len(self._returns) > RETURNS_MAX:
            kept, self._returns = octets, b""
        return self._stuffed(regular(kept))

    def end(self) -> bytes:
        last = self._stuffed(regular(self._returns))
        return last + (b".\r\n" if self._at_start else b"\r\n.\r\n")

    def _stuffed(self, octets: bytes) -> bytes:
        if not octets:
            return b""
        stuffed = octets.replace(b"\r\n.", b"\r\n..") if b"\r\n." in octets else octets
        if self._at_start and octets.startswith(b"."):
            stuffed = b"." + stuffed
        self._at_start = octets.endswith(b"\r\n")
        return stuffed


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server said to `command`; `content` for a multi-line reply, dots taken out."""

    command: str
    ok: bool
    text: str
    content: bytes = b""
    challenge: bytes | None = None


class Pop3Client(LineEngine):
    """One connection, the client's side."""

    def __init__(self, content_max: int = 64 * 1024 * 1024) -> None:
        super().__init__()
        self._expected: list[tuple[str, bool]] = [("greeting", False)]
        self._content_max = content_max
        self._open: Reply | None = None
        self._content = bytearray()

    def tls_started(self) -> None:
        super().tls_started()
        self._expected.clear()

    def command(self, keyword: str, *arguments: str, multiline: bool = False) -> None:
        text = " ".join([keyword, *arguments])
        if any(ord(c) < 32 or ord(c) == 127 for c in text):
            raise ValueError("a command cannot hold a control character")
        self._output.append(text.encode() + b"\r\n")
        self._expected.append((keyword, multiline))

    def response(self, line: bytes) -> None:
        self._output.append(line + b"\r\n")
        self._expected.append(("AUTH", False))

    def next_event(self) -> Reply | None:
        while True:
            line_max = self._content_max if self._open else max(REPLY_MAX, AUTH_MAX)
            try:
                line = self._input.line(line_max)
            except LineTooLong as error:
                raise ProtocolError(str(error)) from None
            if line is None:
                return None
            reply = self._content_line(line) if self._open else self._status_line(line)
            if reply is not None:
                return reply

    def _status_line(self, line: bytes) -> Reply | None:
        if not self._expected:
            raise ProtocolError("the server replied to nothing")
        command, multiline = self._expected.pop(0)
        if line == b"+" or line.startswith(b"+ "):
            return Reply(command, ok=True, text="", challenge=line[2:])
        sign, _, text = line.partition(b" ")
        if sign not in (b"+OK", b"-ERR"):
            raise ProtocolError("the server's reply is no POP3 reply")
        reply = Reply(command, sign == b"+OK", text.decode("utf-8", "replace"))
        if multiline and reply.ok:
            self._open, self._content = reply, bytearray()
            return None
        return reply

    def _content_line(self, line: bytes) -> Reply | None:
        assert self._open is not None
        if line == b".":
            reply, self._open = self._open, None
            return Reply(reply.command, reply.ok, reply.text, bytes(self._content))
        self._content += line[1:] if line.startswith(b".") else line
        self._content += b"\r\n"
        if len(self._content) > self._content_max:
            raise ProtocolError("the server's reply is too long")
        return None

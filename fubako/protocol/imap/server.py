"""`ImapServer`: the server's side of IMAP. Commands come out typed, what cannot be parsed is refused here.

Which command is permitted in which state is the table `PERMITTED` and nothing else.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from fubako.protocol.engine import ProtocolError, Unfinished
from fubako.protocol.imap.cursor import Cursor, ParseError
from fubako.protocol.imap.fragments import Body, Fault, Fragments, Text
from fubako.protocol.imap.parse import BadName, parse
from fubako.protocol.imap.parse_search import BadCharset
from fubako.protocol.imap.types import Authenticate, Bare, Tagged

RESPONSE_MAX = 12288
ERRORS_MAX = 20
REFUSALS_MAX = 100  # in a row, of somebody who is known
LITERAL_MAX_STRANGER = 4096
_TAG = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\\]+]{1,64}')


class State(Enum):
    STRANGER = auto()
    KNOWN = auto()
    SELECTED = auto()


_FAULTS = {
    Fault.TOO_BIG: ("NO", "[TOOBIG] a literal is bigger than allowed here"),
    Fault.TOO_LONG: ("BAD", "[LIMIT] the command is too long"),
    Fault.NO_ROOM: ("NO", "[LIMIT] too much is coming in, try again later"),
}
_S, _K, _SEL = State.STRANGER, State.KNOWN, State.SELECTED
_ALL, _IN = frozenset(State), frozenset({_K, _SEL})
PERMITTED: dict[str, frozenset[State]] = {
    **dict.fromkeys(("CAPABILITY", "NOOP", "LOGOUT", "ID"), _ALL),
    **dict.fromkeys(("STARTTLS", "AUTHENTICATE", "LOGIN"), frozenset({_S})),
    **dict.fromkeys(
        ("ENABLE", "SELECT", "EXAMINE", "CREATE", "DELETE", "RENAME", "SUBSCRIBE", "UNSUBSCRIBE", "LIST", "LSUB",
         "NAMESPACE", "STATUS", "APPEND", "IDLE"), _IN
    ),
    **dict.fromkeys(
        ("CHECK", "CLOSE", "UNSELECT", "EXPUNGE", "SEARCH", "FETCH", "STORE", "COPY", "MOVE", "UID"), frozenset({_SEL})
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Response:
    """The client's answer to a SASL challenge: base64, or b"*"."""

    line: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """DONE: the end of IDLE."""


Event = Tagged | Response | Done


class ImapServer:
    """One connection. The session sets `state` and `utf8`, and ends an AUTHENTICATE or IDLE with `resume`."""

    def __init__(self) -> None:
        self.state = State.STRANGER
        self.utf8 = False
        self._fragments = Fragments(LITERAL_MAX_STRANGER)
        self._output: list[bytes] = []
        self._mode = "command"  # command, response, idle
        self._errors = 0
        self._refusals = 0

    @property
    def pending(self) -> bool:
        return self._fragments.pending

    @property
    def unfinished(self) -> Unfinished:
        return self._fragments.unfinished

    def known(self, literal_max: int, command_max: int, bodies: Callable[[], Body]) -> None:
        """Somebody has logged in, and may say more; the messages of an APPEND go into one of `bodies`."""
        self.state = State.KNOWN
        self._fragments.literal_max, self._fragments.command_max = literal_max, command_max
        self._fragments.bodies = bodies

    def receive(self, octets: bytes) -> None:
        self._fragments.receive(octets)

    def output(self) -> bytes:
        out = b"".join(self._output)
        self._output.clear()
        return out

    def tls_started(self) -> None:
        self._fragments.clear()
        self._output.clear()
        self._mode = "command"

    def send(self, octets: bytes) -> None:
        """Whole lines, as they go out."""
        self._output.append(octets)

    def untagged(self, text: bytes) -> None:
        self._output.append(b"* " + text + b"\r\n")

    def tagged(self, tag: str, condition: str, text: str) -> None:
        self._output.append(f"{tag} {condition} {text}\r\n".encode())

    def challenge(self, line: bytes) -> None:
        """`+ base64`: the next line is a Response. An empty challenge keeps its blank, which clients wait for."""
        self._mode = "response"
        self._output.append(b"+ " + line + b"\r\n")

    def idle(self) -> None:
        self._mode = "idle"
        self._output.append(b"+ idling\r\n")

    def resume(self) -> None:
        self._mode = "command"

    def next_event(self) -> Event | None:
        while True:
            if self._mode == "response":
                line = self._fragments.raw_line(RESPONSE_MAX)
                return None if line is None else Response(line)
            if self._mode == "idle":
                line = self._fragments.raw_line(RESPONSE_MAX)
                if line is None:
                    return None
                if line.upper() != b"DONE":
                    raise ProtocolError("no DONE behind IDLE", b"* BYE DONE was expected\r\n")
                return Done()
            text = self._fragments.next()
            self._output += [b"+ go on\r\n"] * self._fragments.continuations
            self._fragments.continuations = 0
            if text is None:
                return None
            event = self._command(text)
            if event is not None:
                return event

    def _command(self, text: Text) -> Tagged | None:
        cursor = Cursor(text)
        match = _TAG.match(cursor.line)
        if match is None or cursor.line[match.end() : match.end() + 1] != b" ":
            self._refuse("*", "BAD", "a command is a tag, a blank and a name")
            return None
        tag, cursor.at = match.group(0).decode(), match.end() + 1
        if text.fault is not None:
            self._refuse(tag, *_FAULTS[text.fault])
            return None
        try:
            name = cursor.word()
            permitted = PERMITTED.get(name)
            if permitted is None:
                raise ParseError("unknown command")
            if self.state not in permitted:
                self._refuse(tag, "BAD", f"{name} is not permitted now")
                return None
            command = parse(name, cursor, utf8=self.utf8)
        except BadCharset as error:
            self._refuse(tag, "NO", f"[BADCHARSET (UTF-8)] {error}")
            return None
        except BadName as error:
            self._refuse(tag, "NO", f"[CANNOT] {error}")
            return None
        except ParseError as error:
            self._refuse(tag, "BAD", str(error))
            return None
        if isinstance(command, Bare) and command.name == "STARTTLS" and self.pending:
            raise ProtocolError("bytes were sent behind STARTTLS")
        if isinstance(command, Authenticate) and command.initial is None and self.pending:
            raise ProtocolError(
                "a response was sent before its challenge", b"* BYE no pipelining behind AUTHENTICATE\r\n"
            )
        self._refusals = 0
        return Tagged(tag, command)

    def _refuse(self, tag: str, condition: str, text: str) -> None:
        self.tagged(tag, condition, text)
        self._errors += self.state is State.STRANGER or tag == "*"
        self._refusals += 1
        if self._errors >= ERRORS_MAX or self._refusals >= REFUSALS_MAX:
            raise ProtocolError("too many errors", b"* BYE too many errors\r\n")

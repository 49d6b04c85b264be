"""`ManageSieveClient`: the client's side of ManageSieve (RFC 5804): commands out, responses in.

A reply that nobody asked for is fatal (forged before TLS, C-PREREPLY); only BYE may come at any time.
"""

import re
from dataclasses import dataclass, field

from fubako.protocol.engine import ProtocolError
from fubako.protocol.literals import LiteralEngine, Value, values

QUOTED_MAX = 1024  # octets (RFC 5804 §4)
SCRIPT_MAX = 16 * 1024 * 1024
LINES_MAX = 10_000  # of one response
_CONDITION = re.compile(rb"(OK|NO|BYE)(?: |$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Challenge:
    """Of AUTHENTICATE, in base64 as it came."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """What answers `command` (CAPABILITY for the greeting; empty for BYE unasked). `code` is in upper case, RFC 5804 §1.3."""

    command: str
    condition: str  # OK, NO or BYE
    code: str = ""
    argument: bytes = b""  # of the code
    text: str = ""
    lines: list[list[Value]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.condition == "OK"

    @property
    def capabilities(self) -> dict[str, str]:
        """By their names in upper case (§1.7)."""
        words = [[one.decode("utf-8", "replace") for one in line if isinstance(one, bytes)] for line in self.lines]
        return {line[0].upper(): line[1] if len(line) > 1 else "" for line in words if line}


class ManageSieveClient(LiteralEngine):
    """One connection."""

    def __init__(self, *, script_max: int = SCRIPT_MAX) -> None:
        super().__init__(script_max)
        self._expected = ["CAPABILITY"]
        self._lines: list[list[Value]] = []

    def tls_started(self) -> None:
        """The server tells its capabilities again (§2.2); what it said before is forgotten."""
        super().tls_started()
        self._expected = ["CAPABILITY"]
        self._lines = []

    def command(self, name: str, *arguments: str | bytes | int) -> None:
        """A name or mechanism as text, a script as octets, a size as a number. Raises ValueError where it cannot be said."""
        words = [b"%d" % one if isinstance(one, int) else _string(one) for one in arguments]
        self._output.append(b" ".join([name.encode("ascii"), *words]) + b"\r\n")
        self._expected.append(name)

    def response(self, octets: bytes) -> None:
        """The answer to a challenge, in base64."""
        self._output.append(_string(octets.decode("ascii")) + b"\r\n")

    def next_event(self) -> Response | Challenge | None:
        while True:
            whole = self._gathered()
            if whole is None:
                return None
            pieces, literals = whole
            event = self._data(pieces, literals) if pieces[0][:1] in (b'"', b"{") else self._completed(pieces, literals)
            if event is not None:
                return event

    def _data(self, pieces: list[bytes], literals: list[bytes]) -> Challenge | None:
        line = values(pieces, literals)
        command = self._expected[0] if self._expected and not self._output else ""
        if not command:
            raise ProtocolError("the server replied to nothing")
        if command == "AUTHENTICATE":
            if len(line) != 1 or not isinstance(line[0], bytes):
                raise ProtocolError("the server's challenge is malformed")
            return Challenge(line[0])
        self._lines.append(line)
        if len(self._lines) > LINES_MAX:
            raise ProtocolError("the server's response has too many lines")
        return None

    def _completed(self, pieces: list[bytes], literals: list[bytes]) -> Response:
        found = _CONDITION.match(pieces[0])
        if found is None:
            raise ProtocolError("the server's reply is no ManageSieve reply")
        condition = found[1].decode().upper()
        if self._output or not self._expected:
            if condition != "BYE":
                raise ProtocolError("the server replied to nothing")
            command = ""
        else:
            command = self._expected.pop(0)
        rest = values(pieces, literals)[1:]
        code, argument = "", b""
        if rest and isinstance(rest[0], list):
            inside = [one for one in rest.pop(0) or [] if isinstance(one, bytes)]
            code = inside[0].decode("ascii", "replace").upper() if inside else ""
            argument = inside[1] if len(inside) > 1 else b""
        text = rest[0].decode("utf-8", "replace") if rest and isinstance(rest[0], bytes) else ""
        lines, self._lines = self._lines, []
        self._ended()
        return Response(command, condition, code, argument, text, lines)


def _string(value: str | bytes) -> bytes:
    """Text quoted where that may be, octets as a literal (§4): no argument can hold another command."""
    if isinstance(value, str):
        octets = value.encode()
        if len(octets) <= QUOTED_MAX and not any(c < 32 or c == 127 for c in octets):
            return b'"' + octets.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
        value = octets
    return b"{%d+}\r\n" % len(value) + value

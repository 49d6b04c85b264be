"""`ImapClient`: the client's side of IMAP: commands out, responses in, as nested lists of octets.

A tagged reply to a command that was not sent is fatal (forged before TLS, C-PREREPLY); tags begin with a random prefix.
"""

import re
from dataclasses import dataclass, field

from fubako.protocol.engine import ProtocolError
from fubako.protocol.lines import LineEngine, LineTooLong

LINE_MAX = 1 << 20
DEPTH_MAX = 100
_LITERAL = re.compile(rb"~?\{(\d{1,10})\}$")
_ATOM = re.compile(rb'(?:\[[^\]]*\]|[^\s()"\[\]])+(?:<\d+>)?')

Value = bytes | None | list["Value"]


@dataclass(frozen=True, slots=True)
class Greeting:
    condition: str  # OK, PREAUTH or BYE
    text: bytes


@dataclass(frozen=True, slots=True)
class Continue:
    text: bytes


@dataclass(frozen=True, slots=True)
class Completed:
    """The tagged reply, with the untagged responses that came before it."""

    tag: str
    condition: str
    text: bytes
    untagged: list[list[Value]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.condition == "OK"


@dataclass(frozen=True, slots=True)
class Untagged:
    """An untagged response while the server was asked to tell (IDLE, RFC 2177)."""

    values: list[Value]


Event = Greeting | Continue | Completed | Untagged


class ImapClient(LineEngine):
    """One connection. `tag_prefix` is random, so that nobody can reply before the command was sent."""

    def __init__(self, tag_prefix: str, *, literal_max: int = 64 * 1024 * 1024) -> None:
        self._prefix = tag_prefix
        self._count = 0
        self._literal_max = literal_max
        super().__init__()
        self._sent: set[str] = set()
        self._greeted = False
        self._pieces: list[bytes] = []
        self._literals: list[bytes] = []
        self._left = 0
        self._partial = bytearray()
        self._untagged: list[list[Value]] = []
        self.watching = False  # between IDLE and DONE

    @property
    def pending(self) -> bool:
        return super().pending or bool(self._pieces)

    def tls_started(self) -> None:
        super().tls_started()
        self._sent.clear()
        self._untagged.clear()

    def command(self, text: str) -> str:
        """Send one command; returns its tag. Raises ValueError when the text could smuggle another one."""
        if any(c in text for c in "\r\n\x00"):
            raise ValueError("a command cannot hold CR, LF or NUL")
        self._count += 1
        tag = f"{self._prefix}{self._count}"
        self._sent.add(tag)
        self._output.append(f"{tag} {text}\r\n".encode())
        return tag

    def raw(self, octets: bytes) -> None:
        """A SASL response line or a literal's content, behind a Continue."""
        self._output.append(octets)

    def next_event(self) -> Event | None:
        while True:
            if not self._gather():
                return None
            pieces, literals = self._pieces, self._literals
            self._pieces, self._literals = [], []
            event = self._response(pieces, literals)
            if event is not None:
                return event

    def _gather(self) -> bool:
        while True:
            if self._left:
                block = self._input.take(self._left)
                if not block:
                    return False
                self._partial += block
                self._left -= len(block)
                if self._left:
                    continue
                self._literals.append(bytes(self._partial))
                self._partial.clear()
            try:
                line = self._input.line(LINE_MAX)
            except LineTooLong as error:
                raise ProtocolError(str(error)) from None
            if line is None:
                return False
            match = _LITERAL.search(line) if line.endswith(b"}") else None
            self._pieces.append(line)
            if match is None:
                return True
            self._left = int(match.group(1))
            if self._left > self._literal_max:
                raise ProtocolError("the server sends a literal that is too big")
            if not self._left:
                self._literals.append(b"")

    def _response(self, pieces: list[bytes], literals: list[bytes]) -> Event | None:
        line = pieces[0]
        if line.startswith(b"+"):
            return Continue(line[1:].removeprefix(b" "))
        head, _, rest = line.partition(b" ")
        if head == b"*":
            return self._star(rest, pieces, literals)
        tag = head.decode("ascii", "replace")
        condition, _, text = rest.partition(b" ")
        if tag not in self._sent or self._output or condition.upper() not in (b"OK", b"NO", b"BAD"):
            raise ProtocolError("the server replied to a command that was not sent")
        self._sent.discard(tag)
        untagged, self._untagged = self._untagged, []
        return Completed(tag, condition.decode().upper(), text, untagged)

    def _star(self, rest: bytes, pieces: list[bytes], literals: list[bytes]) -> Greeting | Untagged | None:
        condition, _, text = rest.partition(b" ")
        word = condition.decode("ascii", "replace").upper()
        if not self._greeted:
            if word not in ("OK", "PREAUTH", "BYE"):
                raise ProtocolError("the server's greeting is no IMAP greeting")
            self._greeted = True
            return Greeting(word, text)
        if word in ("OK", "NO", "BAD", "BYE", "PREAUTH"):
            self._untagged.append([word.encode(), text])
        else:
            self._untagged.append(_values([rest, *pieces[1:]], literals))
        return Untagged(self._untagged.pop()) if self.watching else None


def _values(pieces: list[bytes], literals: list[bytes]) -> list[Value]:
    stack: list[list[Value]] = [[]]
    for index, piece in enumerate(pieces):
        has_literal = index < len(literals)
        text = _LITERAL.sub(b"", piece) if has_literal else piece
        position = 0
        while position < len(text):
            octet = text[position : position + 1]
            if octet == b" ":
                position += 1
            elif octet == b"(":
                stack.append([])
                if len(stack) > DEPTH_MAX:
                    raise ProtocolError("the server nests too deeply")
                position += 1
            elif octet == b")":
                if len(stack) < 2:
                    raise ProtocolError("the server closes a list that it did not open")
                inner = stack.pop()
                stack[-1].append(inner)
                position += 1
            elif octet == b'"':
                value, position = _quoted(text, position)
                stack[-1].append(value)
            else:
                match = _ATOM.match(text, position)
                if match is None:
                    raise ProtocolError("the server's response is malformed")
                stack[-1].append(None if match.group(0).upper() == b"NIL" else match.group(0))
                position = match.end()
        if has_literal:
            stack[-1].append(literals[index])
    if len(stack) != 1:
        raise ProtocolError("the server left a list open")
    return stack[0]


def _quoted(text: bytes, position: int) -> tuple[bytes, int]:
    end = position + 1
    while end < len(text) and text[end] != 0x22:
        end += 2 if text[end] == 0x5C else 1
    if end >= len(text):
        raise ProtocolError("the server left a quoted string open")
    return re.sub(rb"\\(.)", rb"\1", text[position + 1 : end]), end + 1

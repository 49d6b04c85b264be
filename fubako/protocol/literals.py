"""What IMAP and ManageSieve share on the client's side: a server's response of lines and literals, and the values in it."""

import re

from fubako.protocol.engine import ProtocolError
from fubako.protocol.lines import LineEngine, LineTooLong

LINE_MAX = 1 << 20
DEPTH_MAX = 100
ANSWER_OCTETS_MAX = 1 << 30  # of everything that answers one command; a line counts for a little more than it holds
LINE_COST = 100
_LITERAL = re.compile(rb"~?\{(\d{1,10})\}$")
_ATOM = re.compile(rb'(?:\[[^\]]*\]|[^\s()"\[\]])+(?:<\d+>)?')

Value = bytes | None | list["Value"]


class LiteralEngine(LineEngine):
    """Gathers the pieces of one response: its lines, and the literals that stood between them. A subclass says `_ended` when all
    that answers a command has come."""

    def __init__(self, literal_max: int, answer_max: int = ANSWER_OCTETS_MAX) -> None:
        super().__init__()
        self._literal_max, self._answer_max = literal_max, answer_max
        self._octets = 0
        self._pieces: list[bytes] = []
        self._literals: list[bytes] = []
        self._left = 0
        self._partial = bytearray()

    @property
    def pending(self) -> bool:
        return super().pending or bool(self._pieces)

    def tls_started(self) -> None:
        super().tls_started()
        self._pieces, self._literals, self._left, self._octets = [], [], 0, 0
        self._partial.clear()

    def _ended(self) -> None:
        self._octets = 0

    def _gathered(self) -> tuple[list[bytes], list[bytes]] | None:
        """Lines and literals of the next response, or None. Raises ProtocolError."""
        while True:
            if self._left:
                block = self._input.take(self._left)
                if not block:
                    return None
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
                return None
            match = _LITERAL.search(line) if line.endswith(b"}") else None
            self._pieces.append(line)
            self._octets += len(line) + LINE_COST
            if self._octets > self._answer_max:
                raise ProtocolError("the server's answer does not end")
            if match is None:
                whole = self._pieces, self._literals
                self._pieces, self._literals = [], []
                return whole
            self._left = int(match.group(1))
            self._octets += self._left
            if self._left > self._literal_max:
                raise ProtocolError("the server sends a literal that is too big")
            if not self._left:
                self._literals.append(b"")


def values(pieces: list[bytes], literals: list[bytes]) -> list[Value]:
    """Atoms, strings, literals and lists in parentheses; the atom NIL is None. Raises ProtocolError."""
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

"""`Fragments`: cuts the client's bytes into whole commands: lines, and the literals between them (RFC 9051 §4.3).

Limits hold before anything is kept. A synchronising literal that is too big is refused before it is sent, one of
LITERAL+ (RFC 7888) is read and thrown away.
"""

import re
from dataclasses import dataclass, field

from fubako.protocol.engine import ProtocolError, Unfinished
from fubako.protocol.lines import LineBuffer, LineTooLong

LINE_MAX = 65536
COMMAND_LITERALS_MAX = 1000
_LITERAL = re.compile(rb"(~?)\{(\d{1,20})(\+?)\}$")


@dataclass(slots=True)
class Text:
    """One command: pieces of line, and behind each but the last the literal that followed it."""

    pieces: list[bytes] = field(default_factory=list)
    literals: list[bytes] = field(default_factory=list)
    too_big: bool = False

    @property
    def octets(self) -> int:
        return sum(map(len, self.pieces)) + sum(map(len, self.literals))


class Fragments:
    """`literal_max` may be changed at any time: it is small before a login."""

    def __init__(self, literal_max: int) -> None:
        self.literal_max = literal_max
        self._input = LineBuffer()
        self._text = Text()
        self._literal: list[bytes] = []
        self._left = 0
        self._skip = False
        self.continuations = 0  # `+` that the engine has still to say

    @property
    def pending(self) -> bool:
        return len(self._input) > 0

    @property
    def unfinished(self) -> Unfinished:
        if self._left:
            return Unfinished.CONTENT
        return Unfinished.COMMAND if self._input or self._text.pieces else Unfinished.NOTHING

    def receive(self, octets: bytes) -> None:
        self._input.feed(octets)

    def clear(self) -> None:
        self._input.clear()
        self._text, self._literal, self._left = Text(), [], 0

    def raw_line(self, octets_max: int) -> bytes | None:
        """A line outside any command: a SASL response, DONE."""
        try:
            return self._input.line(octets_max, lf_ends=True)
        except LineTooLong as error:
            raise ProtocolError(str(error), b"* BYE line too long\r\n") from None

    def next(self) -> Text | None:
        """The next whole command, or None."""
        while True:
            if self._left:
                if not self._take_literal():
                    return None
            line = self.raw_line(LINE_MAX)
            if line is None:
                return None
            if b"\x00" in line or b"\r" in line or b"\n" in line:
                raise ProtocolError("NUL, bare CR or LF", b"* BYE NUL, bare CR or LF in a command\r\n")
            if not self._add_line(line):
                text, self._text = self._text, Text()
                return text

    def _add_line(self, line: bytes) -> bool:
        """Whether the command goes on behind this line."""
        match = _LITERAL.search(line) if line.endswith(b"}") else None
        self._text.pieces.append(line[: match.start()] if match else line)
        if self._text.octets > self.literal_max + 2 * LINE_MAX or len(self._text.pieces) > COMMAND_LITERALS_MAX:
            raise ProtocolError("command too long", b"* BYE command too long\r\n")
        if match is None:
            return False
        size, prompt = int(match.group(2)), not match.group(3)
        if size > self.literal_max:
            self._text.too_big = True
            if prompt:  # refused before it is sent: the command ends here
                return False
            if size > 16 * max(self.literal_max, 1 << 20):
                raise ProtocolError("literal far too big", b"* BYE [TOOBIG] literal too big\r\n")
        self._left, self._literal = size, []
        self._skip = self._text.too_big
        if prompt:
            self.continuations += 1
        if not size:
            self._text.literals.append(b"")
        return True

    def _take_literal(self) -> bool:
        while self._left:
            block = self._input.take(self._left)
            if not block:
                return False
            self._left -= len(block)
            if not self._skip:
                self._literal.append(block)
        self._text.literals.append(self._literal[0] if len(self._literal) == 1 else b"".join(self._literal))
        self._literal = []
        return True

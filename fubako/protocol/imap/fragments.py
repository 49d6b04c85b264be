"""`Fragments`: cuts the client's bytes into whole commands: lines, and the literals between them (RFC 9051 §4.3).

Limits hold before anything is kept. A synchronising literal that is too big is refused before it is sent. One that is sent
unasked (RFC 7888) ends the connection with a BAD before its octets are read, where it is bigger than its command may be; only the
message of an APPEND is read and thrown away, and so is the rest of a command that is too long, to its very end, so that nothing
of it is taken for a command. What APPEND brings goes where the session says.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from fubako.protocol.engine import ProtocolError, Unfinished
from fubako.protocol.lines import LineBuffer, LineTooLong
from fubako.protocol.others import refuse_http, refuse_tls

LINE_MAX = 65536  # more than a stranger may say in one command
COMMAND_OCTETS_STRANGER = 40 * 1024  # a login has 12,288 in its initial response; ID thirty fields of 1,024
THROWN_OCTETS_MAX = 16 * 1024 * 1024  # of one command, read to find its end
COMMAND_OCTETS_MAX = 1024 * 1024  # of one who is known, without the messages of APPEND
COMMAND_LITERALS_MAX = 1000
SHORT_MAX = 4096  # of a literal that is a name
_LITERAL = re.compile(rb"(~?)\{(\d{1,20})(\+?)\}$")
_TAG = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\\]+]{1,64} ')
_APPEND = re.compile(rb"[^ ]{1,64} APPEND ", re.IGNORECASE)
_TAIL = 32  # octets of a line in which its literal is told


class Body(Protocol):
    """Where the messages of one APPEND go, one behind the other."""

    @property
    def size(self) -> int: ...
    def append(self, octets: bytes) -> bool:
        """False: there is no room."""
        ...

    def read(self, start: int, length: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Message:
    """One of them."""

    body: Body
    start: int
    size: int

    def whole(self) -> bytes:
        return self.body.read(self.start, self.size)


class Fault(Enum):
    """Why a command was read and is not carried out."""

    TOO_BIG = auto()  # a literal
    TOO_LONG = auto()
    NO_ROOM = auto()


@dataclass(slots=True)
class Text:
    """One command: pieces of line, and behind each but the last the literal that followed it."""

    pieces: list[bytes] = field(default_factory=list)
    literals: list[bytes | Message] = field(default_factory=list)
    fault: Fault | None = None
    octets: int = 0  # in memory
    body: Body | None = None


_OTHERS = b"* BYE this is IMAP, and nothing else is spoken here\r\n"


class Fragments:
    """`literal_max` and `command_max` may be changed at any time: they are small before a login. `bodies`: where APPEND goes."""

    def __init__(self, literal_max: int) -> None:
        self.literal_max = literal_max
        self.command_max = COMMAND_OCTETS_STRANGER
        self.bodies: Callable[[], Body] | None = None
        self._input = LineBuffer()
        self._text = Text()
        self._literal: list[bytes] = []
        self._left = 0
        self._size = 0  # of the literal that is coming
        self._tail: bytes | None = None  # of a line that is too long, and thrown away
        self._thrown = 0  # octets of the command
        self.continuations = 0  # `+` that the engine has still to say

    @property
    def pending(self) -> bool:
        return len(self._input) > 0

    @property
    def unfinished(self) -> Unfinished:
        if self._left:
            return Unfinished.CONTENT
        begun = len(self._input) or self._text.pieces or self._tail is not None
        return Unfinished.COMMAND if begun else Unfinished.NOTHING

    def receive(self, octets: bytes) -> None:
        self._input.feed(octets)

    def clear(self) -> None:
        self._input.clear()
        self._text, self._literal, self._left, self._tail = Text(), [], 0, None

    def raw_line(self, octets_max: int) -> bytes | None:
        """A line outside any command: a SASL response, DONE."""
        try:
            return self._input.line(octets_max, lf_ends=True)
        except LineTooLong as error:
            raise ProtocolError(str(error), b"* BYE line too long\r\n") from None

    def next(self) -> Text | None:
        """The next whole command, or None."""
        while True:
            if self._left and not self._take_literal():
                return None
            begins = not self._text.pieces and self._tail is None
            if begins:
                refuse_tls(self._input, _OTHERS)
            line = self._line()
            if line is None:
                return None
            if begins:
                refuse_http(line, _OTHERS, words_may_be_tags=True)
            if b"\x00" in line or b"\r" in line or b"\n" in line:
                raise ProtocolError("NUL, bare CR or LF", b"* BYE NUL, bare CR or LF in a command\r\n")
            if not self._add_line(line):
                text, self._text, self._thrown = self._text, Text(), 0
                return text

    def _line(self) -> bytes | None:
        """The next line of a command; of one that is too long what is needed to go on."""
        if self._tail is not None:
            return self._rest()
        try:
            return self._input.line(self.command_max, lf_ends=True)
        except LineTooLong as error:
            if self.command_max <= LINE_MAX:
                raise ProtocolError(str(error), b"* BYE line too long\r\n") from None
        self._text.fault = self._text.fault or Fault.TOO_LONG
        octets = self._input.take(self.command_max)
        if not self._text.pieces:
            self._text.pieces.append(octets[:SHORT_MAX])  # its tag
        self._input.put_back(octets[-_TAIL:])
        self._tail = b""
        return self._rest()

    def _rest(self) -> bytes | None:
        assert self._tail is not None
        octets = self._input.take(len(self._input))
        self._throw(len(octets))
        line, end, behind = octets.partition(b"\n")
        self._tail = (self._tail + line)[-_TAIL:]
        if not end:
            return None
        self._input.put_back(behind)
        last, self._tail = self._tail.removesuffix(b"\r"), None
        return last.replace(b"\x00", b"?").replace(b"\r", b"?")

    def _add_line(self, line: bytes) -> bool:
        """Whether the command goes on behind this line."""
        text = self._text
        match = _LITERAL.search(line) if line.endswith(b"}") else None
        piece = line[: match.start()] if match else line
        if text.octets + len(piece) > self.command_max or len(text.pieces) > COMMAND_LITERALS_MAX:
            if self.command_max <= LINE_MAX:
                raise ProtocolError("command too long", b"* BYE command too long\r\n")
            text.fault = text.fault or Fault.TOO_LONG
        if text.fault is None or not text.pieces:
            text.pieces.append(piece)
            text.octets += len(piece)
        return match is not None and self._begin_literal(int(match.group(2)), prompt=not match.group(3))

    def _begin_literal(self, size: int, *, prompt: bool) -> bool:
        text = self._text
        if self.bodies is not None and text.body is None and _APPEND.match(text.pieces[0]):
            text.body = self.bodies()
        if size > self.literal_max or (text.body is None and self.bodies is not None and size > self.command_max):
            text.fault = text.fault or Fault.TOO_BIG
        elif text.body is None and text.octets + size > self.command_max:
            text.fault = text.fault or Fault.TOO_LONG
        if text.fault is not None and not prompt:
            self._may_be_read(size)
        if text.fault is not None and prompt:  # refused before it is sent: the command ends here
            return False
        self._left = self._size = size
        self._literal = []
        if prompt:
            self.continuations += 1
        if not size:
            self._end_literal()
        return True

    def _may_be_read(self, size: int) -> None:
        """A literal that nobody will use comes without being asked for (RFC 7888 §4). Raises ProtocolError instead of reading it,
        but for the message of an APPEND and for what is within the limit of one literal of a command."""
        if self._text.body is not None:
            harmless = size <= self._throwable
        else:
            harmless = size <= min(self.literal_max, self.command_max) and self._text.fault is not Fault.TOO_BIG
        if not harmless or self.bodies is None:
            raise ProtocolError("literal far too big", self._farewell("[TOOBIG] the literal is too big to be read"))

    @property
    def _throwable(self) -> int:
        """Octets of one command that are read to find its end, and kept nowhere."""
        return THROWN_OCTETS_MAX if self._text.body is None else 16 * max(self.literal_max, 1 << 20)

    def _throw(self, octets: int) -> None:
        """Raises ProtocolError where the end does not come."""
        self._thrown += octets
        if self._thrown > self._throwable:
            raise ProtocolError("a command without an end", self._farewell("the command does not end"))

    def _farewell(self, words: str) -> bytes:
        """BAD to the command that is being read, and BYE."""
        tag = _TAG.match(self._text.pieces[0]) if self._text.pieces else None
        bad = tag.group(0) + f"BAD {words}\r\n".encode() if tag else b""
        return bad + f"* BYE {words}\r\n".encode()

    def _take_literal(self) -> bool:
        while self._left:
            block = self._input.take(self._left)
            if not block:
                return False
            self._left -= len(block)
            self._keep(block)
        self._end_literal()
        return True

    def _keep(self, block: bytes) -> None:
        text = self._text
        if text.fault is not None:
            self._throw(len(block))
        elif text.body is None:
            self._literal.append(block)
            text.octets += len(block)
        elif not text.body.append(block):
            text.fault = Fault.NO_ROOM

    def _end_literal(self) -> None:
        text, parts = self._text, self._literal
        self._literal = []
        if text.fault is not None:
            return
        if text.body is not None:
            text.literals.append(Message(text.body, text.body.size - self._size, self._size))
        else:
            text.literals.append(parts[0] if len(parts) == 1 else b"".join(parts))

"""`Cursor`: reads the elements of IMAP's grammar from one command (RFC 9051 §9)."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime

from fubako.protocol.imap.fragments import SHORT_MAX, Message, Text
from fubako.protocol.imap.types import SequenceSet

NUMBER_MAX = 2**32 - 1
MODSEQ_MAX = 2**63 - 1
NESTING_MAX = 50
SET_RANGES_MAX = 20_000

_ATOM = re.compile(rb"[^\x00-\x20\x7f-\xff(){%*\"\\\]]+")
_ASTRING = re.compile(rb"[^\x00-\x20\x7f-\xff(){%*\"\\]+")
_LIST_CHARS = re.compile(rb"[^\x00-\x20\x7f(){\"\\]+")
_QUOTED = re.compile(rb'"((?:[^"\\\r\n]|\\["\\])*)"')
_SET = re.compile(rb"[0-9:,*]+")
_RANGE = re.compile(rb"(\d{1,10}|\*)(?::(\d{1,10}|\*))?")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE = re.compile(rb'"?(\d{1,2})-([A-Za-z]{3})-(\d{4})"?')
_DATETIME = re.compile(rb'"([ \d]\d)-([A-Za-z]{3})-(\d{4}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)"')


class ParseError(ValueError):
    """The command breaks the grammar; the message says where in words."""


class Cursor:
    """A place in a command: `piece` counts pieces, `at` octets in the current one."""

    __slots__ = ("_piece", "_text", "at", "line")

    def __init__(self, text: Text) -> None:
        self._text = text
        self._piece = 0
        self.line = text.pieces[0]
        self.at = 0

    @property
    def at_literal(self) -> bool:
        return self.at == len(self.line) and self._piece < len(self._text.literals)

    @property
    def at_end(self) -> bool:
        return self.at == len(self.line) and not self.at_literal

    def peek(self, prefix: bytes) -> bool:
        return self.line.startswith(prefix, self.at)

    def accept(self, prefix: bytes) -> bool:
        if self.line.startswith(prefix, self.at):
            self.at += len(prefix)
            return True
        return False

    def expect(self, prefix: bytes) -> None:
        if not self.accept(prefix):
            wanted = "a blank" if prefix == b" " else prefix.decode()
            raise ParseError(f"{wanted} is missing at octet {self.at}")

    def space(self) -> None:
        self.expect(b" ")

    def members(self) -> Iterator[None]:
        """A parenthesised list: once in front of each member, up to the closing parenthesis."""
        self.expect(b"(")
        first = True
        while not self.accept(b")"):
            if not first:
                self.space()
            first = False
            yield

    def end(self) -> None:
        if not self.at_end:
            raise ParseError(f"something stands behind the command at octet {self.at}")

    def _match(self, pattern: re.Pattern[bytes], what: str) -> bytes:
        match = pattern.match(self.line, self.at)
        if match is None:
            raise ParseError(f"{what} is missing at octet {self.at}")
        self.at = match.end()
        return match.group(0)

    def content(self) -> bytes | Message:
        """A literal that is a message."""
        if not self.at_literal:
            raise ParseError("a literal is missing")
        octets = self._text.literals[self._piece]
        self._piece += 1
        self.line, self.at = self._text.pieces[self._piece], 0
        return octets

    def literal(self) -> bytes:
        octets = self.content()
        if isinstance(octets, bytes):
            return octets
        if octets.size > SHORT_MAX:
            raise ParseError("a string is too long")
        return octets.whole()

    def atom(self) -> str:
        return self._match(_ATOM, "an atom").decode()

    def word(self) -> str:
        """An atom in upper case."""
        return self.atom().upper()

    def astring_octets(self) -> bytes:
        if self.at_literal:
            return self.literal()
        if self.peek(b'"'):
            match = _QUOTED.match(self.line, self.at)
            if match is None:
                raise ParseError(f"a quoted string is malformed at octet {self.at}")
            self.at = match.end()
            text = match.group(1)
            return re.sub(rb'\\(["\\])', rb"\1", text) if b"\\" in text else text
        return self._match(_ASTRING, "a string")

    def astring(self) -> str:
        try:
            text = self.astring_octets().decode("utf-8")
        except UnicodeDecodeError:
            raise ParseError("a string is not UTF-8") from None
        if "\x00" in text or "\r" in text or "\n" in text:
            raise ParseError("a string holds NUL, CR or LF")
        return text

    def nstring(self) -> str | None:
        if self.line[self.at : self.at + 3].upper() == b"NIL":
            self.at += 3
            return None
        return self.astring()

    def nstring_or_open(self) -> bool:
        """True for NIL, False for an opening parenthesis (ID's argument)."""
        if self.accept(b"("):
            return False
        if self.nstring() is not None:
            raise ParseError("NIL or a list is expected")
        return True

    def list_pattern(self) -> str:
        if self.at_literal or self.peek(b'"'):
            return self.astring()
        return self._match(_LIST_CHARS, "a pattern").decode("utf-8", "replace")

    def number(self, largest: int = NUMBER_MAX) -> int:
        digits = self._match(re.compile(rb"\d{1,20}"), "a number")
        value = int(digits)
        if value > largest:
            raise ParseError("a number is too big")
        return value

    def sequence_set(self) -> SequenceSet:
        if self.accept(b"$"):
            return SequenceSet(saved=True)
        text = self._match(_SET, "a set of numbers")
        ranges: list[tuple[int, int]] = []
        for part in text.split(b","):
            match = _RANGE.fullmatch(part)
            if match is None or len(ranges) >= SET_RANGES_MAX:
                raise ParseError("a set of numbers is malformed")
            low = self._set_number(match.group(1))
            high = self._set_number(match.group(2)) if match.group(2) else low
            ranges.append((low, high))
        return SequenceSet(tuple(ranges))

    @staticmethod
    def _set_number(digits: bytes) -> int:
        if digits == b"*":
            return 0
        value = int(digits)
        if not 0 < value <= NUMBER_MAX:
            raise ParseError("a set of numbers holds zero or a number that is too big")
        return value

    def flag(self) -> str:
        return ("\\" if self.accept(b"\\") else "") + self.atom()

    def flags(self) -> tuple[str, ...]:
        """A parenthesised list, or flags without parentheses (STORE allows both)."""
        names: list[str] = []
        if not self.accept(b"("):
            names.append(self.flag())
            while self.accept(b" "):
                names.append(self.flag())
            return tuple(names)
        while not self.accept(b")"):
            if names:
                self.space()
            names.append(self.flag())
        return tuple(names)

    def day(self) -> date:
        match = _DATE.match(self.line, self.at)
        if match is None:
            raise ParseError(f"a date is missing at octet {self.at}")
        self.at = match.end()
        return _day(match.group(3), match.group(2), match.group(1))

    def date_time(self) -> tuple[int, int]:
        """(seconds since the epoch, minutes east of UTC)."""
        match = _DATETIME.match(self.line, self.at)
        if match is None:
            raise ParseError(f"a date and time is malformed at octet {self.at}")
        self.at = match.end()
        groups = match.groups()
        zone = (int(groups[7]) * 60 + int(groups[8])) * (-1 if groups[6] == b"-" else 1)
        if abs(zone) >= 24 * 60:
            raise ParseError("the zone does not exist")
        day = _day(groups[2], groups[1], groups[0])
        try:
            hour, minute, second = (int(group) for group in groups[3:6])
            moment = datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=UTC)
        except ValueError:
            raise ParseError("the time does not exist") from None
        return int(moment.timestamp()) - zone * 60, zone


def _day(year: bytes, month: bytes, day: bytes) -> date:
    try:
        return date(int(year), _MONTHS.index(month.decode().lower()) + 1, int(day))
    except ValueError:
        raise ParseError("the date does not exist") from None

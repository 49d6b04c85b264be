"""What was said on a connection, line by line: `->` `<-` in the clear, `~>` `<~` under encryption; secrets masked, letters counted.

It is for people who look for a fault: nothing depends on it.
"""

import re
from collections.abc import Callable
from typing import Generic

from fubako.net.interface import Stream
from fubako.protocol.engine import E_co, Engine, Unfinished
from fubako.telemetry import visible

LINE_SIGNS_MAX = 200
LISTED_MAX = 5  # lines of a long answer of POP3 that are shown
_LOGIN = re.compile(rb"^(?:\S+ )?(?:AUTHENTICATE|AUTH) \S+", re.IGNORECASE)
_WORDS = re.compile(rb"^(\S+ LOGIN|PASS|APOP|USER)(?= |$)", re.IGNORECASE)
_LITERAL = re.compile(rb"\{(\d+)\+?\}$")
_LONG = re.compile(rb"^(RETR|TOP|UIDL|LIST|CAPA)\b", re.IGNORECASE)


class Transcript:
    """`tell` gets one line of text. One for each connection."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._ways = (_Way(), _Way())  # theirs, ours
        self._login = False  # what we say now is the answer to a challenge
        self._content = False  # what we say now is a letter
        self._long: list[bool] = []  # for each command of POP3 that waits: whether its answer has many lines

    def __call__(self, ours: bool, octets: bytes, sealed: bool) -> None:
        way = self._ways[ours]
        way.buffer += octets
        while way.buffer:
            if way.skip:
                taken = min(way.skip, len(way.buffer))
                way.skip, way.buffer = way.skip - taken, way.buffer[taken:]
                continue
            line, newline, rest = way.buffer.partition(b"\n")
            if not newline:
                if len(line) > 64 * 1024:
                    way.buffer = b""  # nobody's line
                return
            way.buffer = rest
            line = line.rstrip(b"\r")
            literal = _LITERAL.search(line)
            if literal:
                way.skip = int(literal[1])
            sign = ("~>" if sealed else "->") if ours else ("<~" if sealed else "<-")
            self._line(way, ours, sign, line)

    def note(self, text: str) -> None:
        self._tell(text)

    def _line(self, way: "_Way", ours: bool, sign: str, line: bytes) -> None:
        if (ours and self._content) or (not ours and way.listing):
            self._counted(way, ours, sign, line)
            return
        shown = self._masked(line) if ours else line
        if not ours:
            self._answered(way, line)
        self._say(sign, shown)

    def _counted(self, way: "_Way", ours: bool, sign: str, line: bytes) -> None:
        """A letter, or a long answer: the first lines of an answer, then how many there were."""
        if line == b".":
            self._say(sign, b". (after %d lines)" % way.lines)
            way.lines, way.listing = 0, False
            if ours:
                self._content = False
            return
        way.lines += 1
        if not ours and way.lines <= LISTED_MAX and not way.letter:
            self._say(sign, line)

    def _masked(self, line: bytes) -> bytes:
        if self._login:
            return b"***"
        login, words = _LOGIN.match(line), _WORDS.match(line)
        if login:
            self._login = True
            return login[0] + (b" ***" if len(line) > len(login[0]) else b"")
        if words:
            return words[1] + b" ***"
        long = _LONG.match(line)
        if (long and long[1].upper() in (b"RETR", b"TOP", b"CAPA")) or (long and b" " not in line.strip()):
            self._long.append(True)
            self._ways[0].letter = long is not None and long[1].upper() in (b"RETR", b"TOP")
        return line

    def _answered(self, way: "_Way", line: bytes) -> None:
        continued = line.startswith((b"+ ", b"* ", b"334", b'"', b"{")) or line in (
            b"+",
            b"",
        )  # ManageSieve has strings
        if self._login and not continued:
            self._login = False
        if line.startswith(b"354"):
            self._content = True
        if self._long and line.startswith((b"+OK", b"-ERR")):
            way.listing = self._long.pop(0) and line.startswith(b"+OK")

    def _say(self, sign: str, line: bytes) -> None:
        text = visible(line.decode("utf-8", "replace"))
        self._tell(f"{sign} {text[:LINE_SIGNS_MAX]}{' …' if len(text) > LINE_SIGNS_MAX else ''}")


class Watched(Generic[E_co]):
    """An engine that tells what goes into it and what comes out."""

    def __init__(self, engine: Engine[E_co], stream: Stream, watch: Transcript) -> None:
        self._engine, self._stream, self._watch = engine, stream, watch

    @property
    def pending(self) -> bool:
        return self._engine.pending

    @property
    def unfinished(self) -> Unfinished:
        return self._engine.unfinished

    @property
    def _sealed(self) -> bool:
        return self._stream.tls is not None or self._stream.ssh is not None or self._stream.local

    def receive(self, octets: bytes) -> None:
        self._watch(False, octets, self._sealed)
        self._engine.receive(octets)

    def next_event(self) -> E_co | None:
        return self._engine.next_event()

    def output(self) -> bytes:
        octets = self._engine.output()
        if octets:
            self._watch(True, octets, self._sealed)
        return octets

    def tls_started(self) -> None:
        self._engine.tls_started()
        facts = self._stream.tls
        self._watch.note(f"== {facts.version} {facts.cipher}" if facts is not None else "== TLS")


class _Way:
    __slots__ = ("buffer", "letter", "lines", "listing", "skip")

    def __init__(self) -> None:
        self.buffer = b""
        self.skip = 0  # octets of a literal that are left
        self.lines = 0
        self.listing = self.letter = False

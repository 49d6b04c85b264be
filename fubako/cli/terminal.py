"""`Guarded`: the only way by which text of a command reaches a terminal, a file or a pipe.

Whoever wrote the text (a certificate, a banner, a header field, a folder's name), no control character of it gets out: it
is shown as an escape, which JSON reads as the character it was. Octets that a user asked for go by `.buffer`, as they are.
"""

import errno
import io
import re
import sys
from typing import Any, TextIO

# what str.isprintable() refuses, and the few that lay out our own text
_LAYOUT = "\n\t"
_ESCAPE = re.compile(r"[^\x20-\x7e]")


def harmless(text: str) -> str:
    """`text` with each character that could steer a terminal (C0, C1, bidirectional controls, invisible ones, lone surrogates)
    as \\uXXXX."""
    if text.isascii() and text.translate(_PLAIN).isprintable():
        return text
    return _ESCAPE.sub(_shown, text)


_PLAIN = str.maketrans("", "", _LAYOUT)


def _shown(match: re.Match[str]) -> str:
    character = match[0]
    if character in _LAYOUT or character.isprintable():
        return character
    octets = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{octets[i : i + 2].hex()}" for i in range(0, len(octets), 2))


class Guarded:
    """A text stream whose writers cannot steer the terminal behind it. A carriage return counts only where a write begins with
    it: progress on one line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        start = "\r" if text.startswith("\r") else ""
        self._stream.write(start + harmless(text[len(start) :]))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Any:
        return iter(self._stream)


def guard() -> None:
    """From now on everything that this process says as text is harmless."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Guarded):
            setattr(sys, name, Guarded(_whole(stream)))


class _Whole(io.RawIOBase):
    """Writes all that it is given, where a system call takes a part."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._raw.isatty()

    def fileno(self) -> int:
        return self._raw.fileno()

    def write(self, octets: Any) -> int:
        rest = memoryview(octets).cast("B")
        size = len(rest)
        while rest:
            written = self._raw.write(rest)
            if written is None:
                raise BlockingIOError(errno.EAGAIN, "whoever reads our output does not")
            rest = rest[written:]
        return size


def _whole(stream: TextIO) -> TextIO:
    """With PYTHONUNBUFFERED a text is one system call, of which a pipe may take a part; what is left would be lost."""
    raw = getattr(stream, "buffer", None)
    if not isinstance(raw, io.RawIOBase):
        return stream
    return io.TextIOWrapper(_Whole(raw), stream.encoding, stream.errors, write_through=True)  # type: ignore[type-var]  # all that it calls is there

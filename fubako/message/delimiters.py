"""Where the delimiter lines of a message stand: `Delimiters` looks at each line that begins with `--` once, whatever number of
multiparts are open around it (RFC 2046 §5.1.1).
"""

from bisect import bisect_left
from collections.abc import Iterator

from fubako.message.limits import BOUNDARY_OCTETS_MAX, DELIMITER_LINES_MAX, FALSE_DELIMITERS_MAX

_LINE_OCTETS_MAX = BOUNDARY_OCTETS_MAX + 200  # with its hyphens, and blanks behind it


class Delimiters:
    """Of one message. Made at the first multipart; most messages have none."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._places: dict[
            bytes, list[tuple[int, int]]
        ] = {}  # what a line holds -> (where it begins, where the next one does)
        self._read_to = self._index()

    def _index(self) -> int:
        """Up to where the lines are known."""
        content, places = self._content, self._places
        position = 0 if content.startswith(b"--") else content.find(b"\n--") + 1
        if position == 0 and not content.startswith(b"--"):
            return len(content)
        for _ in range(DELIMITER_LINES_MAX):
            line_end = content.find(b"\n", position)
            next_line = len(content) if line_end < 0 else line_end + 1
            if next_line - position <= _LINE_OCTETS_MAX:
                line = content[position:next_line].rstrip(b" \t\r\n")
                places.setdefault(line, []).append((position, next_line))
            found = content.find(b"\n--", next_line - 1)
            if found < 0 or line_end < 0:
                return len(content)
            position = found + 1
        return position

    def between(self, start: int, end: int, boundary: bytes, most: int) -> list[tuple[int, int]]:
        """The ranges between delimiter lines, at most so many; without a closing delimiter the last one runs to the end."""
        ranges: list[tuple[int, int]] = []
        opened = -1
        for position, next_line, closing in self._of(start, end, b"--" + boundary):
            if opened >= 0:
                ranges.append((opened, max(opened, position - 2)))
                if len(ranges) >= most:
                    return ranges
            opened = -1 if closing else min(next_line, end)
            if closing:
                break
        if opened >= 0:
            ranges.append((opened, end))
        return ranges

    def _of(self, start: int, end: int, delimiter: bytes) -> Iterator[tuple[int, int, bool]]:
        """(place, next line, whether it closes) of the delimiter lines inside, in order."""
        if len(delimiter) > BOUNDARY_OCTETS_MAX:
            return
        opening, closing = self._places.get(delimiter, []), self._places.get(delimiter + b"--", [])
        first = bisect_left(closing, (start, 0))
        last = closing[first] if first < len(closing) and closing[first][0] < end else None
        for number in range(bisect_left(opening, (start, 0)), len(opening)):
            position, next_line = opening[number]
            if position >= end or (last is not None and position > last[0]):
                break
            yield position, next_line, False
        if last is not None:
            yield *last, True
        elif self._read_to < end:
            yield from self._behind(max(start, self._read_to), end, delimiter)

    def _behind(self, start: int, end: int, delimiter: bytes) -> Iterator[tuple[int, int, bool]]:
        """Where there are too many lines that begin with `--` to know them all: this one delimiter is looked for."""
        content, wrong = self._content, 0
        position = content.find(b"\n" + delimiter, max(start - 1, 0), end)
        while position >= 0 and wrong < FALSE_DELIMITERS_MAX:
            behind = position + 1 + len(delimiter)
            line_end = content.find(b"\n", behind, end)
            next_line = end if line_end < 0 else line_end + 1
            rest = content[behind : min(next_line, behind + _LINE_OCTETS_MAX)].rstrip(b" \t\r\n")
            if rest in (b"", b"--"):
                yield position + 1, next_line, rest == b"--"
            else:
                wrong += 1
            position = content.find(b"\n" + delimiter, next_line - 1, end)

"""MIME structure by offsets: `scan` walks a message once and gives its tree of `Part`s (RFC 2045, RFC 2046).

Invariant: every offset lies inside the content it was scanned from, and a child's range inside its parent's. What goes past a
limit (`message.limits`) is left as one opaque part, never an error; time and memory are linear in the message whatever it holds.
"""

import re
from dataclasses import dataclass, field

from fubako.message.delimiters import Delimiters
from fubako.message.headers import first_fields, header_end
from fubako.message.limits import (
    DEPTH_MAX,
    HEADERS_OCTETS_MAX,
    PARAMETER_FIELD_OCTETS_MAX,
    PARAMETERS_BEHIND_MAX,
    PARAMETERS_MAX,
    PARAMETERS_OF_MESSAGE_MAX,
    PARTS_MAX,
)

Parameters = tuple[tuple[bytes, bytes], ...]

_TOKEN = re.compile(rb"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~\x80-\xff/]+")


@dataclass(slots=True)
class Part:
    """One entity: header at [start, body), body at [body, end). `lines` counts the body's line ends."""

    start: int
    body: int
    end: int
    lines: int = 0
    type: bytes = b"text"
    subtype: bytes = b"plain"
    parameters: Parameters = ()
    fields: dict[bytes, bytes] = field(default_factory=dict)
    children: list["Part"] = field(default_factory=list)

    @property
    def multipart(self) -> bool:
        return self.type == b"multipart" and bool(self.children)

    @property
    def message(self) -> bool:
        """Whether this is a message/rfc822 (or global) whose one child is the message inside."""
        return self.type == b"message" and bool(self.children)

    @property
    def encoding(self) -> bytes:
        return self.fields.get(b"content-transfer-encoding", b"7bit").split(b";")[0].strip() or b"7bit"

    def parameter(self, name: bytes) -> bytes:
        return next((value for key, value in self.parameters if key.lower() == name), b"")


def parse_parameterised(value: bytes, count_max: int = PARAMETERS_MAX) -> tuple[bytes, Parameters]:
    """`token; name=value; name="quoted value"`: the token and the parameters, comments left out, what is malformed skipped; those
    behind `count_max` are not read."""
    value = strip_comments(value[:PARAMETER_FIELD_OCTETS_MAX])
    head, _, rest = value.partition(b";")
    return head.strip(), _parameters(rest, count_max)


def _parameters(rest: bytes, count_max: int) -> Parameters:
    found: list[tuple[bytes, bytes]] = []
    position = 0
    while position < len(rest) and len(found) < count_max:
        start = _BETWEEN.match(rest, position).end()  # type: ignore[union-attr]  # it matches nothing too
        stop = _NAME_END.search(rest, start)
        if stop is None:
            break
        position = stop.end()
        if stop.group() == b";":
            continue
        name = rest[start : stop.start()].strip()
        text, position = _parameter_value(rest, position)
        if name and _TOKEN.fullmatch(name):
            found.append((name, text))
        semicolon = rest.find(b";", position)
        position = len(rest) if semicolon < 0 else semicolon + 1
    return tuple(found)


_BETWEEN = re.compile(rb"[; \t\r\n]*+")
_NAME_END = re.compile(rb"[=;]")


def _parameter_value(rest: bytes, position: int) -> tuple[bytes, int]:
    while position < len(rest) and rest[position] in b" \t":
        position += 1
    if rest[position : position + 1] == b'"':
        return quoted_string(rest, position)
    match = _TOKEN.match(rest, position)
    if match:
        return match.group(0), match.end()
    return b"", position


def quoted_string(text: bytes, position: int) -> tuple[bytes, int]:
    """The content of the quoted string that begins at `position`, and the place behind it; an open one ends with the text."""
    out = bytearray()
    position += 1
    while position < len(text):
        octet = text[position]
        if octet == 0x5C and position + 1 < len(text):
            out.append(text[position + 1])
            position += 2
            continue
        position += 1
        if octet == 0x22:
            break
        out.append(octet)
    return bytes(out), position


def strip_comments(value: bytes) -> bytes:
    """The value without RFC 5322 comments; parentheses inside quoted strings stay."""
    if b"(" not in value:
        return value
    out = bytearray()
    depth = position = 0
    while position < len(value):
        octet = value[position]
        if octet == 0x5C and depth:
            position += 2
            continue
        if octet == 0x22 and not depth:
            end = quoted_string(value, position)[1]
            out += value[position:end]
            position = end
            continue
        if octet == 0x28:
            depth += 1
        elif octet == 0x29 and depth:
            depth -= 1
        elif not depth:
            out.append(octet)
        position += 1
    return bytes(out)


def scan(content: bytes) -> Part:
    """The tree of a whole message."""
    scanner = _Scanner(content)
    root = scanner.part(0, len(content), (b"text", b"plain"), 0)
    _count_lines(content, scanner.parts)
    return root


class _Scanner:
    """Every octet is searched once for the end of a header, whatever is nested in what."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._delimiters: Delimiters | None = None
        self._header_octets = HEADERS_OCTETS_MAX  # that are still read
        self._parameters = 0  # that were read
        self.parts: list[Part] = []

    def part(self, start: int, end: int, default: tuple[bytes, bytes], depth: int) -> Part:
        content = self._content
        body = header_end(content, start, end)
        header = content[start : min(body, start + self._header_octets)]
        self._header_octets -= len(header)
        part = Part(start, body, end, fields=first_fields(header))
        self.parts.append(part)
        part.type, part.subtype = default
        value = part.fields.get(b"content-type")
        if value:
            media, part.parameters = parse_parameterised(value, self._parameters_max())
            self._parameters += len(part.parameters)
            major, slash, minor = media.partition(b"/")
            if slash and major.strip() and minor.strip():
                part.type, part.subtype = major.strip().lower(), minor.strip().lower()
            else:
                part.type, part.subtype, part.parameters = b"text", b"plain", ()
        if depth < DEPTH_MAX:
            self._descend(part, depth)
        return part

    def _parameters_max(self) -> int:
        return PARAMETERS_MAX if self._parameters < PARAMETERS_OF_MESSAGE_MAX else PARAMETERS_BEHIND_MAX

    def _descend(self, part: Part, depth: int) -> None:
        left = PARTS_MAX - len(self.parts)
        if left <= 0:
            return
        if part.type == b"multipart":
            boundary = part.parameter(b"boundary")
            if boundary:
                inner = (b"message", b"rfc822") if part.subtype == b"digest" else (b"text", b"plain")
                self._delimiters = self._delimiters or Delimiters(self._content)
                for first, last in self._delimiters.between(part.body, part.end, boundary, left):
                    if len(self.parts) >= PARTS_MAX:
                        break
                    part.children.append(self.part(first, last, inner, depth + 1))
        elif part.type == b"message" and part.subtype in (b"rfc822", b"global"):
            if part.encoding.lower() in (b"7bit", b"8bit", b"binary"):
                part.children.append(self.part(part.body, part.end, (b"text", b"plain"), depth + 1))


def _count_lines(content: bytes, parts: list[Part]) -> None:
    """Each octet once, although parts lie within parts."""
    if len(parts) == 1:
        parts[0].lines = content.count(b"\n", parts[0].body, parts[0].end)
        return
    before: dict[int, int] = {}
    last = count = 0
    for edge in sorted({edge for part in parts for edge in (part.body, part.end)}):
        count += content.count(b"\n", last, edge)
        before[edge], last = count, edge
    for part in parts:
        part.lines = before[part.end] - before[part.body]

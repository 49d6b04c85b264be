"""MIME structure by offsets: `scan` walks a message once and gives its tree of `Part`s (RFC 2045, RFC 2046).

Invariant: every offset lies inside the content it was scanned from, and a child's range inside its parent's. Depth and
number of parts are limited; what goes past a limit is left as one opaque part, never an error.
"""

import re
from dataclasses import dataclass, field

from fubako.message.headers import first_fields, header_end

DEPTH_MAX = 50
PARTS_MAX = 2000
PARAMETERS_MAX = 100

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


def parse_parameterised(value: bytes) -> tuple[bytes, Parameters]:
    """`token; name=value; name="quoted value"`: the token and the parameters, comments left out, what is malformed skipped."""
    value = strip_comments(value)
    head, _, rest = value.partition(b";")
    return head.strip(), _parameters(rest)


def _parameters(rest: bytes) -> Parameters:
    found: list[tuple[bytes, bytes]] = []
    position = 0
    while position < len(rest) and len(found) < PARAMETERS_MAX:
        equals = rest.find(b"=", position)
        if equals < 0:
            break
        semicolon = rest.find(b";", position)
        if 0 <= semicolon < equals:
            position = semicolon + 1
            continue
        name = rest[position:equals].strip()
        text, position = _parameter_value(rest, equals + 1)
        if name and _TOKEN.fullmatch(name):
            found.append((name, text))
        semicolon = rest.find(b";", position)
        position = len(rest) if semicolon < 0 else semicolon + 1
    return tuple(found)


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
    """The tree of a whole message. Time is linear in its size times its depth of nesting."""
    budget = [PARTS_MAX]
    return _scan(content, 0, len(content), (b"text", b"plain"), 0, budget)


def _scan(content: bytes, start: int, end: int, default: tuple[bytes, bytes], depth: int, budget: list[int]) -> Part:
    budget[0] -= 1
    body = header_end(content, start, end)
    part = Part(start, body, end, fields=first_fields(content[start:body]))
    part.lines = content.count(b"\n", body, end)
    part.type, part.subtype = default
    value = part.fields.get(b"content-type")
    if value:
        media, part.parameters = parse_parameterised(value)
        major, slash, minor = media.partition(b"/")
        if slash and major.strip() and minor.strip():
            part.type, part.subtype = major.strip().lower(), minor.strip().lower()
        else:
            part.type, part.subtype, part.parameters = b"text", b"plain", ()
    if depth < DEPTH_MAX:
        _descend(content, part, depth, budget)
    return part


def _descend(content: bytes, part: Part, depth: int, budget: list[int]) -> None:
    if part.type == b"multipart":
        boundary = part.parameter(b"boundary")
        if boundary:
            inner = (b"message", b"rfc822") if part.subtype == b"digest" else (b"text", b"plain")
            for first, last in _between(content, part.body, part.end, boundary):
                if budget[0] <= 0:
                    break
                part.children.append(_scan(content, first, last, inner, depth + 1, budget))
    elif part.type == b"message" and part.subtype in (b"rfc822", b"global") and budget[0] > 0:
        if part.encoding.lower() in (b"7bit", b"8bit", b"binary"):
            part.children.append(_scan(content, part.body, part.end, (b"text", b"plain"), depth + 1, budget))


def _between(content: bytes, start: int, end: int, boundary: bytes) -> list[tuple[int, int]]:
    """The ranges between delimiter lines (RFC 2046 §5.1.1); without a closing delimiter the last one runs to the end."""
    delimiter = b"--" + boundary
    ranges: list[tuple[int, int]] = []
    opened = -1
    position = content.find(delimiter, start, end)
    while position >= 0:
        behind = position + len(delimiter)
        at_line_start = position == start or content[position - 1] == 0x0A
        closing = content.startswith(b"--", behind, end)
        tail = behind + 2 if closing else behind
        line_end = content.find(b"\n", tail, end)
        rest = content[tail : end if line_end < 0 else line_end]
        if at_line_start and not rest.strip(b" \t\r"):
            if opened >= 0:
                ranges.append((opened, max(opened, position - 2)))
            opened = -1 if closing else (end if line_end < 0 else line_end + 1)
            if closing or line_end < 0:
                break
        position = content.find(delimiter, behind, end)
    if opened >= 0:
        ranges.append((opened, end))
    return ranges

"""Header fields of a message, by offset: nothing is copied until it is asked for (RFC 5322 §2.2).

`split` finds where the header ends; `fields` walks it. Hostile input is data: a line that is no field is skipped,
a header without an end ends where the content does.
"""

from collections.abc import Iterator

from fubako.message.limits import HEADER_OCTETS_MAX


def header_end(content: bytes, start: int = 0, end: int | None = None) -> int:
    """The offset just behind the empty line that closes the header; `end` when there is none."""
    end = len(content) if end is None else end
    if content.startswith(b"\r\n", start, end):
        return start + 2
    crlf = content.find(b"\r\n\r\n", start, end)
    if crlf >= 0:
        return crlf + 4
    return end


def fields(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, raw value with its folds) in order. A line without a colon that is no continuation is left out."""
    name, start = b"", -1
    position, length = 0, len(header)
    while position < length:
        line_end = header.find(b"\r\n", position)
        next_line = length if line_end < 0 else line_end + 2
        line_end = length if line_end < 0 else line_end
        if header[position] not in b" \t":
            if start >= 0:
                yield name, header[start : position - 2]
            name, start = b"", -1
            colon = header.find(b":", position, line_end)
            if colon > position:
                name, start = header[position:colon].rstrip(b" \t"), colon + 1
        if line_end == position:
            break
        position = next_line
    if start >= 0:
        value = header[start:position]
        yield name, value.removesuffix(b"\r\n")


def raw_fields(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name in lower case, the whole field with its folds, without the last CRLF) in order, as signatures need them."""
    kept: list[bytes] = []
    name = b""
    for line in header.split(b"\r\n"):
        if not line:
            break
        if line[0] in b" \t":
            if name:
                kept.append(line)
            continue
        if name:
            yield name, b"\r\n".join(kept)
        before, colon, _ = line.partition(b":")
        name = before.rstrip(b" \t").lower() if colon else b""
        kept = [line]
    if name:
        yield name, b"\r\n".join(kept)


def unfold(value: bytes) -> bytes:
    """The value on one line: a fold's CRLF goes, its white space stays (RFC 5322 §2.2.3)."""
    if b"\r\n" in value:
        value = value.replace(b"\r\n", b"")
    return value.strip(b" \t")


def first_fields(header: bytes) -> dict[bytes, bytes]:
    """Lower-case name -> unfolded value of its first appearance; of a header that is longer than is read, the beginning counts."""
    found: dict[bytes, list[bytes]] = {}
    lines: list[bytes] = []  # of the field that a fold belongs to
    for line in header[:HEADER_OCTETS_MAX].split(b"\r\n"):
        if not line:
            break
        if line[0] in b" \t":
            lines.append(line)
            continue
        name, colon, value = line.partition(b":")
        key = name.rstrip(b" \t").lower() if colon else b""
        lines = [value]
        if key and key not in found:
            found[key] = lines
    return {key: b"".join(value).strip(b" \t") for key, value in found.items()}


def subset(header: bytes, names: frozenset[bytes], *, without: bool = False) -> bytes:
    """The fields named (lower case), or all others, exactly as they stand, and the closing empty line."""
    kept: list[bytes] = []
    keep = False
    for line in header.split(b"\r\n"):
        if not line:
            break
        if line[0] not in b" \t":
            name = line.split(b":", 1)[0].rstrip(b" \t").lower()
            keep = (name in names) is not without
        if keep:
            kept.append(line)
    return b"\r\n".join([*kept, b"", b""])

"""FETCH items (RFC 9051 §6.4.5, RFC 3516 BINARY, RFC 7162 MODSEQ, RFC 8514 SAVEDATE)."""

from fubako.protocol.imap.cursor import Cursor, ParseError
from fubako.protocol.imap.types import Section

ITEMS_MAX = 100
MACROS: dict[str, tuple[str, ...]] = {
    "ALL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE"),
    "FAST": ("FLAGS", "INTERNALDATE", "RFC822.SIZE"),
    "FULL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY"),
}
PLAIN = frozenset({"FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODYSTRUCTURE", "UID", "MODSEQ", "SAVEDATE"})
_WHOLE = {
    "RFC822": Section(alias=b"RFC822"),
    "RFC822.HEADER": Section(text="HEADER", peek=True, alias=b"RFC822.HEADER"),
    "RFC822.TEXT": Section(text="TEXT", alias=b"RFC822.TEXT"),
}


def fetch_items(cursor: Cursor) -> tuple[str | Section, ...]:
    if cursor.accept(b"("):
        items: list[str | Section] = []
        while not cursor.accept(b")"):
            if items:
                cursor.space()
            items += _item(cursor)
            if len(items) > ITEMS_MAX:
                raise ParseError("too many FETCH items")
        if not items:
            raise ParseError("FETCH needs an item")
        return tuple(dict.fromkeys(items))
    start = cursor.at
    name = _name(cursor)
    if name in MACROS:
        return MACROS[name]
    cursor.at = start
    return tuple(_item(cursor))


def _name(cursor: Cursor) -> str:
    end = cursor.at
    while end < len(cursor.line) and cursor.line[end] not in b" ()[<":
        end += 1
    name = cursor.line[cursor.at : end].decode("ascii", "replace").upper()
    cursor.at = end
    return name


def _item(cursor: Cursor) -> list[str | Section]:
    name = _name(cursor)
    if name in PLAIN:
        return [name]
    if name in _WHOLE:
        return [_WHOLE[name]]
    if name == "BODY" and not cursor.peek(b"["):
        return [name]
    if name in ("BODY", "BODY.PEEK"):
        return [_body(cursor, peek=name == "BODY.PEEK")]
    if name in ("BINARY", "BINARY.PEEK", "BINARY.SIZE"):
        return [_binary(cursor, name)]
    raise ParseError("a FETCH item is not known")


def _body(cursor: Cursor, *, peek: bool) -> Section:
    cursor.expect(b"[")
    parts = _parts(cursor)
    text = ""
    fields: tuple[bytes, ...] = ()
    if not cursor.peek(b"]"):
        text = _name_in_section(cursor)
        if text not in ("HEADER", "HEADER.FIELDS", "HEADER.FIELDS.NOT", "TEXT", "MIME") or (
            text == "MIME" and not parts
        ):
            raise ParseError("a section is malformed")
        if text.startswith("HEADER.FIELDS"):
            cursor.space()
            fields = _fields(cursor)
    cursor.expect(b"]")
    shown = b".".join(str(part).encode() for part in parts)
    if text:
        shown += (b"." if parts else b"") + text.encode()
    if fields:
        shown += b" (" + b" ".join(_shown(name) for name in fields) + b")"
    return Section(parts, text, fields, _partial(cursor), peek, label=b"BODY[" + shown + b"]")


def _shown(name: bytes) -> bytes:
    return name if name.isascii() and name.replace(b"-", b"").isalnum() else b'"' + name.replace(b'"', b"") + b'"'


def _name_in_section(cursor: Cursor) -> str:
    end = cursor.at
    while end < len(cursor.line) and cursor.line[end] not in b" ]":
        end += 1
    name = cursor.line[cursor.at : end].decode("ascii", "replace").upper()
    cursor.at = end
    return name


def _parts(cursor: Cursor) -> tuple[int, ...]:
    parts: list[int] = []
    while cursor.line[cursor.at : cursor.at + 1].isdigit():
        number = cursor.number()
        if not number or len(parts) > 100:
            raise ParseError("a part number is malformed")
        parts.append(number)
        if not cursor.accept(b"."):
            break
    return tuple(parts)


def _fields(cursor: Cursor) -> tuple[bytes, ...]:
    cursor.expect(b"(")
    names: list[bytes] = []
    while not cursor.accept(b")"):
        if names:
            cursor.space()
        names.append(cursor.astring().encode())
        if len(names) > ITEMS_MAX:
            raise ParseError("too many header fields")
    if not names:
        raise ParseError("a header field name is missing")
    return tuple(names)


def _partial(cursor: Cursor) -> tuple[int, int] | None:
    if not cursor.accept(b"<"):
        return None
    start = cursor.number()
    cursor.expect(b".")
    length = cursor.number()
    cursor.expect(b">")
    if not length:
        raise ParseError("a partial length is zero")
    return start, length


def _binary(cursor: Cursor, name: str) -> Section:
    cursor.expect(b"[")
    parts = _parts(cursor)
    cursor.expect(b"]")
    size = name == "BINARY.SIZE"
    shown = b".".join(str(part).encode() for part in parts)
    label = (b"BINARY.SIZE[" if size else b"BINARY[") + shown + b"]"
    partial = None if size else _partial(cursor)
    peek = size or name == "BINARY.PEEK"
    return Section(parts, partial=partial, peek=peek, binary=True, size_only=size, label=label)

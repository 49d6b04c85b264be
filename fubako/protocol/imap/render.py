"""Values -> IMAP's text: strings, ENVELOPE, BODYSTRUCTURE, sets, dates (RFC 9051 §7.5.2, §9).

ENVELOPE and BODYSTRUCTURE are rendered once, when a message comes, and kept; every octet of them is safe to send.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from fubako.message.dates import local_day
from fubako.message.limits import PARAMETERS_BEHIND_MAX, PARAMETERS_MAX, PARAMETERS_OF_MESSAGE_MAX
from fubako.message.mailboxes import Mailbox, parse_list
from fubako.message.mime import Part, parse_parameterised

_PLAIN_QUOTED = re.compile(rb"[\x20\x21\x23-\x5b\x5d-\x7e]*")
_ATOM = re.compile(r"[A-Za-z0-9!#$&'+,./:;<=>?@^_`|~-]+")
STRUCTURE_PARTS_MAX = 500
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def string(value: bytes) -> bytes:
    """A quoted string where it can be one, a literal where it must; NUL is left out (no string can hold it)."""
    if _PLAIN_QUOTED.fullmatch(value):
        return b'"' + value + b'"'
    value = value.replace(b"\x00", b"")
    if b"\r" in value or b"\n" in value or not value.isascii() or any(c < 32 or c == 127 for c in value):
        return b"{%d}\r\n%b" % (len(value), value)
    return b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def nstring(value: bytes | None) -> bytes:
    return b"NIL" if value is None else string(value)


def astring(text: str) -> bytes:
    """A mailbox name: an atom where it can be one, else quoted (UTF-8 only where it was enabled)."""
    if _ATOM.fullmatch(text) and text.upper() != "NIL":
        return text.encode()
    return b'"' + text.replace("\\", "\\\\").replace('"', '\\"').encode("utf-8", "replace") + b'"'


# -- ENVELOPE


def envelope(fields: dict[bytes, bytes]) -> bytes:
    """From the header's first fields (lower-case names, unfolded values)."""
    sender = _addresses(fields.get(b"from"))
    parts = [
        nstring(fields.get(b"date")),
        nstring(fields.get(b"subject")),
        sender,
        _addresses(fields.get(b"sender"), sender),
        _addresses(fields.get(b"reply-to"), sender),
        _addresses(fields.get(b"to")),
        _addresses(fields.get(b"cc")),
        _addresses(fields.get(b"bcc")),
        nstring(fields.get(b"in-reply-to")),
        nstring(fields.get(b"message-id")),
    ]
    return b"(" + b" ".join(parts) + b")"


def _addresses(value: bytes | None, absent: bytes = b"NIL") -> bytes:
    found = parse_list(value) if value else []
    if not found:
        return absent
    return b"(" + b"".join(map(_address, found)) + b")"


def _address(box: Mailbox) -> bytes:
    return b"(%b %b %b %b)" % (nstring(box.name), nstring(box.route), nstring(box.mailbox), nstring(box.host))


# -- BODYSTRUCTURE


def body_structure(part: Part, *, extended: bool = True) -> bytes:
    """BODYSTRUCTURE, or BODY without `extended`. Beyond a number of parts what is left is shown as text."""
    return _structure(part, extended, [STRUCTURE_PARTS_MAX, PARAMETERS_OF_MESSAGE_MAX])


def _structure(part: Part, extended: bool, budget: list[int]) -> bytes:
    """`budget`: parts, and parameters of Content-Disposition, that are still read."""
    budget[0] -= 1
    if part.multipart and budget[0] > 0:
        inner = b"".join(_structure(child, extended, budget) for child in part.children)
        shown = inner + b" " + string(part.subtype.upper())
        if extended:
            shown += b" " + _parameters(part.parameters) + _extension(part, budget)
        return b"(" + shown + b")"
    kind, subtype = (part.type, part.subtype) if part.type != b"multipart" else (b"text", b"plain")
    fields = part.fields
    shown = b"%b %b %b %b %b %b %d" % (
        string(kind.upper()),
        string(subtype.upper()),
        _parameters(part.parameters) if part.type != b"multipart" else b"NIL",
        nstring(fields.get(b"content-id")),
        nstring(fields.get(b"content-description")),
        string(part.encoding.upper()),
        part.end - part.body,
    )
    if part.message and budget[0] > 0:
        child = part.children[0]
        shown += b" %b %b %d" % (envelope(child.fields), _structure(child, extended, budget), part.lines)
    elif kind == b"text":
        shown += b" %d" % part.lines
    if extended:
        shown += b" " + nstring(fields.get(b"content-md5")) + _extension(part, budget)
    return b"(" + shown + b")"


def _parameters(parameters: Sequence[tuple[bytes, bytes]]) -> bytes:
    if not parameters:
        return b"NIL"
    return b"(" + b" ".join(string(name.upper()) + b" " + string(value) for name, value in parameters) + b")"


def _extension(part: Part, budget: list[int]) -> bytes:
    """Disposition, language, location (RFC 9051 §7.5.2)."""
    disposition = b"NIL"
    value = part.fields.get(b"content-disposition")
    if value:
        name, parameters = parse_parameterised(value, PARAMETERS_MAX if budget[1] > 0 else PARAMETERS_BEHIND_MAX)
        budget[1] -= len(parameters)
        if name:
            disposition = b"(" + string(name.upper()) + b" " + _parameters(parameters) + b")"
    language = part.fields.get(b"content-language")
    words = [word.strip() for word in language.split(b",") if word.strip()] if language else []
    if not words:
        shown = b"NIL"
    elif len(words) == 1:
        shown = string(words[0])
    else:
        shown = b"(" + b" ".join(map(string, words)) + b")"
    return b" " + disposition + b" " + shown + b" " + nstring(part.fields.get(b"content-location"))


# -- numbers and dates


def number_set(numbers: Iterable[int]) -> bytes:
    """`1:3,7` for sorted numbers."""
    out: list[str] = []
    first = last = 0
    for number in numbers:
        if first and number == last + 1:
            last = number
            continue
        if first:
            out.append(str(first) if first == last else f"{first}:{last}")
        first = last = number
    if first:
        out.append(str(first) if first == last else f"{first}:{last}")
    return ",".join(out).encode()


def number_list(numbers: Sequence[int]) -> bytes:
    """Like `number_set`, but in the order given (COPYUID)."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}:{high}" for low, high in runs).encode()


@lru_cache(maxsize=4096)
def _day(days: int) -> str:
    """`days` since the epoch."""
    when = local_day(days * 86400, 0)
    return f"{when.day:2d}-{_MONTHS[when.month - 1]}-{when.year:04d}"


def date_time(seconds: int, zone: int) -> bytes:
    """` 1-Jan-2026 09:08:07 +0900`, without quotes."""
    local = seconds + zone * 60
    days, left = divmod(local, 86400)
    sign, minutes = ("-", -zone) if zone < 0 else ("+", zone)
    minutes = min(minutes, 99 * 60 + 59)  # four digits, whatever an older program let in
    clock = f"{left // 3600:02d}:{left // 60 % 60:02d}:{left % 60:02d}"
    return f"{_day(days)} {clock} {sign}{minutes // 60:02d}{minutes % 60:02d}".encode()

"""Whether readers may disagree about who wrote a message: `author_is_ambiguous(content)` gives the reason, or None.

What DMARC judged, what Authentication-Results names and what a person sees must be the same author. Where the From field is written
so that one reader finds another author than the next one (several fields, a line that ends the header for some, octets that are no
text, a grammar that few know), nobody can be believed: callers refuse such a message or mark it, by their own table. The rule is a
narrow grammar, not a list of tricks: whatever is not plainly `a@b`, `Name <a@b>`, `"Name" <a@b>` or `a@b (Name)`, or a list of
these, is ambiguous (a subset of RFC 5322 §3.4 without §4.4). Whoever reads the author with `message.mailboxes` gets what every
reader gets where this says None.

`field_is_ambiguous` asks the same of any field that stands once. Pure and linear; limits are named.
"""

import binascii
import re
from enum import StrEnum

from fubako.message.headers import header_end, unfold
from fubako.message.octets import irregularity

FROM_OCTETS_MAX = 8192  # some readers cut a longer value
AUTHORS_MAX = 20


class Ambiguity(StrEnum):
    """The reasons, in words that a reply and a header field can carry; `of` says them of another field than From."""

    IRREGULAR = "the header holds NUL, or a CR or LF that is no line end"
    MISSING = "there is no From field"
    SEVERAL = "there are several From fields"
    NO_FIELD = "a line in front of it is no header field"
    NAME = "a field's name is not written as every reader knows it"
    BLANK_LINE = "a line of nothing but white space stands in it"
    TOO_LONG = "the From field is too long, or names too many"
    GRAMMAR = "the From field is not written as an address that every reader reads alike"
    CHARSET = "an address in it is no text"
    ENCODED = "an encoded word stands where an address does, or hides one"
    EMPTY = "the From field names nobody"

    def of(self, field: str) -> str:
        """The same words of another field."""
        return self.replace("From", field)


def author_is_ambiguous(content: bytes, name: bytes = b"from") -> Ambiguity | None:
    """Why readers may disagree about the author of this message, or None. `content` is the whole message, or its header.

    `name` (lower case): another field that stands once and names people: Sender.
    """
    header = content[: header_end(content)]
    reason, value = _only(header, name)
    return reason or addresses_are_ambiguous(value)


def field_is_ambiguous(content: bytes, name: bytes) -> Ambiguity | None:
    """The same for another field (lower-case name) whose value has no grammar: readers find the same one, or none, or they may not.
    Ambiguity.MISSING is never given: all agree that there is none."""
    reason, _ = _only(content[: header_end(content)], name)
    return None if reason is Ambiguity.MISSING else reason


def _only(header: bytes, wanted: bytes) -> tuple[Ambiguity | None, bytes]:
    """The unfolded value of the one field of this name, or why there is none for everybody."""
    if irregularity(header, long_lines=True) is not None:
        return Ambiguity.IRREGULAR, b""
    found: list[list[bytes]] = []
    odd: Ambiguity | None = None  # of the lines so far: behind them readers are no longer together
    inside: Ambiguity | None = None  # of the field itself
    reading = False
    for number, line in enumerate(header.split(b"\r\n")):
        if not line:
            break
        if line[0] in b" \t":
            if number == 0 or not line.strip(b" \t"):
                odd = odd or (Ambiguity.BLANK_LINE if number else Ambiguity.NO_FIELD)
                inside = inside or (odd if reading else None)
            elif reading:
                found[-1].append(line)
            continue
        name, colon, value = line.partition(b":")
        reading = bool(colon) and name.lower() == wanted
        if reading and odd is not None:
            return odd, b""
        if reading:
            found.append([value])
        elif not colon or not name or _NOT_IN_A_NAME.search(name):
            if _LETTERS.sub(b"", name.lower()[: len(wanted) + 64]) == wanted:
                return (
                    Ambiguity.NAME,
                    b"",
                )  # some leave out what they do not know: `From `, `Fr\xadom`, a name that is folded
            odd = odd or Ambiguity.NO_FIELD
    if len(found) != 1:
        return (Ambiguity.SEVERAL if found else Ambiguity.MISSING), b""
    return inside, unfold(b"\r\n".join(found[0]))


_NOT_IN_A_NAME = re.compile(rb"[^!-9;-~]")
_LETTERS = re.compile(rb"[^a-z-]+")


# -- the value

_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]"
_LOCAL = _ATOM + rb"++(?:\." + _ATOM + rb"++)*+"
_LABEL = rb"[A-Za-z0-9_\x80-\xff-]++"
_DOMAIN = rb"(?:" + _LABEL + rb"(?:\." + _LABEL + rb")*+|\[[0-9A-Za-z.:]++\])"
_SPEC = rb"(" + _LOCAL + rb"@" + _DOMAIN + rb")"
# a dot that begins a phrase begins an address for some
_WORDS = rb"(?:" + _ATOM + rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff. \t-]*+)?+"
_QUOTED = rb'"(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\x20-\x7e])*+"'
_SPEC_ALONE = re.compile(_SPEC + rb"(?:[ \t]++\(([^()\\\"<>@\x00-\x08\x0a-\x1f\x7f]*+)\))?+[ \t]*+")
_NAMED = re.compile(rb"(?:" + _QUOTED + rb"[ \t]*+|" + _WORDS + rb")<" + _SPEC + rb">[ \t]*+")
_COMMA = re.compile(rb",[ \t]*+")
_ENCODED_WORD = re.compile(rb"=\?[^?\s]++\?([BbQq])\?([^?\s]*+)\?=")


def addresses_are_ambiguous(value: bytes) -> Ambiguity | None:
    """The same of an unfolded list of addresses alone."""
    if len(value) > FROM_OCTETS_MAX:
        return Ambiguity.TOO_LONG
    if not value:
        return Ambiguity.EMPTY
    position = 0
    for _ in range(AUTHORS_MAX):
        match = _SPEC_ALONE.match(value, position) or _NAMED.match(value, position)
        if match is None:
            return Ambiguity.GRAMMAR
        reason = _judge_author(match.group(), match.group(1))
        if reason is not None:
            return reason
        position = match.end()
        if position == len(value):
            return None
        comma = _COMMA.match(value, position)
        if comma is None:
            return Ambiguity.GRAMMAR
        position = comma.end()
    return Ambiguity.TOO_LONG


def _judge_author(written: bytes, spec: bytes) -> Ambiguity | None:
    try:
        spec.decode("utf-8")
    except UnicodeDecodeError:
        return Ambiguity.CHARSET
    if b"=?" in spec or b"?=" in spec:
        return Ambiguity.ENCODED
    for word in _ENCODED_WORD.finditer(written):
        shown = _decoded(word.group(1), word.group(2))
        # readers that decode before they parse see another address, or another field
        if b"\r" in shown or b"\n" in shown or b"\0" in shown or (b"<" in shown and b"@" in shown):
            return Ambiguity.ENCODED
    return None


def _decoded(kind: bytes, text: bytes) -> bytes:
    """The octets of an encoded word (RFC 2047 §4); what cannot be read is shown as it stands."""
    if kind in b"qQ":
        return re.sub(rb"=([0-9A-Fa-f]{2})", lambda match: bytes([int(match.group(1), 16)]), text)
    try:
        return binascii.a2b_base64(text + b"=" * (-len(text) % 4))
    except ValueError:
        return text

"""Address lists in header fields (RFC 5322 §3.4): `parse_list` reads From, To, Cc … as IMAP's ENVELOPE shows them.

Hostile input gives fewer or odder addresses, never an error.
"""

import re
from dataclasses import dataclass

from fubako.message.limits import ADDRESS_FIELD_OCTETS_MAX, ADDRESSES_MAX, TOKENS_MAX
from fubako.message.mime import quoted_string


@dataclass(frozen=True, slots=True)
class Mailbox:
    """The four fields of an IMAP address (RFC 9051 §7.5.2): None is NIL. A group begins with mailbox set and host None,
    and ends with both None."""

    name: bytes | None
    route: bytes | None
    mailbox: bytes | None
    host: bytes | None


_SIMPLE = re.compile(rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+")
_NAMED = re.compile(
    rb"([A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]*[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]) *<([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+)@([A-Za-z0-9.-]+)>"
)
_SPECIALS = b'()<>[]:;@,"'
_ATOM_TEXT = re.compile(rb'[^()<>\[\]:;@,"\s\\]+')

Token = tuple[str, bytes]  # ("atom" | "quoted" | "literal" | "special" | "space" | "comment", octets)


def parse_list(value: bytes) -> list[Mailbox]:
    """Every address of an unfolded header value, groups included, in order."""
    value = value[:ADDRESS_FIELD_OCTETS_MAX]
    plain = _plain(value.strip()) if value.count(b",") < ADDRESSES_MAX else None
    return _List(_tokens(value)).read() if plain is None else plain


def _plain(value: bytes) -> list[Mailbox] | None:
    """What nearly every list is: `a@b` and `Words <a@b>` between commas. None where a piece is anything else."""
    found: list[Mailbox] = []
    for piece in value.split(b","):
        piece = piece.strip()
        if _SIMPLE.fullmatch(piece):
            local, _, host = piece.partition(b"@")
            found.append(Mailbox(None, None, local, host))
            continue
        named = _NAMED.fullmatch(piece)
        if named is None or b"  " in piece:  # several blanks are one
            return None
        found.append(Mailbox(named.group(1).strip(), None, named.group(2), named.group(3)))
    return found


def _tokens(value: bytes) -> list[Token]:
    tokens: list[Token] = []
    position = 0
    while position < len(value) and len(tokens) < TOKENS_MAX:
        octet = value[position]
        if octet in b" \t\r\n":
            if not tokens or tokens[-1][0] != "space":
                tokens.append(("space", b" "))
            position += 1
        elif octet == 0x22:
            text, position = quoted_string(value, position)
            tokens.append(("quoted", text))
        elif octet == 0x28:
            text, position = _comment(value, position)
            tokens.append(("comment", text))
        elif octet == 0x5B:
            end = value.find(b"]", position)
            end = len(value) if end < 0 else end + 1
            tokens.append(("literal", value[position:end]))
            position = end
        elif octet in _SPECIALS or octet == 0x5C:
            tokens.append(("special", value[position : position + 1]))
            position += 1
        else:
            match = _ATOM_TEXT.match(value, position)
            text = match.group(0) if match else value[position : position + 1]
            tokens.append(("atom", text))
            position += len(text)
    return tokens


def _comment(value: bytes, position: int) -> tuple[bytes, int]:
    out = bytearray()
    depth = 0
    while position < len(value):
        octet = value[position]
        position += 1
        if octet == 0x5C and position < len(value):
            out.append(value[position])
            position += 1
            continue
        if octet == 0x28:
            depth += 1
            if depth == 1:
                continue
        elif octet == 0x29:
            depth -= 1
            if not depth:
                break
        out.append(octet)
    return bytes(out).strip(), position


class _List:
    """One pass over the tokens. `words` collects what stands before a sign that tells what it was."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.position = 0
        self.found: list[Mailbox] = []
        self.in_group = False

    def read(self) -> list[Mailbox]:
        start = self.position
        while self.position < len(self.tokens) and len(self.found) < ADDRESSES_MAX:
            kind, text = self.tokens[self.position]
            if kind == "special" and text in (b",", b";", b":", b"<"):
                before = self.tokens[start : self.position]
                self.position += 1
                self._sign(text, before)
                start = self.position
            else:
                self.position += 1
        self._bare(self.tokens[start:])
        if self.in_group:
            self.found.append(Mailbox(None, None, None, None))
        return self.found

    def _sign(self, sign: bytes, before: list[Token]) -> None:
        if sign == b"<":
            self._angle(_phrase(before))
        elif sign == b":":
            self.found.append(Mailbox(None, None, _phrase(before) or b"", None))
            self.in_group = True
        else:
            self._bare(before)
            if sign == b";" and self.in_group:
                self.found.append(Mailbox(None, None, None, None))
                self.in_group = False

    def _angle(self, name: bytes | None) -> None:
        """`<[@route:]local@domain>`; a missing bracket ends with the list. A comment behind gives the name if none stood before."""
        start = self.position
        while self.position < len(self.tokens) and self.tokens[self.position] != ("special", b">"):
            self.position += 1
        inner = self.tokens[start : self.position]
        self.position += 1
        route: bytes | None = None
        colon = next((i for i, token in enumerate(inner) if token == ("special", b":")), -1)
        if colon >= 0 and inner and inner[0] == ("special", b"@"):
            route, inner = _joined(inner[:colon]), inner[colon + 1 :]
        while self.position < len(self.tokens) and self.tokens[self.position][0] in ("space", "comment"):
            kind, text = self.tokens[self.position]
            name = name or (text if kind == "comment" else None)
            self.position += 1
        local, host = _split(inner)
        if local is not None or host is not None or name is not None:
            self.found.append(Mailbox(name, route, local or b"", host or b""))

    def _bare(self, tokens: list[Token]) -> None:
        """`local@domain (comment)`: the comment is the name (RFC 5322 §3.4, older usage)."""
        local, host = _split(tokens)
        if local is None and host is None:
            return
        comment = next((text for kind, text in tokens if kind == "comment"), None)
        self.found.append(Mailbox(comment, None, local or b"", host or b""))


def _joined(tokens: list[Token]) -> bytes:
    return b"".join(text for kind, text in tokens if kind not in ("space", "comment"))


def _phrase(tokens: list[Token]) -> bytes | None:
    """Words with single blanks between them; None when there are none."""
    out: list[bytes] = []
    spaced = False
    for kind, text in tokens:
        if kind == "space" or kind == "comment":
            spaced = bool(out)
            continue
        if spaced:
            out.append(b" ")
        out.append(text)
        spaced = False
    return b"".join(out) or None


def _split(tokens: list[Token]) -> tuple[bytes | None, bytes | None]:
    solid = [token for token in tokens if token[0] not in ("space", "comment")]
    if not solid:
        return None, None
    for index, token in enumerate(solid):
        if token == ("special", b"@"):
            return _joined(solid[:index]), _joined(solid[index + 1 :])
    return _phrase(tokens), None

"""Masquerading: letters leave under one name, whichever machine wrote them, as sendmail's configuration knows it. Pure.

`MASQUERADE_AS`, `MASQUERADE_DOMAIN`, and the features always_add_domain, masquerade_entire_domain, masquerade_envelope.
"""

import re
from dataclasses import dataclass

from fubako.message.address import Address
from fubako.message.headers import header_end

_SENDERS = frozenset({b"from", b"sender", b"reply-to", b"resent-from", b"resent-sender", b"resent-reply-to"})
_RECIPIENTS = frozenset({b"to", b"cc", b"resent-to", b"resent-cc"})
_HOST = re.compile(rb"@([A-Za-z0-9_.\-]+)")
_PLAIN = re.compile(rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\-]+")
# linear: possessive, and nothing fails behind; what is not closed goes on to the end of the line
_SKIPPED = re.compile(rb'"(?:[^"\\]|\\.?)*+"?|\((?:[^()\\]|\\.?)*+\)?')


@dataclass(frozen=True, slots=True)
class Masquerade:
    """`name` is shown instead of `domains`, and with `entire` of everything below them; `exposed` are local parts that keep
    theirs. `add_domain`: addresses without a domain get `name`. `envelope`: the reverse path too."""

    name: str
    domains: frozenset[str] = frozenset()
    entire: bool = False
    envelope: bool = False
    add_domain: bool = False
    exposed: frozenset[str] = frozenset({"root"})

    def hides(self, domain: str) -> bool:
        domain = domain.lower()
        if domain == self.name or (self.entire and domain.endswith(f".{self.name}")):
            return True
        return domain in self.domains or (self.entire and any(domain.endswith(f".{one}") for one in self.domains))

    def address(self, address: Address) -> Address:
        """The reverse path of a letter that leaves."""
        if not address:
            return address
        if not address.domain:
            return Address(address.local, self.name) if self.add_domain else address
        if self.envelope and self.hides(address.domain) and address.local.lower() not in self.exposed:
            return Address(address.local, self.name)
        return address

    def content(self, content: bytes) -> bytes:
        """The letter with its header rewritten; the body is not looked at."""
        end = header_end(content)
        out: list[bytes] = []
        kind = b""
        for line in content[:end].split(b"\r\n"):
            if line[:1] not in (b" ", b"\t"):
                name, colon, value = line.partition(b":")
                kind = name.rstrip(b" \t").lower() if colon else b""
                if kind in _SENDERS or kind in _RECIPIENTS:
                    line = name + colon + self._value(value, hide=kind in _SENDERS)
            elif kind in _SENDERS or kind in _RECIPIENTS:
                line = self._value(line, hide=kind in _SENDERS)
            out.append(line)
        return b"\r\n".join(out) + content[end:]

    def _value(self, value: bytes, *, hide: bool) -> bytes:
        """One line of an address list; quoted strings and comments stay as they are."""
        out, position = [], 0
        for skipped in [*_SKIPPED.finditer(value), None]:
            until = skipped.start() if skipped else len(value)
            out.append(self._piece(value[position:until], hide=hide))
            if skipped:
                out.append(skipped.group())
                position = skipped.end()
        return b"".join(out)

    def _piece(self, piece: bytes, *, hide: bool) -> bytes:
        if hide:
            behind = 0  # the last host: no octet is read twice, however many addresses there are

            def shown(match: "re.Match[bytes]") -> bytes:
                nonlocal behind
                local = re.split(rb"[\s<,:]", piece[behind : match.start()])[-1].decode("utf-8", "replace").lower()
                behind = match.end()
                hidden = self.hides(match.group(1).decode()) and local not in self.exposed
                return b"@" + self.name.encode() if hidden else match.group()

            piece = _HOST.sub(shown, piece)
        if self.add_domain:
            piece = b",".join(self._with_domain(part) for part in piece.split(b","))
        return piece

    def _with_domain(self, part: bytes) -> bytes:
        word = part.strip()
        if b"<" in part:
            return re.sub(rb"<([^<>@\s]+)>", rb"<\1@" + self.name.encode() + b">", part)
        if word and _PLAIN.fullmatch(word):
            return part.replace(word, word + b"@" + self.name.encode())
        return part

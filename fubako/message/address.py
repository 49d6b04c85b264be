"""Mail addresses as SMTP knows them: `Address` and `parse_path` (RFC 5321 §4.1.2, RFC 6531 §3.3).

A value that exists is valid: no control character, no bare CR or LF, lengths within RFC 5321 §4.5.3.1.
"""

import re
from functools import lru_cache

from msgspec import Struct

LOCAL_OCTETS_MAX = 200  # RFC 5321 §4.5.3.1.1 asks for 64 at least; forwarded and tagged addresses are longer
DOMAIN_OCTETS_MAX = 255
PATH_OCTETS_MAX = 512

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+"
_DOT_STRING = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e\x80-\U0010ffff]|\\[\x20-\x7e])*)"')
_LABEL = r"[A-Za-z0-9_\x80-\U0010ffff](?:[A-Za-z0-9_\x80-\U0010ffff-]*[A-Za-z0-9_\x80-\U0010ffff])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?|\[[\x21-\x5a\x5e-\x7e]+\]")
_SIMPLE_LABEL = r"[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*"
# nearly all there are
_SIMPLE = re.compile(rf"([A-Za-z0-9_+=-]+(?:\.[A-Za-z0-9_+=-]+)*)@({_SIMPLE_LABEL}(?:\.{_SIMPLE_LABEL})+)")
_SOURCE_ROUTE = re.compile(r"@[^:>]*:")


class AddressError(ValueError):
    """The text is no address; the message says why."""


class Address(Struct, frozen=True):
    """`local@domain`; the domain in lower case, the local part as written, unquoted. Both empty: the null path."""

    local: str
    domain: str

    def __str__(self) -> str:
        if not self.domain:
            return self.local
        return f"{_written(self.local)}@{self.domain}"

    def __bool__(self) -> bool:
        return bool(self.local or self.domain)

    @property
    def ascii(self) -> bool:
        return self.local.isascii() and self.domain.isascii()

    @property
    def key(self) -> str:
        """The form under which mailboxes are looked up: all in lower case (RFC 5321 §2.4 leaves that to the host)."""
        return f"{self.local}@{self.domain}".lower()


@lru_cache(maxsize=4096)
def _written(local: str) -> str:
    """As a path has it: quoted where it must be."""
    if _DOT_STRING.fullmatch(local):
        return local
    return '"' + re.sub(r'(["\\])', r"\\\1", local) + '"'


NULL = Address("", "")


def parse_address(text: str) -> Address:
    """`local@domain` without brackets. Raises AddressError."""
    simple = _SIMPLE.fullmatch(text)
    if simple and len(text) <= LOCAL_OCTETS_MAX:
        return Address(simple.group(1), simple.group(2).lower())
    quoted = _QUOTED.match(text)
    plain = quoted or _DOT_STRING.match(text)
    if plain is None:
        raise AddressError("the local part is missing or holds a character that is not allowed")
    local = re.sub(r"\\(.)", r"\1", quoted.group(1)) if quoted else plain.group(0)
    rest = text[plain.end() :]
    if not rest.startswith("@"):
        raise AddressError("there is no @ behind the local part")
    domain = rest[1:]
    if not _DOMAIN.fullmatch(domain):
        raise AddressError("the domain is not a valid name")
    if _octets(local) > LOCAL_OCTETS_MAX or _octets(domain) > DOMAIN_OCTETS_MAX:
        raise AddressError("the address is too long")
    return Address(local, domain.rstrip(".").lower())


def _octets(text: str) -> int:
    """How long it is on the wire. Raises AddressError for what cannot be said there: octets of an argument that are not UTF-8."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise AddressError("the address is not UTF-8") from None


_SIMPLE_PATH = re.compile(f"<{_SIMPLE.pattern}>")


def parse_path(text: str, *, null_ok: bool = False) -> tuple[Address, str]:
    """`<path>` and what stands behind it. A source route is read and dropped (RFC 5321 §4.1.1.3).

    `<postmaster>` without a domain is allowed (§4.1.1.3), `<>` only with `null_ok`. Raises AddressError.
    """
    simple = _SIMPLE_PATH.match(text)
    if simple and simple.end() < LOCAL_OCTETS_MAX:
        return Address(simple.group(1), simple.group(2).lower()), text[simple.end() :]
    if not text.startswith("<"):
        raise AddressError("a path stands in angle brackets")
    end = _path_end(text)
    path, rest = text[1:end], text[end + 1 :]
    if _octets(path) > PATH_OCTETS_MAX:
        raise AddressError("the path is too long")
    if not path:
        if null_ok:
            return NULL, rest
        raise AddressError("the null path is not allowed here")
    route = _SOURCE_ROUTE.match(path)
    if route:
        path = path[route.end() :]
    if path.lower() == "postmaster":
        return Address(path, ""), rest
    return parse_address(path), rest


def _path_end(text: str) -> int:
    """The place of the closing bracket; a quoted local part may hold brackets of its own."""
    quoted, position = False, 1
    while position < len(text):
        character = text[position]
        if quoted and character == "\\":
            position += 1
        elif character == '"':
            quoted = not quoted
        elif character == ">" and not quoted:
            return position
        position += 1
    raise AddressError("the closing bracket of the path is missing")

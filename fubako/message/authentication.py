"""The Authentication-Results field: written for our readers, and taken away where somebody else wrote it in our name (RFC 8601)."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+./=?^_`{|}~@-]+")
_PLAIN_SERVER = re.compile(rb"[A-Za-z0-9._-]+")
_CFWS = rb"(?:[ \t\r\n]|\([^()]*+\))*+"
_SERVER = re.compile(_CFWS + rb'("[^ \t\r\n;("]++"|[^ \t\r\n;("]++)(?=[ \t\r\n;(]|\Z)')
ARC_INSTANCE = re.compile(_CFWS + rb"i" + _CFWS + rb"=" + _CFWS + rb"([0-9]{1,3})" + _CFWS + rb";")  # RFC 8617 §4.2.1
_ARC = (b"arc-authentication-results", b"arc-message-signature", b"arc-seal")
_FINDINGS = (b"spam", b"virus", b"phish")  # in names that begin with X-
_NAME = re.compile(rb"[a-z0-9.-]+")
_COMMENTS = re.compile(rb"\([^()]*+\)")


@dataclass(frozen=True, slots=True)
class Method:
    """One result: `spf=fail (reason) smtp.mailfrom=a@b`. `properties` are (type.property, value)."""

    name: str
    result: str
    reason: str = ""
    properties: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        comment = f" ({_comment(self.reason)})" if self.reason else ""
        return f"{self.name}={self.result}{comment}" + "".join(
            f" {name}={_value(value)}" for name, value in self.properties if value
        )


def results(hostname: str, methods: Sequence[Method]) -> str:
    """The field's value, folded, without its name."""
    return ";\r\n\t".join([hostname, *(map(str, methods) if methods else ["none"])])


def results_field(hostname: str, methods: Sequence[Method]) -> bytes:
    return f"Authentication-Results: {results(hostname, methods)}\r\n".encode()


def without_forged(content: bytes, end: int, hostname: str, proven: Callable[[], Collection[int]] = frozenset) -> bytes:
    """The letter without the fields that claim to be ours; `end` is where its header ends (RFC 8601 §5).

    What is not plainly another server's name (quoted, escaped, in a comment, 8-bit) counts as ours: a reader may see ours in it.
    ARC results in our name go with the two other fields of their set (RFC 8617 §4.1), unless `proven` (asked once, and only where
    there are such) has their instance: those that a key of ours seals. Other servers' sets stay octet for octet.
    """
    header = content[:end]
    if not _says_findings(header.lower(), b"x-"):
        return content
    fields: list[list[bytes]] = []
    for line in header.split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1].append(line)
        else:
            fields.append([line])
    forged = _Forged(hostname, proven)
    claimed = [forged.claims(field) for field in fields]  # all of them first: they say which sets go
    kept = [field for field, is_ours in zip(fields, claimed, strict=True) if not is_ours and not forged.in_set(field)]
    return b"\r\n".join([line for field in kept for line in field]) + content[end:]


class _Forged:
    """Which fields speak in our name, and the ARC sets that fall with them."""

    def __init__(self, hostname: str, proven: Callable[[], Collection[int]]) -> None:
        self._hostname = hostname.strip(".").lower().encode()
        self._prove = proven
        self._proven: Collection[int] | None = None
        self._sets: set[int] = set()

    def claims(self, field: list[bytes]) -> bool:
        """Whether these lines are one field that somebody may take for ours."""
        name, colon, value = field[0].partition(b":")
        name = name.rstrip(b" \t").lower()
        if not colon or not _says_findings(name, name[:2]):
            return False
        value = b"\r\n".join([value, *field[1:]])
        match name:
            case b"authentication-results":
                return self._is_ours(value)
            case b"arc-authentication-results":
                return self._claims_set(value)
        return name not in _ARC and self._is_named(value)

    def in_set(self, field: list[bytes]) -> bool:
        """Whether this is an ARC field of an instance in which somebody else speaks in our name."""
        name, colon, value = field[0].partition(b":")
        if not self._sets or not colon or name.rstrip(b" \t").lower() not in _ARC:
            return False
        return _instance(b"".join([value, *field[1:]])) in self._sets

    def _claims_set(self, value: bytes) -> bool:
        instance = _instance(value)
        start = ARC_INSTANCE.match(value)
        if not self._is_ours(value[start.end() :] if start is not None else value):
            return False
        if self._proven is None:
            self._proven = self._prove()
        if instance in self._proven:
            return False
        self._sets.add(instance)
        return True

    def _is_ours(self, value: bytes) -> bool:
        """Whether the authserv-id is ours, or may be taken for it."""
        match = _SERVER.match(value)
        server = match.group(1).strip(b'"') if match is not None else b""
        plain = _PLAIN_SERVER.fullmatch(server) is not None
        return not plain or server.strip(b".").lower() == self._hostname

    def _is_named(self, value: bytes) -> bool:
        """Whether a field that has no one place for it names us as a word: receiver=, or the host of a filter."""
        plain = value.lower().translate(None, b'\\"\r\n')
        readings = (plain, _COMMENTS.sub(b"", plain))
        return any(name.strip(b".-") == self._hostname for one in readings for name in _NAME.findall(one))


def _says_findings(name: bytes, start: bytes) -> bool:
    """Whether a field of this name, in lower case, says what a server found of a message; or such a name may stand in a header."""
    if b"authentication-results" in name or b"received-spf" in name:
        return True
    return start == b"x-" and any(word in name for word in _FINDINGS)


def _instance(value: bytes) -> int:
    """i= of an ARC field; 0 where there is none."""
    match = ARC_INSTANCE.match(value)
    if match is not None:
        return int(match.group(1))
    tags = (part.partition(b"=") for part in value.split(b";"))
    number = next((text.strip(b" \t\r\n") for name, _, text in tags if name.strip(b" \t\r\n") == b"i"), b"")
    return int(number) if number.isdigit() and len(number) < 4 else 0


def _value(text: str) -> str:
    plain = "".join(char for char in text if char.isprintable())[:255]
    if _ATOM.fullmatch(plain):
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _comment(text: str) -> str:
    return "".join(char if char.isprintable() and char not in "()\\" else " " for char in text)[:200]

"""The Authentication-Results field: written for our readers, and taken away where somebody else wrote it in our name (RFC 8601)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+./=?^_`{|}~@-]+")
_PLAIN_SERVER = re.compile(rb"[A-Za-z0-9._-]+")
_SERVER = re.compile(rb"[ \t\r\n]*(?:\([^()]*\)[ \t\r\n]*)*([^ \t\r\n;(]+)")


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


def without_forged(content: bytes, end: int, hostname: str) -> bytes:
    """The letter without the fields that claim to be ours; `end` is where its header ends (RFC 8601 §5).

    What is not plainly another server's name (quoted, escaped, in a comment, 8-bit) counts as ours: a reader may see ours in it.
    """
    header = content[:end]
    if b"authentication-results" not in header.lower():
        return content
    fields: list[list[bytes]] = []
    for line in header.split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1].append(line)
        else:
            fields.append([line])
    return b"\r\n".join([line for field in fields if not _is_ours(field, hostname) for line in field]) + content[end:]


def _is_ours(field: list[bytes], hostname: str) -> bool:
    """Whether these lines of one field are Authentication-Results that somebody may take for ours."""
    name, colon, value = field[0].partition(b":")
    if not colon or name.rstrip(b" \t").lower() != b"authentication-results":
        return False
    match = _SERVER.match(b"\r\n".join([value, *field[1:]]))
    server = match.group(1) if match is not None else b""
    plain = _PLAIN_SERVER.fullmatch(server) is not None
    return not plain or server.strip(b".").lower() == hostname.strip(".").lower().encode()


def _value(text: str) -> str:
    plain = "".join(char for char in text if char.isprintable())[:255]
    if _ATOM.fullmatch(plain):
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _comment(text: str) -> str:
    return "".join(char if char.isprintable() and char not in "()\\" else " " for char in text)[:200]

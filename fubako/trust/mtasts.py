"""MTA-STS: what a domain promises of its own servers over HTTPS, kept for as long as it says (RFC 8461). Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_AGE_MAX = 31_557_600
POLICY_OCTETS_MAX = 64 * 1024
PATH = "/.well-known/mta-sts.txt"
_ID = re.compile(r"[ \t]*id[ \t]*=[ \t]*([A-Za-z0-9]{1,32})[ \t]*")


class StsError(Exception):
    """The text is no policy; the message says why."""


@dataclass(frozen=True, slots=True)
class Policy:
    """`mode` is enforce, testing or none; `mx` are names or *.names; `max_age` in seconds."""

    mode: str
    mx: tuple[str, ...]
    max_age: int

    def allows(self, host: str) -> bool:
        """RFC 8461 §4.1: a wildcard stands for one whole label."""
        host = host.rstrip(".").lower()
        return any(host == one or (one.startswith("*.") and host.partition(".")[2] == one[2:]) for one in self.mx)


def record_id(texts: Sequence[bytes]) -> str:
    """The id of the one record at _mta-sts.domain; empty: there is none (§3.1)."""
    found = [text for text in texts if text.startswith(b"v=STSv1")]
    version, *tags = found[0].decode("ascii", "replace").strip().split(";") if len(found) == 1 else [""]
    if version.rstrip(" \t") != "v=STSv1":
        return ""
    ids = [match.group(1) for tag in tags if (match := _ID.fullmatch(tag))]
    return ids[-1] if ids else ""


def parse(content: bytes) -> Policy:
    """A policy file (§3.2). Raises StsError."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise StsError("it is no UTF-8") from None
    values: dict[str, str] = {}
    mx: list[str] = []
    for line in re.split(r"\r?\n", text):
        if not line.strip():
            continue
        key, colon, value = line.partition(":")
        key, value = key.strip(), value.strip()
        if not colon:
            raise StsError(f"a line has no colon: {line[:40]!r}")
        if key == "mx":
            mx.append(value.rstrip(".").lower())
        else:
            values.setdefault(key, value)
    if values.get("version") != "STSv1":
        raise StsError("it is of an unknown version")
    mode, age = values.get("mode", ""), values.get("max_age", "")
    if mode not in ("enforce", "testing", "none"):
        raise StsError("it has no mode")
    if not (age.isascii() and age.isdigit() and len(age) <= 10):
        raise StsError("it has no max_age")
    if not mx and mode != "none":
        raise StsError("it names no mx")
    return Policy(mode, tuple(mx), min(int(age), MAX_AGE_MAX))

"""Users in a file of lines: shadow(5), passwd(5) with hashes in it, htpasswd, Dovecot's passwd-file."""

import asyncio
import hmac
import time
from collections.abc import Callable
from pathlib import Path

from fubako.accounts import conditions, secrets
from fubako.accounts.backends.interface import BackendDown, Verdict

FILE_OCTETS_MAX = 64 * 1024 * 1024
_DAY = 86400
_EXTRA_FIELD = 6  # behind hash, uid, gid, gecos, home, shell
_HARMLESS = frozenset({"nodelay"})


class FileBackend:
    """The file is read again when it has changed. `shadow`: the fields behind the hash are those of shadow(5), and an account that
    has expired is nobody."""

    def __init__(self, path: Path, *, shadow: bool, now: Callable[[], float] = time.time) -> None:
        self.name = "shadow" if shadow else "passwd-file"
        self._path, self._shadow, self._now = path, shadow, now
        self._read: tuple[int, int, int] | None = None
        self._lines: dict[str, list[str]] = {}

    async def check(self, user: str, password: str) -> Verdict:
        return await asyncio.to_thread(self._check, user, password)

    def _check(self, user: str, password: str) -> Verdict:
        fields = self._users().get(user)
        if fields is None:
            return Verdict.UNKNOWN
        if not fields[0] or fields[0][0] in "!*" or self._expired(fields):
            return Verdict.WRONG  # locked, or without a password
        kept = fields[0]
        if kept.startswith("{PLAIN}"):
            held = hmac.compare_digest(kept[7:].encode(), password.encode("utf-8", "replace"))
        else:
            held = secrets.verify_hash(kept.partition("}")[2] if kept.startswith("{ARGON2") else kept, password)
        return Verdict.HELD if held else Verdict.WRONG

    def bars(self, user: str, network: str) -> str:
        """Dovecot's extra fields, behind the seven of passwd(5): `nologin` and `allow_nets` are obeyed; one that means something
        which is not done here (a proxy, another user, a master) keeps its user out, because to leave it out would let him in."""
        extra = [] if self._shadow else self._users().get(user, [])[_EXTRA_FIELD:]
        for one in ":".join(extra).split():
            name, _, value = one.partition("=")
            if name == "allow_nets":
                if not conditions.within(network, tuple(value.split(","))):
                    return f"allow_nets does not hold {network or 'nowhere'}"
            elif name not in _HARMLESS and not name.startswith(("userdb_", "event_")):
                return "nologin" if name == "nologin" else f"the field {name} cannot be obeyed here"
        return ""

    def _expired(self, fields: list[str]) -> bool:
        """shadow(5): the eighth field of the line is the day since 1970 on which the account ends."""
        if not self._shadow or len(fields) < 7 or not fields[6].isdecimal():
            return False
        return self._now() >= int(fields[6]) * _DAY

    def _users(self) -> dict[str, list[str]]:
        try:
            status = self._path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp != self._read:
                if status.st_size > FILE_OCTETS_MAX:
                    raise BackendDown(f"{self._path} is larger than {FILE_OCTETS_MAX} octets")
                self._lines = parse(self._path.read_text(encoding="utf-8", errors="surrogateescape"))
                self._read = stamp
        except OSError as error:
            raise BackendDown(f"{self._path}: {error.strerror}") from None
        return self._lines

    async def close(self) -> None:
        """There is nothing to close."""


def parse(text: str) -> dict[str, list[str]]:
    """name -> the fields behind it; comments and lines without a colon are left out, the first line of a name counts."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        if colon and name and not name.startswith("#"):
            found.setdefault(name, rest.split(":"))
    return found

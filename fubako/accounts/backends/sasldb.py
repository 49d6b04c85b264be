"""Cyrus SASL's sasldb2 as Debian keeps it: a Berkeley DB hash file, read page by page; its passwords lie there as they are.

Layout of Berkeley DB 4 to 5 hash files (version 8, 9): a page begins with log number (8 octets), page number, previous, next (4
each), entries and the offset of the first item (2 each), level, type; then an index of 2 octets an item. Items stand from the end
of the page towards its beginning, keys and values in turn, each with a type in front.
"""

import asyncio
import hmac
from dataclasses import dataclass
from pathlib import Path

from fubako.accounts.backends.interface import BackendDown, Verdict

FILE_OCTETS_MAX = 256 * 1024 * 1024
_MAGIC = 0x061561
_HASH_PAGES = (2, 13)  # unsorted and sorted
_OVERFLOW = 7
_PAGE_HEADER = 26
_KEYDATA, _OFFPAGE = 1, 3


class NoSaslDb(Exception):
    """The file is no sasldb2 that can be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    user: str
    realm: str
    property: str  # userPassword, or what a mechanism keeps
    value: bytes


class _Pages:
    def __init__(self, octets: bytes) -> None:
        for order in ("little", "big"):
            self._order: str = order
            if len(octets) >= 512 and self.number(octets, 12, 4) == _MAGIC:
                break
        else:
            raise NoSaslDb("it is no Berkeley DB hash file")
        version, self.size = self.number(octets, 16, 4), self.number(octets, 20, 4)
        if version not in (8, 9, 10) or self.size < 512 or self.size > 65536 or self.size & (self.size - 1):
            raise NoSaslDb(f"version {version} of the format, or its page size, is not known")
        if len(octets) % self.size:
            raise NoSaslDb("it ends in the middle of a page")
        self._octets = octets

    def number(self, octets: bytes, place: int, length: int) -> int:
        return int.from_bytes(octets[place : place + length], "little" if self._order == "little" else "big")

    def page(self, number: int) -> bytes:
        page = self._octets[number * self.size : (number + 1) * self.size]
        if len(page) != self.size:
            raise NoSaslDb("a page is missing")
        return page

    def items(self, page: bytes) -> list[bytes]:
        """Keys and values in turn."""
        count = self.number(page, 20, 2)
        found, end = [], self.size
        for one in range(count):
            start = self.number(page, _PAGE_HEADER + 2 * one, 2)
            if not _PAGE_HEADER + 2 * count <= start < end:
                raise NoSaslDb("a page is damaged")
            found.append(self._item(page[start:end]))
            end = start
        return found

    def _item(self, item: bytes) -> bytes:
        if item[0] == _KEYDATA:
            return item[1:]
        if item[0] == _OFFPAGE and len(item) >= 12:
            return self._overflow(self.number(item, 4, 4), self.number(item, 8, 4))
        return b""

    def _overflow(self, number: int, length: int) -> bytes:
        out, seen = b"", set[int]()
        while number and len(out) < length:
            if number in seen:
                raise NoSaslDb("pages follow one another in a circle")
            seen.add(number)
            page = self.page(number)
            if page[25] != _OVERFLOW:
                raise NoSaslDb("a page is damaged")
            used = self.number(page, 22, 2)
            out += page[_PAGE_HEADER : _PAGE_HEADER + used]
            number = self.number(page, 16, 4)
        return out[:length]

    def all(self) -> list[tuple[bytes, bytes]]:
        found = []
        for number in range(1, len(self._octets) // self.size):
            page = self.page(number)
            if page[25] in _HASH_PAGES:
                items = self.items(page)
                found += list(zip(items[::2], items[1::2], strict=False))
        return found


def parse(octets: bytes) -> list[Entry]:
    """Raises NoSaslDb."""
    found = []
    for key, value in _Pages(octets).all():
        parts = key.split(b"\x00")
        if len(parts) == 3:
            user, realm, name = (part.decode("utf-8", "replace") for part in parts)
            found.append(Entry(user, realm, name, value))
    return found


class SaslDb:
    """Users are `user@realm`. The file is read again when it has changed."""

    name = "sasldb"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[int, int, int] | None = None
        self._passwords: dict[str, bytes] = {}

    async def check(self, user: str, password: str) -> Verdict:
        kept = (await asyncio.to_thread(self._users)).get(user.lower())
        if kept is None:
            return Verdict.UNKNOWN
        return Verdict.HELD if hmac.compare_digest(kept, password.encode("utf-8", "replace")) else Verdict.WRONG

    def _users(self) -> dict[str, bytes]:
        try:
            status = self._path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp != self._read:
                if status.st_size > FILE_OCTETS_MAX:
                    raise BackendDown(f"{self._path} is larger than {FILE_OCTETS_MAX} octets")
                self._passwords = passwords(parse(self._path.read_bytes()))
                self._read = stamp
        except (OSError, NoSaslDb) as error:
            raise BackendDown(f"{self._path}: {getattr(error, 'strerror', None) or error}") from None
        return self._passwords

    async def close(self) -> None:
        """There is nothing to close."""


def passwords(entries: list[Entry]) -> dict[str, bytes]:
    return {f"{one.user}@{one.realm}".lower(): one.value for one in entries if one.property == "userPassword"}

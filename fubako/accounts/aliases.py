"""The administrator's alias table: its parser, which alone makes programs, files and lists out of text, and its rows."""

import os
import shlex
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from fubako.message.address import Address, AddressError, parse_address
from fubako.message.target import AliasTarget, File, Include, Program, RemoteAddress, command_line
from fubako.store.interface import StoreError, Transaction

INCLUDE_OCTETS_MAX = 1024 * 1024
INCLUDE_ADDRESSES_MAX = 10_000
TARGET_SIGNS_MAX = 4096
_INCLUDE = ":include:"


class ListUnreadable(StoreError):
    """A file of addresses cannot be used now; whoever asks comes again later."""


@dataclass(frozen=True, slots=True)
class Alias:
    address: str
    targets: tuple[AliasTarget, ...]


def parse_target(text: str, user: str = "") -> AliasTarget:
    """As an administrator writes it: an address, `|/program words` (quoted as for a shell, which it is not given to), `/file`,
    `/Maildir/` or `:include:/file`. `user`: as whom a program runs and a file is written. Raises StoreError."""
    if len(text) > TARGET_SIGNS_MAX or not text.isprintable():
        raise StoreError(f"{text[:80]!r}: a target is one line of printable text")
    if text.startswith("|"):
        return Program(_words(text), user)
    if text.startswith("/"):
        return File(text, user)
    if text.lower().startswith(_INCLUDE):
        path = text[len(_INCLUDE) :].strip()
        if not path.startswith("/"):
            raise StoreError(f"{text}: a list is named by its whole path")
        return Include(path)
    try:
        return RemoteAddress(str(parse_address(text)))
    except AddressError as error:
        raise StoreError(f"{text} is no mail address: {error}") from None


def _words(text: str) -> tuple[str, ...]:
    """Raises StoreError."""
    try:
        words = tuple(shlex.split(text[1:]))
    except ValueError as error:
        raise StoreError(f"{text}: {error}") from None
    if not words or not words[0].startswith("/"):
        raise StoreError(f"{text}: a program is named by its whole path")
    if command_line(words):
        raise StoreError(
            f"{text}: a shell would read the address as commands; it has $SENDER and $RECIPIENT in its environment"
        )
    return words


def add(tx: Transaction, address: str, targets: Sequence[AliasTarget]) -> None:
    """Instead of what the alias was before. `address` as it is kept."""
    remove(tx, address)
    tx.many("INSERT INTO alias_target (address, number, kind, value, run_as) VALUES (?,?,?,?,?)",
            [(address, number, *_row(target)) for number, target in enumerate(targets)])  # fmt: skip


def remove(tx: Transaction, address: str) -> bool:
    return bool(tx.rows("DELETE FROM alias_target WHERE address=? RETURNING number", (address,)))


def exists(tx: Transaction, address: str) -> bool:
    return tx.row("SELECT 1 FROM alias_target WHERE address=? LIMIT 1", (address,)) is not None


def targets(tx: Transaction, address: str) -> list[AliasTarget]:
    """Where the alias of this address leads; none: there is no such alias."""
    rows = tx.rows("SELECT kind, value, run_as FROM alias_target WHERE address=? ORDER BY number", (address,))
    return [_target(*row) for row in rows]


def names(tx: Transaction, target: Program | File) -> bool:
    """Whether an alias leads to this program or file, as this user."""
    row = _row(target)
    return tx.row("SELECT 1 FROM alias_target WHERE kind=? AND value=? AND run_as=? LIMIT 1", row) is not None


def everything(tx: Transaction) -> list[Alias]:
    """By address."""
    found: dict[str, list[AliasTarget]] = {}
    for address, *row in tx.rows("SELECT address, kind, value, run_as FROM alias_target ORDER BY address, number"):
        found.setdefault(address, []).append(_target(*row))
    return [Alias(address, tuple(some)) for address, some in found.items()]


def _row(target: AliasTarget) -> tuple[str, str, str]:
    """(kind, value, run_as)."""
    match target:
        case Program(words, user):
            return "program", shlex.join(words), user
        case File(path, user):
            return "file", path, user
        case Include(path):
            return "include", path, ""
        case RemoteAddress(address):
            return "address", address, ""


def _target(kind: str, value: str, user: str) -> AliasTarget:
    match kind:
        case "program":
            return Program(tuple(shlex.split(value)), user)
        case "file":
            return File(value, user)
        case "include":
            return Include(value)
        case "address":
            return RemoteAddress(value)
    raise StoreError(f"the alias table holds a target of the unknown kind {kind}")


def read_list(path: str) -> list[Address]:
    """The addresses of a list; nothing else may stand in one. Raises ListUnreadable."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            facts = os.fstat(fd)
            if not stat.S_ISREG(facts.st_mode) or facts.st_mode & 0o022 or facts.st_uid not in (0, os.geteuid()):
                raise ListUnreadable(f"{path} is no file that only root or this server may write")
            octets = file.read(INCLUDE_OCTETS_MAX + 1)
    except OSError as error:
        raise ListUnreadable(f"{path}: {error.strerror}") from None
    if len(octets) > INCLUDE_OCTETS_MAX:
        raise ListUnreadable(f"{path} holds more than {INCLUDE_OCTETS_MAX} octets")
    found = []
    for number, line in enumerate(octets.decode("utf-8", "replace").splitlines(), 1):
        text = line.partition("#")[0].strip().rstrip(",")
        if text:
            try:
                found.append(parse_address(text))
            except AddressError as error:
                raise ListUnreadable(f"{path}: line {number}: {error}") from None
    if len(found) > INCLUDE_ADDRESSES_MAX:
        raise ListUnreadable(f"{path} holds more than {INCLUDE_ADDRESSES_MAX} addresses")
    return found

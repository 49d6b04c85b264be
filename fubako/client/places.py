"""Where fetched letters go: Maildir, mbox, LMTP, SMTP, a program. What was put is durable when `put` returns.

A letter has a name that its server's identifiers determine, so that after a crash it is seen that it is there already: exactly once
for Maildir and mbox; for LMTP, SMTP and programs at least once.
"""

import asyncio
import fcntl
import hashlib
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from fubako import modes
from fubako.client.connection import ClientError
from fubako.client.settings import Account
from fubako.message.address import NULL, AddressError, parse_address
from fubako.message.headers import fields as header_fields
from fubako.message.headers import first_fields, header_end, unfold
from fubako.message.hop import Hop
from fubako.message.mailboxes import parse_list
from fubako.message.trace import from_line_date
from fubako.net import tcp
from fubako.net.line import Line
from fubako.net.program import talk
from fubako.protocol.smtp_client import Reply, SmtpClient

MDA_SECONDS = 300.0
SYNCS_AT_ONCE = 8
FILES_AT_ONCE = 50  # open; several accounts write at the same time
_FROM = re.compile(rb"^(>*From )", re.MULTILINE)
_PLAIN = re.compile(r"[^A-Za-z0-9.@_+=/-]")


@dataclass(frozen=True, slots=True)
class Fetched:
    """One letter; `name` is the same each time it is fetched."""

    name: str
    content: bytes
    at: int
    hop: Hop | None = None  # the leg from its server to here


RECIPIENTS_MAX = 100


@dataclass(frozen=True, slots=True)
class Addressed:
    """Who gets a letter: the one recipient, or whom the server's envelope fields name (never To or Cc, which anybody writes)."""

    recipient: str
    fields: tuple[str, ...] = ()
    people: Mapping[str, str] = field(default_factory=dict)

    def of(self, content: bytes) -> list[str]:
        """The first field that is there, in its topmost place: what stands further down may be the sender's."""
        header = content[: header_end(content)] if self.fields else b""
        for wanted in self.fields:
            for name, value in header_fields(header):
                if name.lower() == wanted.lower().encode():
                    words = unfold(value).decode("utf-8", "replace").replace(",", " ").split()
                    found = [who for word in words for who in self._who(word.strip("<>").lower())]
                    return list(dict.fromkeys(found))[:RECIPIENTS_MAX] or [self.recipient]
        return [self.recipient]

    def _who(self, address: str) -> list[str]:
        domain = address.rpartition("@")[2]
        who = self.people.get(address) or self.people.get(f"*@{domain}", "")
        return [who.replace("*", address.rpartition("@")[0]) if who.startswith("*@") else who] if who else []


class Place(Protocol):
    async def begin(self, remembered: Set[str]) -> None:
        """Before anything is put: what a crash left half done is put right. `remembered`: names of the letters that were written
        down last as fetched. Raises OSError."""
        ...

    async def put(self, letters: Sequence[Fetched]) -> None:
        """All of them, durably. Raises ClientError, OSError."""
        ...

    async def close(self) -> None: ...


class Maildir:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for part in ("tmp", "new", "cur"):
            modes.folder(folder / part)
        self._there = {path.name.partition(":")[0] for part in ("new", "cur") for path in (folder / part).iterdir()}

    async def begin(self, remembered: Set[str]) -> None:
        """A name is a letter: there is nothing to put right."""

    async def put(self, letters: Sequence[Fetched]) -> None:
        await asyncio.to_thread(self._put, letters)

    def _put(self, letters: Sequence[Fetched]) -> None:
        """Contents first, then one sync of the folder: a crash leaves a file in tmp, or the letter."""
        host = socket.gethostname().replace("/", "_").replace(":", "_")
        fresh = [(letter, f"{letter.name}.{host}") for letter in letters if f"{letter.name}.{host}" not in self._there]
        with ThreadPoolExecutor(SYNCS_AT_ONCE) as pool:
            for at in range(0, len(fresh), FILES_AT_ONCE):
                self._written(fresh[at : at + FILES_AT_ONCE], pool)
        made = [(self._folder / "tmp" / name, self._folder / "new" / name) for _, name in fresh]
        for path, target in made:
            path.rename(target)
            self._there.add(target.name)
        if made:
            _sync(self._folder / "new")

    def _written(self, letters: Sequence[tuple[Fetched, str]], pool: ThreadPoolExecutor) -> None:
        """All are written first and then synced side by side: one commit of the file system serves several."""
        with ExitStack() as files:
            handles = []
            for letter, name in letters:
                path = self._folder / "tmp" / name
                file = files.enter_context(open(path, "wb", opener=modes.opener))
                file.write(letter.content.replace(b"\r\n", b"\n"))
                file.flush()
                handles.append(file.fileno())
            for _ in pool.map(os.fsync, handles):
                pass

    async def close(self) -> None:
        """There is nothing to close."""


class Mbox:
    """mboxrd, under fcntl's lock. `log`: a file in which a group stands until it is remembered as fetched, so that what a crash
    cut off is completed, and what it left whole is not written twice."""

    def __init__(self, path: Path, log: Path | None = None) -> None:
        self._path, self._log = path, log
        self._there: set[str] = set()

    async def begin(self, remembered: Set[str]) -> None:
        if self._log is not None and self._log.exists():
            await asyncio.to_thread(self._complete, self._log, remembered)

    async def put(self, letters: Sequence[Fetched]) -> None:
        await asyncio.to_thread(self._put, letters)

    def _put(self, letters: Sequence[Fetched]) -> None:
        """What was written in part is taken back."""
        fresh = [letter for letter in letters if letter.name not in self._there]
        octets = b"".join(map(_mbox_entry, fresh))
        if not octets:
            return
        with self._locked() as file:
            before = file.seek(0, os.SEEK_END)
            if self._log is not None:
                _write_log(self._log, [letter.name for letter in letters], before, octets)
            self._append(file, before, octets)

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        modes.folder(self._path.parent)
        with open(self._path, "a+b", opener=modes.opener) as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            yield file

    @staticmethod
    def _append(file: BinaryIO, before: int, octets: bytes) -> None:
        try:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise

    def _complete(self, log: Path, remembered: Set[str]) -> None:
        """What stood in the log is in the mbox then, once, unless somebody else wrote behind a part of it, or took it away."""
        entry = _read_log(log)
        if entry is None or set(entry[0]) <= remembered:
            log.unlink()  # the crash came before the mbox was touched; or there was none
            return
        names, before, octets = entry
        with self._locked() as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(min(before, end))
            there = file.read(len(octets))
            if there == octets:
                self._there = set(names)
            elif end == before + len(there) and octets.startswith(there):
                self._append(file, end, octets[len(there) :])
                self._there = set(names)

    async def close(self) -> None:
        """There is nothing to close; the log stays until what stands in it is known to be remembered."""


def _mbox_entry(letter: Fetched) -> bytes:
    body = _FROM.sub(rb">\1", letter.content.replace(b"\r\n", b"\n"))
    line = f"From fubako {from_line_date(letter.at)}\n".encode()
    return line + body + (b"\n" if body.endswith(b"\n") else b"\n\n")


def _write_log(log: Path, names: Sequence[str], before: int, octets: bytes) -> None:
    """Durable before the mbox is touched. Raises OSError."""
    head = json.dumps({"names": names, "before": before, "sha256": hashlib.sha256(octets).hexdigest()}).encode()
    modes.folder(log.parent)
    with open(log, "wb", opener=modes.opener) as file:
        file.write(head + b"\n" + octets)
        file.flush()
        os.fsync(file.fileno())


def _read_log(log: Path) -> tuple[list[str], int, bytes] | None:
    """Names, size of the mbox before, what was to be appended; None where the log itself was cut off."""
    head, _, octets = log.read_bytes().partition(b"\n")
    try:
        facts = json.loads(head)
        whole = facts["sha256"] == hashlib.sha256(octets).hexdigest()
        return (facts["names"], facts["before"], octets) if whole else None
    except (ValueError, KeyError, TypeError):
        return None


class Mda:
    """Arguments without a shell; what stands for %T and %F is stripped to harmless signs, because programs have shells of their
    own."""

    def __init__(self, program: Sequence[str], addressed: Addressed) -> None:
        self._program, self._addressed = program, addressed

    async def begin(self, remembered: Set[str]) -> None:
        """What the program did, it did."""

    async def put(self, letters: Sequence[Fetched]) -> None:
        for letter in letters:
            for recipient in self._addressed.of(letter.content):
                await self._one(letter, recipient)

    async def _one(self, letter: Fetched, recipient: str) -> None:
        sender = _harmless(_sender(letter.content))
        words = [word.replace("%T", _harmless(recipient)).replace("%F", sender) for word in self._program]
        try:
            code, _, wrong = await talk(words, letter.content.replace(b"\r\n", b"\n"), MDA_SECONDS)
        except TimeoutError:
            raise ClientError(f"{words[0]} took longer than {MDA_SECONDS:.0f} seconds") from None
        if code:
            raise ClientError(f"{words[0]} ended with {code}: {wrong[:200].decode('utf-8', 'replace').strip()}")

    async def close(self) -> None:
        """There is nothing to close."""


class Server:
    """LMTP or SMTP on this machine; one connection for many letters."""

    def __init__(self, where: str, addressed: Addressed) -> None:
        self._where, self._addressed = where, addressed
        self._socket = os.path.expanduser(where.partition(":")[2])
        self._line: Line[Reply] | None = None
        self._engine = SmtpClient()

    async def begin(self, remembered: Set[str]) -> None:
        """What the server took, it has."""

    async def put(self, letters: Sequence[Fetched]) -> None:
        for letter in letters:
            await self._one(letter)

    async def _one(self, letter: Fetched) -> None:
        if self._line is None:
            await self._connect()
        engine = self._engine
        recipients, sender = [parse_address(one) for one in self._addressed.of(letter.content)], NULL
        with suppress(AddressError):
            sender = parse_address(_sender(letter.content))
        engine.mail(sender, [] if letter.content.isascii() else ["BODY=8BITMIME"])
        await self._expect(250)
        for one in recipients:
            engine.rcpt(one)
            await self._expect(250, 251)
        engine.command("DATA")
        await self._expect(354)
        engine.content(letter.content)
        for _ in recipients if self._where.startswith("lmtp") else recipients[:1]:
            await self._expect(250)

    async def _connect(self) -> None:
        kind, _, rest = self._where.partition(":")
        if rest.startswith("//"):
            host, _, port = rest[2:].rpartition(":")
            stream = await tcp.connect(host.strip("[]"), int(port))
        else:
            stream = await tcp.connect_unix(self._socket)
        self._engine = SmtpClient()
        self._line = Line(self._engine, stream)
        await self._expect(220)
        self._engine.command("LHLO" if kind == "lmtp" else "EHLO", socket.gethostname())
        await self._expect(250)

    async def _expect(self, *codes: int) -> None:
        assert self._line is not None
        reply = await self._line.event()
        if reply.status.code not in codes:
            raise ClientError(f"{self._where}: {reply.command}: {reply.status}")

    async def close(self) -> None:
        if self._line is not None:
            self._engine.command("QUIT")
            self._line.close()


def _harmless(address: str) -> str:
    """No sign that a shell knows, and nothing that looks like an option."""
    made = _PLAIN.sub("_", address)
    return f"_{made[1:]}" if made.startswith("-") else made


def _sender(content: bytes) -> str:
    """Return-Path where there is one; else the author."""
    fields = first_fields(content)
    path = fields.get(b"return-path", b"").strip().strip(b"<>")
    if b"return-path" in fields:
        return path.decode("utf-8", "replace")
    for box in parse_list(fields.get(b"from", b"")):
        if box.mailbox and box.host:
            return (box.mailbox + b"@" + box.host).decode("utf-8", "replace")
    return ""


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def place(account: Account, log: Path | None = None) -> Place:
    """`log`: where an mbox notes what it is about to write."""
    kind, _, where = account.deliver.partition(":")
    addressed = Addressed(account.recipient or account.user, account.envelope, account.multidrop)
    match kind:
        case "maildir":
            return Maildir(Path(where).expanduser())
        case "mbox":
            return Mbox(Path(where).expanduser(), log)
        case "mda":
            return Mda(account.mda, addressed)
        case _:
            return Server(account.deliver, addressed)

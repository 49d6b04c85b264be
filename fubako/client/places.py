"""Where fetched letters go: Maildir, mbox, LMTP, SMTP, a program. What was put is durable when `put` returns.

A letter has a name that its server's identifiers determine, so that after a crash it is seen that it is there already: exactly once
for Maildir; for mbox, LMTP, SMTP and programs at least once.
"""

import asyncio
import fcntl
import os
import re
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

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
    async def put(self, letters: Sequence[Fetched]) -> None:
        """All of them, durably. Raises ClientError, OSError."""
        ...

    async def close(self) -> None: ...


class Maildir:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for part in ("tmp", "new", "cur"):
            (folder / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._there = {path.name.partition(":")[0] for part in ("new", "cur") for path in (folder / part).iterdir()}

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
                file = files.enter_context(open(path, "wb", opener=lambda p, flags: os.open(p, flags, 0o600)))
                file.write(letter.content.replace(b"\r\n", b"\n"))
                file.flush()
                handles.append(file.fileno())
            for _ in pool.map(os.fsync, handles):
                pass

    async def close(self) -> None:
        """There is nothing to close."""


class Mbox:
    def __init__(self, path: Path) -> None:
        self._path = path

    async def put(self, letters: Sequence[Fetched]) -> None:
        await asyncio.to_thread(self._put, letters)

    def _put(self, letters: Sequence[Fetched]) -> None:
        """mboxrd, under fcntl's lock; what was written in part is taken back."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "ab", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            before = file.seek(0, os.SEEK_END)
            try:
                for letter in letters:
                    body = _FROM.sub(rb">\1", letter.content.replace(b"\r\n", b"\n"))
                    line = f"From fubako {from_line_date(letter.at)}\n".encode()
                    file.write(line + body + (b"\n" if body.endswith(b"\n") else b"\n\n"))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise

    async def close(self) -> None:
        """There is nothing to close."""


class Mda:
    """Arguments without a shell; what stands for %T and %F is stripped to harmless signs, because programs have shells of their
    own."""

    def __init__(self, program: Sequence[str], addressed: Addressed) -> None:
        self._program, self._addressed = program, addressed

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


def place(account: Account) -> Place:
    kind, _, where = account.deliver.partition(":")
    addressed = Addressed(account.recipient or account.user, account.envelope, account.multidrop)
    match kind:
        case "maildir":
            return Maildir(Path(where).expanduser())
        case "mbox":
            return Mbox(Path(where).expanduser())
        case "mda":
            return Mda(account.mda, addressed)
        case _:
            return Server(account.deliver, addressed)

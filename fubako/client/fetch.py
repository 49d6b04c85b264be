"""Fetching: every new letter of a mailbox elsewhere into a place here, and never a letter less.

What was fetched is kept in a file a line each, written and synced after the letters are durable in their place; only then a
letter is deleted there. Letters come in groups of bounded size, so that memory does not grow with the mailbox.
"""

import asyncio
import hashlib
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from fubako import modes
from fubako.client.connection import ClientError
from fubako.client.imap import ImapConnection
from fubako.client.places import Fetched, Place
from fubako.client.pop3 import Pop3Connection
from fubako.client.settings import Account
from fubako.clock import Env
from fubako.message.hop import Hop
from fubako.protocol.literals import Value

T = TypeVar("T")
GROUP_OCTETS = 4 * 1024 * 1024
GROUP_LETTERS = 200
UID_SIGNS_MAX = 70  # RFC 1939 §7; a longer one is no identifier (C-UIDL)
LETTERS_MAX = 5_000_000
_UID = re.compile(r"[\x21-\x7e]{1,70}")


def state_key(*parts: str) -> str:
    """The name of the files that remember what was fetched from one mailbox into one place."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def adopt_states(folder: Path, accounts: Sequence[Account]) -> None:
    """Files of the time when ports and roads were no part of their name are taken over, where it is certain whose they are:
    `accounts` are all that there are. Where two could have written one file, neither gets it: both look at every message anew.
    """
    former: dict[str, list[Account]] = {}
    for account in accounts:
        key = state_key(account.protocol, account.host, account.user, account.deliver)
        former.setdefault(key, []).append(account)
    for old, owners in former.items():
        new = state_key(*owners[0].source, owners[0].deliver)
        if len(owners) == 1 and (folder / old).exists() and not (folder / new).exists():
            for ending in (".mbox", ""):  # the list last: as long as it has its old name, both are looked for
                with suppress(FileNotFoundError):
                    os.rename(folder / f"{old}{ending}", folder / f"{new}{ending}")


@dataclass(slots=True)
class Outcome:
    """What one account gave. `there`: letters that the mailbox holds; `large`: left because of their size."""

    account: str
    there: int = 0
    fetched: int = 0
    octets: int = 0
    deleted: int = 0
    large: int = 0
    hop: str = ""
    problem: str = ""


class Seen:
    """Identifiers of letters that are here, and when they came. A line that was cut off by a crash is left out."""

    def __init__(self, path: Path) -> None:
        modes.folder(path.parent)
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, modes.FILE), "r+b")
        old = int(os.fstat(self._file.fileno()).st_mtime)  # for lines that do not say when
        octets = self._file.read()
        whole = octets[: octets.rfind(b"\n") + 1]
        if len(whole) != len(octets):
            self._file.truncate(len(whole))
        self._came: dict[str, int] = {}
        for line in whole.decode("utf-8", "replace").split("\n"):
            name, _, at = line.partition("\t")
            if name:
                self._came[name] = int(at) if at.isdigit() else old

    def __contains__(self, name: str) -> bool:
        return name in self._came

    def latest(self, count: int) -> list[str]:
        """Those that came last."""
        return list(islice(reversed(self._came), count))

    def before(self, name: str, at: float) -> bool:
        return self._came.get(name, at) < at

    def add(self, names: Sequence[str], at: int) -> None:
        """Durably."""
        self._file.write("".join(f"{name}\t{at}\n" for name in names).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._came.update(dict.fromkeys(names, at))

    def close(self) -> None:
        self._file.close()


class _Behind:
    """One group is written while the next one comes; no more than these two are in memory."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "_Behind":
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        """What was begun is ended, whatever else went wrong: a letter that is here is written down as here."""
        if kind is None:
            await self._done()
        else:
            with suppress(Exception):
                await self._done()

    async def put(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin it when the one before has ended; raises what that one raised."""
        try:
            await self._done()
        except BaseException:
            work.close()
            raise
        self._task = asyncio.get_running_loop().create_task(work)

    async def _done(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await task


@dataclass(slots=True)
class Fetcher:
    account: Account
    place: Place
    seen: Seen
    env: Env
    progress: Callable[[int, int], None] = lambda _done, _all: None
    hop: Hop | None = None
    outcome: Outcome = field(init=False)

    def __post_init__(self) -> None:
        self.outcome = Outcome(self.account.name)

    def name(self, identifier: str) -> str:
        """The letter's name here: the same for the same letter of the same account."""
        key = json.dumps([*self.account.source, identifier])
        return f"fubako-{hashlib.sha256(key.encode()).hexdigest()[:32]}"

    async def _begin(self) -> None:
        await self.place.begin({self.name(one) for one in self.seen.latest(GROUP_LETTERS)})

    def _leaves(self, identifier: str) -> bool:
        """Whether a letter that is here is deleted there."""
        days = self.account.delete_after_days
        if days:
            return self.seen.before(identifier, self.env.clock.now() - days * 86400)
        return not self.account.keep

    async def _keep(self, group: list[tuple[str, bytes]]) -> None:
        """A group is here: in its place, then in the file."""
        now = int(self.env.clock.now())
        await self.place.put([Fetched(self.name(identifier), content, now, self.hop) for identifier, content in group])
        self.seen.add([identifier for identifier, _ in group], now)
        self.outcome.fetched += len(group)
        self.outcome.octets += sum(len(content) for _, content in group)

    # -- POP3

    async def pop3(self, connection: Pop3Connection) -> None:
        """Raises ClientError and what the connection and the place raise."""
        await self._begin()
        uids = _told_apart(await self._listing(connection, "UIDL"))
        sizes = {
            number: int(size) for number, size in (await self._listing(connection, "LIST")).items() if size.isdigit()
        }
        self.outcome.there = len(uids)
        wanted = []
        for number, uid in uids.items():
            if uid not in self.seen:
                if self.account.octets_max and sizes.get(number, 0) > self.account.octets_max:
                    self.outcome.large += 1
                else:
                    wanted.append((number, uid, sizes.get(number, 0)))
        done = 0
        async with _Behind() as behind:
            for group in _groups(wanted, lambda one: one[2]):
                for number, _, _ in group:  # asked for all at once
                    connection.engine.command("RETR", str(number), multiline=True)
                got = []
                for _, uid, _ in group:
                    reply = await connection.line.event()
                    if not reply.ok:
                        raise ClientError(f"RETR: the server said {reply.text}")
                    got.append((uid, reply.content))
                await behind.put(self._keep(got))
                done += len(group)
                self.progress(done, len(wanted))
        for number, uid in uids.items():
            if uid in self.seen and self._leaves(uid):
                await connection.command("DELE", str(number))
                self.outcome.deleted += 1
        await connection.command("QUIT")

    @staticmethod
    async def _listing(connection: Pop3Connection, keyword: str) -> dict[int, str]:
        lines = (await connection.command(keyword, multiline=True)).content.decode("ascii", "replace").splitlines()
        if len(lines) > LETTERS_MAX:
            raise ClientError("the mailbox holds too many letters")
        found = {}
        for line in lines:
            number, _, rest = line.strip().partition(" ")
            if not (number.isascii() and number.isdigit()):
                raise ClientError(f"{keyword}: the server's answer makes no sense")
            found[int(number)] = rest.strip()
        return found

    # -- IMAP

    async def imap(self, connection: ImapConnection) -> None:
        await self._begin()
        for folder in self.account.folders:
            await self._folder(connection, folder)

    async def _folder(self, connection: ImapConnection, folder: str) -> None:
        if '"' in folder or "\\" in folder:
            raise ClientError(f"{folder!r} is no folder that can be asked for")
        # never EXAMINE: Courier gives a mailbox that was only examined new UIDs each time, and every letter would come again
        done = await connection.command(f'SELECT "{folder}"')
        validity = next((number for line in done.untagged if (number := _code(line, b"UIDVALIDITY"))), "")
        if not validity:
            raise ClientError(f"{folder}: the server gives no UIDVALIDITY, so that nothing can be remembered")
        wanted, gone = [], []
        async for uid, size in self._sizes(connection):
            self.outcome.there += 1
            identifier = f"{folder}.{validity}.{uid}"
            if identifier in self.seen:
                if self._leaves(identifier):
                    gone.append(uid)
            elif self.account.octets_max and size > self.account.octets_max:
                self.outcome.large += 1
            else:
                wanted.append((uid, identifier, size))
        count = 0
        async with _Behind() as behind:
            for group in _groups(wanted, lambda one: one[2]):
                names = {uid: identifier for uid, identifier, _ in group}
                done = await connection.command(f"UID FETCH {','.join(str(uid) for uid in names)} (UID BODY.PEEK[])")
                got = []
                for uid, items in _fetched(done.untagged):
                    body = items.get(b"BODY[]")
                    if uid in names and isinstance(body, bytes):
                        got.append((names.pop(uid), body))
                        if not self.account.keep and not self.account.delete_after_days:
                            gone.append(uid)
                await behind.put(self._keep(got))
                count += len(group)
                self.progress(count, len(wanted))
        if gone:
            await self._delete(connection, gone)

    @staticmethod
    async def _sizes(connection: ImapConnection) -> AsyncIterator[tuple[int, int]]:
        done = await connection.command("UID FETCH 1:* (UID RFC822.SIZE)")
        for uid, items in _fetched(done.untagged):
            size = items.get(b"RFC822.SIZE")
            yield uid, int(size) if isinstance(size, bytes) and size.isdigit() else 0

    async def _delete(self, connection: ImapConnection, uids: list[int]) -> None:
        for start in range(0, len(uids), 500):
            part = ",".join(map(str, uids[start : start + 500]))
            await connection.command(f"UID STORE {part} +FLAGS.SILENT (\\Deleted)")
            # without UIDPLUS an EXPUNGE would also remove what others have marked
            if "UIDPLUS" in connection.capabilities or "IMAP4REV2" in connection.capabilities:
                await connection.command(f"UID EXPUNGE {part}")
            else:
                await connection.command("EXPUNGE")
            self.outcome.deleted += len(uids[start : start + 500])


def _told_apart(uids: dict[int, str]) -> dict[int, str]:
    """Two letters with one identifier are still two letters. Raises ClientError for what is none."""
    seen: dict[str, int] = {}
    found = {}
    for number, uid in uids.items():
        if not _UID.fullmatch(uid):
            raise ClientError("the server gives identifiers that are none")
        seen[uid] = seen.get(uid, 0) + 1
        found[number] = uid if seen[uid] == 1 else f"{uid} {seen[uid]}"
    return found


def _groups(items: Sequence[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """In order, each of bounded size."""
    group: list[T] = []
    octets = 0
    for item in items:
        if group and (len(group) >= GROUP_LETTERS or octets + size(item) > GROUP_OCTETS):
            yield group
            group, octets = [], 0
        group.append(item)
        octets += size(item)
    if group:
        yield group


def _code(line: list[Value], name: bytes) -> str:
    """The number of a response code: OK [UIDVALIDITY 7]."""
    text = b" ".join(word for word in line if isinstance(word, bytes))
    # linear: a try begins at a bracket and reads no other
    found = re.search(rb"\[" + name + rb" (\d+)\]", text)
    return found[1].decode() if found else ""


def _fetched(untagged: Sequence[list[Value]]) -> Iterator[tuple[int, dict[bytes, Value]]]:
    for line in untagged:
        if len(line) > 2 and line[1] == b"FETCH" and isinstance(line[2], list):
            pairs = line[2]
            items = {key: value for key, value in zip(pairs[::2], pairs[1::2], strict=False) if isinstance(key, bytes)}
            uid = items.get(b"UID")
            if isinstance(uid, bytes) and uid.isdigit():
                yield int(uid), items

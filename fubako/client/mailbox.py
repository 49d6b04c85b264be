"""A mailbox as a person reads it: folders, the list of letters newest first, one letter, flags, and what is put there.
Plain IMAP4rev1 is enough; UIDPLUS and SPECIAL-USE are used where they are offered (RFC 9051, RFC 4315, RFC 6154)."""

import asyncio
import re
import time
from calendar import timegm
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from fubako.client.connection import ClientError
from fubako.client.imap import ImapConnection
from fubako.message.hop import Seal
from fubako.message.words import decode_words
from fubako.protocol.engine import ProtocolError
from fubako.protocol.imap import utf7
from fubako.protocol.imap.client import Completed, Continue
from fubako.protocol.literals import Value

CHUNK = 500  # letters whose envelopes are asked for at once
LETTERS_MAX = 1_000_000
_SEALS = {seal.keyword.lower(): seal for seal in Seal}
_ROLES = ("sent", "drafts", "trash", "junk", "archive")
_ITEMS = "(UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)"
REFERENCES_MAX = 50
_MESSAGE_ID = re.compile(rb"<[^<>\s]{1,250}>")
_CODE = re.compile(rb"\[([A-Z-]+)(?: ([^\]]*))?\]")


@dataclass(frozen=True, slots=True)
class Folder:
    """`wire` is its name as the server writes it. `role`: sent, drafts, trash, junk, archive, or nothing."""

    name: str
    wire: str
    role: str = ""
    selectable: bool = True


@dataclass(slots=True)
class Entry:
    """One letter in the list. Times in seconds since the epoch; text is decoded, and still a stranger's."""

    uid: int
    flags: set[str]
    octets: int
    received: int
    subject: str = ""
    sender: str = ""  # a name, or the address
    sender_address: str = ""
    to: tuple[str, ...] = ()
    message_id: str = ""
    in_reply_to: str = ""
    references: tuple[str, ...] | None = None  # the nearest last (RFC 5322 §3.6.4); None: not asked for
    tagged: bool = False
    changes: dict[str, bool] = field(default_factory=dict)  # flags that were changed here and not yet there

    def has(self, flag: str) -> bool:
        wanted = flag.lower()
        return self.changes.get(wanted, any(one.lower() == wanted for one in self.flags))

    @property
    def seal(self) -> Seal | None:
        """What a server of ours says of the letter's way; None where nobody says anything."""
        return next((_SEALS[one.lower()] for one in self.flags if one.lower() in _SEALS), None)


class OpenMailbox:
    """One connection, one folder at a time; one command at a time, whoever asks."""

    def __init__(self, connection: ImapConnection) -> None:
        self.connection = connection
        self.folder = ""
        self.exists = 0
        self.uid_validity = 0
        self.read_only = False
        self.stale = False  # letters came or went, or somebody else changed flags
        self._alone = asyncio.Lock()

    # -- folders

    async def folders(self) -> list[Folder]:
        """Every folder, INBOX first."""
        extended = {"LIST-EXTENDED", "SPECIAL-USE"} <= set(self.connection.capabilities)
        done = await self._command('LIST "" "*"' + (" RETURN (SPECIAL-USE)" if extended else ""))
        found = []
        for line in done.untagged:
            if len(line) >= 4 and line[0] == b"LIST" and isinstance(line[3], bytes):
                words = line[1] if isinstance(line[1], list) else []
                attributes = {one.decode("ascii", "replace").lower() for one in words if isinstance(one, bytes)}
                wire = line[3].decode("utf-8", "replace")
                name = utf7.decode(wire) if wire.isascii() else wire
                role = next((one for one in _ROLES if f"\\{one}" in attributes), "")
                usable = not attributes & {"\\noselect", "\\nonexistent"}
                found.append(Folder(name, wire, role or (name.lower() if name.lower() in _ROLES else ""), usable))
        return sorted(found, key=lambda one: (one.name.upper() != "INBOX", one.name.lower()))

    async def open(self, wire: str, *, read_only: bool = False) -> None:
        """Raises ClientError; then no folder is open."""
        self.folder = ""
        done = await self._command(f"{'EXAMINE' if read_only else 'SELECT'} {quoted(wire)}")
        self.exists, self.stale = 0, False
        for line in done.untagged:
            if len(line) == 2 and line[1] == b"EXISTS":
                self.exists = min(_number(line[0]), LETTERS_MAX)
            elif len(line) == 2 and line[0] == b"OK" and isinstance(line[1], bytes):
                code = _CODE.match(line[1])
                if code and code.group(1) == b"UIDVALIDITY":
                    self.uid_validity = _number(code.group(2))
        self.folder = wire
        self.read_only = read_only or b"READ-ONLY" in done.text

    # -- the list

    async def entries(self) -> AsyncIterator[list[Entry]]:
        """All letters in chunks, newest chunk first; newest first within one."""
        high = self.exists
        while high > 0:
            low = max(1, high - CHUNK + 1)
            done = await self._command(f"FETCH {low}:{high} {_ITEMS}")
            found = [entry for line in done.untagged if (entry := _entry(line)) is not None]
            yield sorted(found, key=lambda one: -one.uid)
            high = low - 1

    async def after(self, uid: int) -> list[Entry]:
        """Letters that came since, newest first."""
        done = await self._command(f"UID FETCH {uid + 1}:* {_ITEMS}")
        found = [entry for line in done.untagged if (entry := _entry(line)) is not None and entry.uid > uid]
        return sorted(found, key=lambda one: -one.uid)

    async def flags(self) -> dict[int, set[str]]:
        """Every letter that is there now, with its flags."""
        done = await self._command("UID FETCH 1:* (UID FLAGS)")
        return {
            uid: _words(items.get(b"FLAGS"))
            for line in done.untagged
            if (items := _items(line)) and (uid := _number(items.get(b"UID")))
        }

    async def look(self) -> bool:
        """Whether something is new since the last look."""
        await self._command("NOOP")
        stale, self.stale = self.stale, False
        return stale

    async def search(self, key: str, words: str) -> set[int]:
        """Letters in whose TEXT, BODY or header field (`HEADER name`) the server finds the words."""
        head = f"UID SEARCH CHARSET UTF-8 {key} " if not words.isascii() else f"UID SEARCH {key} "
        done = (
            await self._command(head, words.encode())
            if not words.isascii()
            else await self._command(head + quoted(words))
        )
        return {
            _number(one) for line in done.untagged if line and line[0] == b"SEARCH" for one in line[1:]
        } - {0}  # fmt: skip

    async def references(self, uids: Sequence[int]) -> dict[int, tuple[str, ...]]:
        """Message-IDs of what a letter answers, which ENVELOPE does not tell."""
        found: dict[int, tuple[str, ...]] = {}
        for start in range(0, len(uids), CHUNK):
            part = ",".join(map(str, uids[start : start + CHUNK]))
            done = await self._command(f"UID FETCH {part} (UID BODY.PEEK[HEADER.FIELDS (REFERENCES)])")
            for line in done.untagged:
                items = _items(line)
                field = next((value for name, value in items.items() if name.upper().startswith(b"BODY[HEADER")), None)
                if uid := _number(items.get(b"UID")):
                    found[uid] = message_ids(field) if isinstance(field, bytes) else ()
        return found

    # -- letters

    async def letter(self, uid: int) -> bytes:
        """The whole of it, not marked as read. Raises ClientError where it is gone."""
        done = await self._command(f"UID FETCH {uid} (UID BODY.PEEK[])")
        for line in done.untagged:
            items = _items(line)
            content = items.get(b"BODY[]")
            if _number(items.get(b"UID")) == uid and isinstance(content, bytes):
                return content
        raise ClientError("the letter is no longer there")

    async def store(self, uids: Sequence[int], flag: str, on: bool) -> None:
        for part in _sets(uids):
            await self._command(f"UID STORE {part} {'+' if on else '-'}FLAGS.SILENT ({flag})")

    async def expunge(self, uids: Sequence[int]) -> None:
        """Letters marked as deleted go. Without UIDPLUS those go too that another program marked."""
        if "UIDPLUS" in self.connection.capabilities or "IMAP4REV2" in self.connection.capabilities:
            for part in _sets(uids):
                await self._command(f"UID EXPUNGE {part}")
        else:
            await self._command("EXPUNGE")

    async def copy(self, uids: Sequence[int], wire: str) -> None:
        for part in _sets(uids):
            await self._command(f"UID COPY {part} {quoted(wire)}")

    async def append(self, wire: str, content: bytes, flags: str = "") -> None:
        """A letter into a folder. Raises ClientError."""
        await self._command(f"APPEND {quoted(wire)} ({flags}) ", content)

    async def leave(self) -> None:
        await self.connection.logout()

    # -- below

    async def _command(self, text: str, literal: bytes | None = None) -> Completed:
        async with self._alone:
            if literal is None:
                done = await self.connection.command(text)
            else:
                done = await self._with_literal(text, literal)
        for line in done.untagged:
            if len(line) == 2 and line[1] in (b"EXISTS", b"EXPUNGE"):
                count = _number(line[0])
                self.stale = self.stale or line[1] == b"EXPUNGE" or count != self.exists
                self.exists = self.exists - 1 if line[1] == b"EXPUNGE" else min(count, LETTERS_MAX)
            elif len(line) > 1 and line[1] == b"FETCH" and not text.startswith(("FETCH", "UID FETCH")):
                self.stale = True
        return done

    async def _with_literal(self, text: str, literal: bytes) -> Completed:
        connection = self.connection
        connection.engine.command(f"{text}{{{len(literal)}}}")
        event = await connection.line.event()
        if isinstance(event, Continue):
            connection.engine.raw(literal + b"\r\n")
            event = await connection.line.event()
        if not isinstance(event, Completed):
            raise ProtocolError("the server asks for more")
        if not event.ok:
            raise ClientError(f"{text.split(' ', 1)[0]}: the server said {event.text.decode('utf-8', 'replace')}")
        return event


def quoted(text: str) -> str:
    """A quoted string (RFC 9051 §4.3); CR, LF and NUL cannot be in one, and the engine refuses them."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _sets(uids: Iterable[int]) -> list[str]:
    """Sequence sets of bounded length."""
    runs: list[list[int]] = []
    for uid in sorted(set(uids)):
        if runs and uid == runs[-1][1] + 1:
            runs[-1][1] = uid
        else:
            runs.append([uid, uid])
    written = [str(low) if low == high else f"{low}:{high}" for low, high in runs]
    return [",".join(written[at : at + 500]) for at in range(0, len(written), 500)]


def _number(value: Value) -> int:
    return int(value) if isinstance(value, bytes) and value.isdigit() and len(value) < 16 else 0


def _items(line: list[Value]) -> dict[bytes, Value]:
    if len(line) < 3 or line[1] != b"FETCH" or not isinstance(line[2], list):
        return {}
    names = line[2][::2]
    return {name.upper(): value for name, value in zip(names, line[2][1::2], strict=False) if isinstance(name, bytes)}


def _words(value: Value) -> set[str]:
    return (
        {one.decode("utf-8", "replace") for one in value if isinstance(one, bytes)}
        if isinstance(value, list)
        else set()
    )


def _entry(line: list[Value]) -> Entry | None:
    items = _items(line)
    uid, envelope = _number(items.get(b"UID")), items.get(b"ENVELOPE")
    if not uid or not isinstance(envelope, list) or len(envelope) < 10:
        return None
    name, address = _who(envelope[2])
    to = [one for people in envelope[5:7] if isinstance(people, list) for one in people]
    return Entry(
        uid, _words(items.get(b"FLAGS")), _number(items.get(b"RFC822.SIZE")), _time(items.get(b"INTERNALDATE")),
        _text(envelope[1]), name or address, address, tuple(map(_address, to)), _text(envelope[9]),
        _text(envelope[8]).split(" ")[0],
    )  # fmt: skip


def message_ids(value: bytes) -> tuple[str, ...]:
    """Those in a field, at most REFERENCES_MAX, the last ones."""
    return tuple(one.decode("utf-8", "replace") for one in _MESSAGE_ID.findall(value)[-REFERENCES_MAX:])


def _text(value: Value) -> str:
    return decode_words(value) if isinstance(value, bytes) else ""


def _who(value: Value) -> tuple[str, str]:
    if not isinstance(value, list) or not value:
        return "", ""
    first = value[0]
    return (_text(first[0]), _address(first)) if isinstance(first, list) and first else ("", "")


def _address(value: Value) -> str:
    if not isinstance(value, list) or len(value) < 4:
        return ""
    return f"{_text(value[2])}@{_text(value[3])}" if value[3] else _text(value[2])


def _time(value: Value) -> int:
    text = value.decode("ascii", "replace").strip() if isinstance(value, bytes) else ""
    day, _, zone = text.rpartition(" ")
    try:
        seconds = timegm(time.strptime(day, "%d-%b-%Y %H:%M:%S"))
        return seconds - (1 if zone[0] == "+" else -1) * (int(zone[1:3]) * 3600 + int(zone[3:5]) * 60)
    except (ValueError, IndexError):
        return 0

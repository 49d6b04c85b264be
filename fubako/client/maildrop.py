"""A POP3 mailbox as a person reads it: one folder, no marks that last, deletion when the session ends (RFC 1939).

It is an `OpenMailbox` for the reader; what POP3 cannot do is an error in words. A letter's number follows from its UIDL, so that it
is the same one after a broken connection.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence

from fubako.client.connection import ClientError
from fubako.client.mailbox import Entry, Folder, OpenMailbox, message_ids
from fubako.client.pop3 import Pop3Connection
from fubako.message.dates import moment
from fubako.message.display import view
from fubako.message.headers import first_fields, header_end
from fubako.message.mailboxes import parse_list
from fubako.message.words import decode_words
from fubako.net.interface import StreamClosed

CHUNK = 100  # letters whose headers are asked for at once
SEARCHED_MAX = 2000  # letters that are fetched whole to look for a word


class OpenMaildrop(OpenMailbox):
    def __init__(self, connection: Pop3Connection) -> None:
        super().__init__(connection)  # type: ignore[arg-type]  # its commands are all overridden
        self._pop3 = connection
        self._numbers: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._opened = False

    # -- folders

    async def folders(self) -> list[Folder]:
        return [Folder("INBOX", "INBOX")]

    async def open(self, wire: str, *, read_only: bool = False) -> None:
        """What came since is seen by a new session only. Raises ClientError, StreamClosed for who opens it again."""
        if wire.upper() != "INBOX":
            raise ClientError("a POP3 mailbox has one folder, INBOX")
        if self._opened:
            raise StreamClosed("a new session is needed to see what is new")
        async with self._alone:
            uids = await self._listing("UIDL")
            sizes = await self._listing("LIST")
        self._numbers = {_uid(text): number for number, text in uids}
        self._sizes = {number: int(text) for number, text in sizes if text.isdigit()}
        self.folder, self.exists, self.uid_validity, self.read_only, self._opened = wire, len(uids), 1, read_only, True

    async def _listing(self, keyword: str) -> list[tuple[int, str]]:
        content = (await self._pop3.command(keyword, multiline=True)).content
        found = []
        for line in content.decode("ascii", "replace").splitlines():
            number, _, rest = line.strip().partition(" ")
            if not number.isdigit() or len(number) > 9:
                raise ClientError(f"{keyword}: the server's answer makes no sense")
            found.append((int(number), rest.strip()))
        return found

    # -- the list

    async def entries(self) -> AsyncIterator[list[Entry]]:
        waiting = sorted(self._numbers.items(), key=lambda pair: -pair[1])
        for at in range(0, len(waiting), CHUNK):
            chunk = waiting[at : at + CHUNK]
            async with self._alone:
                for _, number in chunk:  # asked for all at once
                    self._pop3.engine.command("TOP", str(number), "0", multiline=True)
                found = []
                for uid, number in chunk:
                    reply = await self._pop3.line.event()
                    if reply.ok:
                        found.append(_entry(uid, self._sizes.get(number, 0), reply.content))
            yield found

    async def after(self, uid: int) -> list[Entry]:
        return []

    async def flags(self) -> dict[int, set[str]]:
        return {uid: set() for uid in self._numbers}

    async def look(self) -> bool:
        """Keeps the connection. Nothing becomes new within a session."""
        async with self._alone:
            await self._pop3.command("NOOP")
        return False

    async def search(self, key: str, words: str) -> set[int]:
        """The server cannot look; so every letter comes here. Raises ClientError where they are too many."""
        if len(self._numbers) > SEARCHED_MAX:
            raise ClientError(f"POP3 cannot search, and more than {SEARCHED_MAX} letters are not fetched for it")
        wanted, found = words.lower(), set()
        for uid in self._numbers:
            shown = view(await self.letter(uid), every_field=True)
            head = " ".join(value for _, value in shown.headers) if key == "TEXT" else ""
            if wanted in f"{head} {shown.text}".lower():
                found.add(uid)
        return found

    # -- letters

    async def references(self, uids: Sequence[int]) -> dict[int, tuple[str, ...]]:
        """They came with the headers."""
        return {}

    async def letter(self, uid: int) -> bytes:
        number = self._numbers.get(uid)
        if number is None:
            raise ClientError("the letter is no longer there")
        async with self._alone:
            return await self._pop3.retrieve(number)

    async def store(self, uids: Sequence[int], flag: str, on: bool) -> None:
        """POP3 keeps no marks."""

    async def expunge(self, uids: Sequence[int]) -> None:
        """They go when the session ends: so it ends, and the next command begins a new one."""
        async with self._alone:
            for uid in uids:
                if uid in self._numbers:
                    await self._pop3.command("DELE", str(self._numbers[uid]))
            await self._pop3.command("QUIT")
            self._pop3.close()

    async def copy(self, uids: Sequence[int], wire: str) -> None:
        raise ClientError("a POP3 mailbox has no other folders")

    async def append(self, wire: str, content: bytes, flags: str = "") -> None:
        raise ClientError("nothing can be put into a POP3 mailbox")

    async def leave(self) -> None:
        await self._pop3.quit()


def _uid(text: str) -> int:
    """A number for a UIDL, the same every time."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") + 1


def _entry(uid: int, octets: int, header: bytes) -> Entry:
    fields = first_fields(header[: header_end(header)])
    people = parse_list(fields.get(b"from", b""))
    box = people[0] if people else None
    address = _address(box.mailbox, box.host) if box else ""
    to = [one for name in (b"to", b"cc") for one in parse_list(fields.get(name, b""))]
    return Entry(
        uid, set(), octets, _time(fields.get(b"date", b"")), decode_words(fields.get(b"subject", b"")),
        (decode_words(box.name) if box and box.name else "") or address, address,
        tuple(_address(one.mailbox, one.host) for one in to if one.mailbox and one.host),
        decode_words(fields.get(b"message-id", b"")).strip(), decode_words(fields.get(b"in-reply-to", b"")).strip().split(" ")[0],
        message_ids(fields.get(b"references", b"")),
    )  # fmt: skip


def _address(mailbox: bytes | None, host: bytes | None) -> str:
    return f"{(mailbox or b'').decode('utf-8', 'replace')}@{(host or b'').decode('utf-8', 'replace')}"


def _time(value: bytes) -> int:
    return moment(value) or 0

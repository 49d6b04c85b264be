"""Commands on messages: FETCH, STORE, COPY, MOVE, EXPUNGE, APPEND."""

from collections.abc import Iterable, Sequence
from typing import Any

from fubako.delivery.letters import describe
from fubako.net.pace import SEND_OCTETS
from fubako.protocol.engine import ProtocolError
from fubako.protocol.imap import render
from fubako.protocol.imap import types as t
from fubako.server.extent import NOTHING, Cut, Extent, Reply, WithoutNul
from fubako.server.imap.context import ImapContext, flags_response
from fubako.server.imap.outcome import No
from fubako.server.imap.sections import Content
from fubako.server.imap.transform import as_kept
from fubako.server.imap.view import View
from fubako.server.memory import NoMemory
from fubako.store import mailboxes, messages
from fubako.store.interface import BlobRef, Damaged, Row, StoreError, Transaction
from fubako.store.messages import SEEN, Flags, Letter, parse_flags

FETCH_BATCH = 400
FETCH_STRUCTURE_BATCH = 50  # their rows may be long
FETCH_CONTENT_BATCH = 20

_COLUMNS = ("uid", "flags", "keywords", "internaldate", "zone", "size", "envelope", "structure", "modseq", "blob_id",
            "segment", "place", "header_size", "savedate")  # fmt: skip
(
    _UID, _FLAGS, _KEYWORDS, _DATE, _ZONE, _SIZE, _ENVELOPE, _STRUCTURE, _MODSEQ, _BLOB, _SEGMENT, _PLACE, _HEADER, _SAVED,
) = range(len(_COLUMNS))  # fmt: skip
_CONTENT = (_BLOB, _SEGMENT, _PLACE, _SIZE, _HEADER)
_NEEDS = {
    "FLAGS": (_FLAGS, _KEYWORDS),
    "INTERNALDATE": (_DATE, _ZONE),
    "RFC822.SIZE": (_SIZE,),
    "ENVELOPE": (_ENVELOPE,),
    "BODYSTRUCTURE": (_STRUCTURE,),
    "BODY": _CONTENT,
    "MODSEQ": (_MODSEQ,),
    "SAVEDATE": (_SAVED,),
    "UID": (),
}

# -- FETCH


async def fetch(session: ImapContext, command: t.Fetch) -> str:
    view, database = session.selected, session.resources.database
    if command.vanished and "QRESYNC" not in session.enabled:
        raise No("QRESYNC was not enabled", "BAD")
    uids = await view.choose(database, command.numbers, uid=command.uid)
    if uids is None:
        raise No("there is no message with that number", "BAD")
    items = list(command.items)
    if command.uid and "UID" not in items:
        items.insert(0, "UID")
    if command.changed_since is not None or "MODSEQ" in items:
        session.use_condstore()
    if command.changed_since is not None and "MODSEQ" not in items:
        items.append("MODSEQ")
    if command.vanished:
        await _vanished(session, view, command)
    if len(uids) > FETCH_BATCH:
        session.resources.search.reading()
    fetching = _Fetching(session, view, items, command.changed_since)
    await fetching.run(uids)
    if fetching.damaged:
        raise No(f"[SERVERBUG] {fetching.damaged} is damaged where it is kept; the administrator has been told")
    if fetching.lost:
        session.resources.telemetry.event("store.error", session.trace_id, reason=fetching.lost)
        raise No("[EXPUNGEISSUED] some of the messages are not there any more")
    return "fetched"


async def _vanished(session: ImapContext, view: View, command: t.Fetch) -> None:
    gone = await session.resources.database.read(
        lambda tx: messages.expunged_since(tx, view.account_id, view.mailbox_id, command.changed_since or 0)
    )
    ranges = command.numbers.resolve(view.uidnext - 1)
    gone = [uid for uid in gone if t.within(ranges, uid)]
    if gone:
        session.engine.untagged(b"VANISHED (EARLIER) " + render.number_set(gone))


class _Fetching:
    """One FETCH: the columns it needs, and how each item is shown."""

    def __init__(
        self, session: ImapContext, view: View, items: Sequence[str | t.Section], changed_since: int | None
    ) -> None:
        self.session = session
        self.view = view
        self.items = items
        self.sections = [item for item in items if isinstance(item, t.Section)]
        self.reads_content = bool(self.sections) or "BODY" in items
        self.marks_seen = not view.read_only and any(not section.peek for section in self.sections)
        needed = {_UID}
        for item in items:
            needed.update(_NEEDS[item] if isinstance(item, str) else _CONTENT)
        if self.marks_seen:
            needed.update((_FLAGS, _KEYWORDS, _MODSEQ))
        self.lost = self.damaged = ""
        self.order = sorted(needed)
        self.place = {column: position for position, column in enumerate(self.order)}
        self.columns = ", ".join(_COLUMNS[column] for column in self.order)
        self.extra = "" if changed_since is None else f" AND modseq>{int(changed_since)}"

    async def run(self, uids: list[int]) -> None:
        step = FETCH_STRUCTURE_BATCH if {"ENVELOPE", "BODYSTRUCTURE"} & set(self.items) else FETCH_BATCH
        step = FETCH_CONTENT_BATCH if self.reads_content else step
        line = self.session.line
        for start in range(0, len(uids), step):
            part = uids[start : start + step]
            seen = await self._mark_seen(part) if self.marks_seen else set[int]()
            rows = await self.session.resources.database.read(
                lambda tx, part=part: messages.select(  # type: ignore[misc]  # a default binds the loop's value
                    tx, self.columns, self.view.account_id, self.view.mailbox_id, part, self.extra
                )
            )
            if self.reads_content:
                for row in rows:
                    try:
                        await self._with_content(row, show_flags=row[0] in seen)
                    except Damaged:  # told where it was found; the others go on
                        self.damaged = f"UID {row[0]}"
                    except StoreError as error:  # removed by another session just now
                        self.lost = str(error)
            else:
                await line.send(self._lines(rows))

    def _lines(self, rows: list[Row]) -> bytes:
        """Many rows at once, without content: column by column, and one format for the whole line."""
        if not rows:
            return b""
        columns = list(zip(*rows, strict=True))
        shown = [self._shown(item, columns) for item in self.items if isinstance(item, str)]
        line = b"* %d FETCH (" + b" ".join([form for form, _ in shown]) + b")\r\n"
        numbers = self.view.numbers(columns[0])
        return b"".join([line % values for values in zip(numbers, *(column for _, column in shown), strict=True)])

    def _shown(self, item: str, columns: Sequence[Sequence[Any]]) -> tuple[bytes, Iterable[Any]]:
        """How an item is shown, and its values for every row."""
        place = self.place
        match item:
            case "UID":
                return b"UID %d", columns[0]
            case "FLAGS":
                values = map(self.view.shown_flags, columns[0], columns[place[_FLAGS]], columns[place[_KEYWORDS]])
                return b"FLAGS (%b)", values
            case "INTERNALDATE":
                return b'INTERNALDATE "%b"', map(render.date_time, columns[place[_DATE]], columns[place[_ZONE]])
            case "SAVEDATE":
                return b'SAVEDATE "%b"', [render.date_time(at, 0) for at in columns[place[_SAVED]]]
            case "RFC822.SIZE":
                return b"RFC822.SIZE %d", columns[place[_SIZE]]
            case "ENVELOPE":
                return b"ENVELOPE %b", columns[place[_ENVELOPE]]
            case "BODYSTRUCTURE":
                return b"BODYSTRUCTURE %b", columns[place[_STRUCTURE]]
            case "MODSEQ":
                return b"MODSEQ (%d)", columns[place[_MODSEQ]]
            case _:
                raise AssertionError(item)

    def _show_one(self, item: str, row: Row) -> bytes:
        form, values = self._shown(item, [(value,) for value in row])
        shown: bytes = form % next(iter(values))
        return shown

    async def _with_content(self, row: Row, *, show_flags: bool) -> None:
        ref = BlobRef(*(row[self.place[column]] for column in (_BLOB, _SEGMENT, _PLACE, _SIZE)))
        resources = self.session.resources
        session = self.session
        content = Content(
            resources.blobs, ref, row[self.place[_HEADER]], resources.spool, trees=session.trees, turn=session.line.turn
        )
        shown: list[tuple[bytes, Extent]] = []  # nothing is said before all are known
        for item in self.items:
            shown.append(await self._item(content, item, row))
            await self.session.line.turn()
        if show_flags and "FLAGS" not in self.items:
            shown.append((self._show_one("FLAGS", row), NOTHING))
            if self.session.condstore and "MODSEQ" not in self.items:
                shown.append((self._show_one("MODSEQ", row), NOTHING))
        number = self.view.number(row[0])
        if sum([extent.size for _, extent in shown]) <= SEND_OCTETS:
            said = [text + await extent.read(0, SEND_OCTETS) for text, extent in shown]
            await self.session.line.send(b"* %d FETCH (%b)\r\n" % (number, b" ".join(said)))
            return
        await content.prove()
        await self._stream(number, shown)

    async def _stream(self, number: int, shown: Sequence[tuple[bytes, Extent]]) -> None:
        """A response that is read while it is said."""
        reply = Reply(self.session.line)
        await reply.say(b"* %d FETCH (" % number)
        try:
            for place, (text, extent) in enumerate(shown):
                await reply.say(b" " + text if place else text)
                await reply.say_extent(extent)
        except StoreError as error:  # the client counts on what was announced
            self.session.resources.telemetry.event("store.error", self.session.trace_id, reason=str(error))
            raise ProtocolError("content was lost while it was sent") from None
        await reply.say(b")\r\n")
        await reply.end()

    async def _item(self, content: Content, item: str | t.Section, row: Row) -> tuple[bytes, Extent]:
        """What is said of an item, and the octets behind it."""
        if isinstance(item, t.Section):
            return await self._section(content, item)
        if item == "BODY":
            return b"BODY " + render.body_structure(await content.root(), extended=False), NOTHING
        return self._show_one(item, row), NOTHING

    @staticmethod
    async def _section(content: Content, section: t.Section) -> tuple[bytes, Extent]:
        extent, nul = await content.binary(section) if section.binary else (await content.extent(section), False)
        label = section.alias or section.label
        if section.size_only:
            return b"%b %d" % (label, extent.size if extent is not None else 0), NOTHING
        if section.partial is not None:
            start, length = section.partial
            extent = Cut(extent, start, length) if extent is not None else None
            label += b"<%d>" % start
        if extent is None:
            return label + b" NIL", NOTHING
        if nul:
            return label + b" ~{%d}\r\n" % extent.size, extent
        return label + b" {%d}\r\n" % extent.size, WithoutNul(extent)

    async def _mark_seen(self, uids: list[int]) -> set[int]:
        """Set \\Seen where it is not; the UIDs that were changed."""
        view = self.view
        rows = await self.session.resources.database.read(
            lambda tx: messages.select(tx, "uid", view.account_id, view.mailbox_id, uids, f" AND (flags & {SEEN})=0")
        )
        unseen = [row[0] for row in rows]
        if unseen:
            await _store(self.session, view, unseen, "+", Flags(SEEN), None)
        return set(unseen)


# -- STORE


async def store(session: ImapContext, command: t.Store) -> str:
    view = session.selected
    if view.read_only:
        raise No("[READ-ONLY] the mailbox was opened with EXAMINE")
    uids = await view.choose(session.resources.database, command.numbers, uid=command.uid)
    if uids is None:
        raise No("there is no message with that number", "BAD")
    if command.unchanged_since is not None:
        session.use_condstore()
    names = [name for name in command.flags if name.lower() != "\\recent"]
    flags = parse_flags(names)
    await session.tell_news(expunge=False)
    after, refused = await _store(session, view, uids, command.how, flags, command.unchanged_since)
    for uid, bits, keywords, modseq in after:
        if not command.silent:
            shown = command.uid or session.condstore
            session.engine.untagged(flags_response(session, view, uid, bits, keywords, modseq, uid_shown=shown))
        elif session.condstore:
            line = (view.number(uid), b"UID %d MODSEQ (%d)" % (uid, modseq))
            session.engine.untagged(b"%d FETCH (%b)" % line)
    if refused:
        numbers = refused if command.uid else [view.number(uid) for uid in refused]
        return f"[MODIFIED {render.number_set(numbers).decode()}] some were changed by others"
    return "stored"


async def _store(
    session: ImapContext, view: View, uids: list[int], how: str, flags: Flags, unchanged: int | None
) -> tuple[list[tuple[int, int, str, int]], list[int]]:
    after, refused, before = await session.resources.database.write(
        lambda tx: messages.store_flags(tx, view.account_id, view.mailbox_id, uids, how, flags, unchanged)
    )
    changed = {uid: modseq for uid, _, _, modseq in after if modseq > before}
    view.own.update(changed)
    if changed and before == view.modseq and not view.awaiting_expunge and not flags.keywords:
        view.modseq = before + 1  # nobody else changed anything: there is nothing to look for
        view.own.clear()
    return after, refused


# -- EXPUNGE, COPY, MOVE


async def expunge(session: ImapContext, command: t.Expunge) -> str:
    view = session.selected
    if view.read_only:
        raise No("[READ-ONLY] the mailbox was opened with EXAMINE")
    uids = None
    if command.numbers is not None:
        uids = await view.choose(session.resources.database, command.numbers, uid=True)
    modseq = await remove_deleted(session, view, uids)
    return f"[HIGHESTMODSEQ {modseq}] expunged" if modseq and session.condstore else "expunged"


async def remove_deleted(session: ImapContext, view: View, uids: list[int] | None = None) -> int:
    """Remove what is \\Deleted; returns the MODSEQ of the removal, 0 when nothing was removed."""
    known = uids if uids is not None else await view.uids(session.resources.database)
    _gone, modseq = await session.resources.database.write(
        lambda tx: messages.expunge(tx, view.account_id, view.mailbox_id, known)
    )
    return modseq


async def copy(session: ImapContext, command: t.Copy) -> str | None:
    view, now = session.selected, int(session.resources.env.clock.now())
    if command.move and view.read_only:
        raise No("[READ-ONLY] the mailbox was opened with EXAMINE")
    uids = await view.choose(session.resources.database, command.numbers, uid=command.uid)
    if uids is None:
        raise No("there is no message with that number", "BAD")

    def unit(tx: Transaction) -> messages.Copied:
        try:
            target = mailboxes.find(tx, view.account_id, command.mailbox)
        except mailboxes.NoSuchMailbox:
            raise No("[TRYCREATE] there is no such mailbox") from None
        if target.noselect:
            raise No("[CANNOT] this is only a level of names")
        return messages.copy(tx, view.account_id, view.mailbox_id, uids, target.mailbox_id, now, move=command.move)

    copied = await session.resources.database.write(unit)
    if not copied.sources:
        return "nothing to copy"
    sources, targets = render.number_list(copied.sources).decode(), render.number_list(copied.targets).decode()
    code = f"[COPYUID {copied.uidvalidity} {sources} {targets}]"
    if not command.move:
        return f"{code} copied"
    session.engine.untagged(f"OK {code} moved".encode())  # before the EXPUNGEs (RFC 6851 §4.3)
    await session.tell_news(expunge=True)
    return f"[HIGHESTMODSEQ {copied.modseq}] moved" if session.condstore else "moved"


# -- APPEND


async def _kept(session: ImapContext, message: t.AppendMessage, now: int) -> Letter:
    """One message made durable; it is whole in memory only here."""
    octets = message.content if isinstance(message.content, bytes) else message.content.whole()
    if not octets:
        raise No("an empty message is not kept")
    flags = parse_flags(name for name in message.flags if name.lower() != "\\recent")
    content = as_kept(octets)
    blob = await session.resources.blobs.put([content])
    moment = now if message.internaldate is None else message.internaldate
    bits, keywords = flags.bits, " ".join(flags.keywords)
    return describe(content, blob, internaldate=moment, zone=message.zone, flags=bits, keywords=keywords)


async def append(session: ImapContext, command: t.Append) -> str:
    account_id, now = session.account_id, int(session.resources.env.clock.now())
    database = session.resources.database
    try:
        target = await database.read(lambda tx: mailboxes.find(tx, account_id, command.mailbox))
    except mailboxes.NoSuchMailbox:
        raise No("[TRYCREATE] there is no such mailbox") from None
    letters: list[Letter] = []
    for message in command.messages:
        size = len(message.content) if isinstance(message.content, bytes) else message.content.size
        try:
            async with session.resources.memory.held(size):
                letters.append(await _kept(session, message, now))
        except NoMemory:
            raise No("[LIMIT] too much is coming in, try again later") from None

    def unit(tx: Transaction) -> tuple[int, list[int]]:
        added: list[int] = []
        validity = 0
        for letter in letters:
            uid, validity, _ = messages.add(tx, account_id, target.mailbox_id, letter, now)
            added.append(uid)
        return validity, added

    validity, added = await database.write(unit)
    return f"[APPENDUID {validity} {render.number_list(added).decode()}] kept"

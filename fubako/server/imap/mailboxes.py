"""Commands on mailboxes: SELECT's answer, LIST and LSUB, STATUS, CREATE, DELETE, RENAME, SUBSCRIBE."""

from collections.abc import Iterable, Iterator

from fubako.protocol.imap import render
from fubako.protocol.imap import types as t
from fubako.protocol.imap.parse import SPECIAL_USES
from fubako.protocol.imap.patterns import NamePatterns, PatternsTooLong
from fubako.server.imap.context import SYSTEM_FLAGS, ImapContext, flags_line, recent_count
from fubako.server.imap.outcome import No
from fubako.server.imap.view import View
from fubako.store import mailboxes, messages
from fubako.store.interface import Transaction
from fubako.store.mailboxes import DELIMITER, MailboxState
from fubako.store.messages import SEEN

# -- SELECT


async def open_view(session: ImapContext, command: t.Select) -> View:
    account_id, database = session.account_id, session.resources.database
    box = await database.read(lambda tx: mailboxes.find(tx, account_id, command.mailbox))
    if box.noselect:
        raise No("[NONEXISTENT] this is only a level of names")
    recent = box.uidnext
    if not session.rev2:
        recent = await _recent_from(session, box, read_only=command.read_only)
    return View(account_id, box, read_only=command.read_only, recent=recent)


async def _recent_from(session: ImapContext, box: MailboxState, *, read_only: bool) -> int:
    """The first \\Recent UID; claimed only when there is one, so that a quiet mailbox costs no commit."""
    key = (session.account_id, box.mailbox_id)
    database = session.resources.database
    row = await database.read(lambda tx: tx.row("SELECT recent FROM mailbox WHERE account_id=? AND mailbox_id=?", key))
    first = int(row[0]) if row else box.uidnext
    if read_only or first >= box.uidnext:
        return first
    return await database.write(lambda tx: mailboxes.claim_recent(tx, *key))


async def announce(session: ImapContext, view: View, command: t.Select) -> None:
    """What SELECT tells (RFC 9051 §6.3.2, RFC 3501 §6.3.1, RFC 7162 §3.1.2.1, §3.2.5)."""
    say = session.engine.untagged
    say(flags_line(view.keywords))
    kept = " \\*)" if not view.read_only else ")"
    flags = f"{SYSTEM_FLAGS}{' ' + view.keywords if view.keywords else ''}" if not view.read_only else ""
    say(f"OK [PERMANENTFLAGS ({flags}{kept}] these are kept".encode())
    say(b"%d EXISTS" % view.exists)
    if session.rev2:
        say(b'LIST () "/" ' + session.shown_name(view.name))
    else:
        say(b"%d RECENT" % await recent_count(session, view))
        unseen = await _first_unseen(session, view)
        if unseen:
            say(b"OK [UNSEEN %d] the first one not seen" % unseen)
    say(b"OK [UIDVALIDITY %d] UIDs hold" % view.uidvalidity)
    say(b"OK [UIDNEXT %d] the next UID" % view.uidnext)
    say(b"OK [HIGHESTMODSEQ %d] the last change" % view.modseq)
    if command.qresync is not None:
        await _resynchronise(session, view, command.qresync)


async def _first_unseen(session: ImapContext, view: View) -> int:
    if not view.exists:
        return 0
    row = await session.resources.database.read(
        lambda tx: tx.row(
            "SELECT unseen FROM mailbox WHERE account_id=? AND mailbox_id=?", (view.account_id, view.mailbox_id)
        )
    )
    if not row or not row[0]:
        return 0
    first = await session.resources.database.read(
        lambda tx: tx.row(
            "SELECT uid FROM message WHERE account_id=? AND mailbox_id=? AND (flags & ?)=0 ORDER BY uid LIMIT 1",
            (view.account_id, view.mailbox_id, SEEN),
        )
    )
    if first is None:
        return 0
    count = await session.resources.database.read(
        lambda tx: tx.row(
            "SELECT count(*) FROM message WHERE account_id=? AND mailbox_id=? AND uid<=?",
            (view.account_id, view.mailbox_id, first[0]),
        )
    )
    return int(count[0]) if count else 0


async def _resynchronise(session: ImapContext, view: View, wanted: tuple[int, int, t.SequenceSet | None]) -> None:
    """VANISHED (EARLIER) and the flags that changed since the client's MODSEQ."""
    validity, modseq, known = wanted
    if validity != view.uidvalidity:
        return
    key = (view.account_id, view.mailbox_id)

    def unit(tx: Transaction) -> tuple[list[int], list[tuple[int, int, str, int]]]:
        return messages.expunged_since(tx, *key, modseq), messages.changed_since(tx, *key, modseq)

    await view.uids(session.resources.database)
    gone, changed = await session.resources.database.read(unit)
    if known is not None:
        ranges = known.resolve(view.uidnext)
        gone = [uid for uid in gone if t.within(ranges, uid)]
        changed = [row for row in changed if t.within(ranges, row[0])]
    if gone:
        session.engine.untagged(b"VANISHED (EARLIER) " + render.number_set(gone))
    await session.tell_flags([row for row in changed if row[0] < view.uidnext], uid_shown=True)


# -- LIST


def _patterns(reference: str, patterns: Iterable[str]) -> NamePatterns:
    """Raises No."""
    whole: list[str] = []
    for pattern in patterns:
        head, delimiter, rest = (reference + pattern).partition(DELIMITER)
        whole.append(("INBOX" if head.upper() == "INBOX" else head) + delimiter + rest)
    try:
        return NamePatterns(whole, DELIMITER)
    except PatternsTooLong as error:
        raise No(f"[LIMIT] {error}") from None


def _above(names: Iterable[str]) -> set[str]:
    """Every level above one of the names; each is looked at once."""
    found: set[str] = set()
    for name in names:
        while (place := name.rfind(DELIMITER)) > 0:
            name = name[:place]
            if name in found:
                break
            found.add(name)
    return found


async def list_(session: ImapContext, command: t.List) -> str:
    account_id = session.account_id

    def unit(tx: Transaction) -> tuple[list[MailboxState], set[str]]:
        return mailboxes.all_of(tx, account_id), set(mailboxes.subscriptions(tx, account_id))

    if command.patterns == ("",) and not command.lsub:
        session.engine.untagged(b'LIST (\\Noselect) "/" ""')
        return "listed"
    patterns = _patterns(command.reference, command.patterns)
    boxes, subscribed = await session.resources.database.read(unit)
    if command.lsub:
        await session.line.send_all(_lsub(session, command, patterns, boxes, subscribed))
        return "listed"
    listing = _Listing(session, command, patterns, boxes, subscribed)
    await session.line.send_all(listing.lines())
    if command.status:
        states = (box for box in listing.shown if not box.noselect)
        await session.line.send_all(_untagged(_status_line(session, box, command.status)) for box in states)
    return "listed"


def _untagged(text: bytes) -> bytes:
    return b"* " + text + b"\r\n"


class _Listing:
    """One LIST. `shown`: the mailboxes that were listed."""

    def __init__(
        self,
        session: ImapContext,
        command: t.List,
        patterns: NamePatterns,
        boxes: list[MailboxState],
        subscribed: set[str],
    ) -> None:
        self.session, self.command, self.patterns, self.subscribed = session, command, patterns, subscribed
        self.boxes = {box.name: box for box in boxes}
        self.parents = _above(self.boxes)
        self.hidden_below: set[str] = set()
        self.shown: list[MailboxState] = []

    def lines(self) -> Iterator[bytes]:
        """A response for each name that is shown, and nothing for each that was only looked at."""
        select, boxes = self.command.select, self.boxes
        if "RECURSIVEMATCH" in select:
            # a level is shown for what lies below it and is not shown itself (RFC 5258 §3.5)
            hidden: list[str] = []
            for name in self.subscribed:
                if not self.patterns.match(name):
                    hidden.append(name)
                yield b""
            self.hidden_below = _above(hidden)
        names = set(boxes) | (self.subscribed if "SUBSCRIBED" in select else set())
        for name in sorted(names, key=lambda name: (name != "INBOX", name)):
            line = self._line(name) if self.patterns.match(name) else b""
            if line and name in boxes:
                self.shown.append(boxes[name])
            yield line

    def _line(self, name: str) -> bytes:
        select, box = self.command.select, self.boxes.get(name)
        subscribed, recursive = name in self.subscribed, name in self.hidden_below
        if "SUBSCRIBED" in select and not subscribed and not recursive:
            return b""
        if "SPECIAL-USE" in select and (box is None or not box.special_use):
            return b""
        line = b'LIST (%b) "/" %b' % (" ".join(self._attributes(name, box)).encode(), self.session.shown_name(name))
        return _untagged(line + (b' ("CHILDINFO" ("SUBSCRIBED"))' if recursive else b""))

    def _attributes(self, name: str, box: MailboxState | None) -> list[str]:
        attributes: list[str] = []
        if box is None:
            attributes.append("\\NonExistent")
        elif box.noselect:
            attributes.append("\\Noselect")
        attributes.append("\\HasChildren" if name in self.parents else "\\HasNoChildren")
        asked = "SUBSCRIBED" in self.command.select or "SUBSCRIBED" in self.command.returns
        if asked and name in self.subscribed:
            attributes.append("\\Subscribed")
        if box is not None and box.special_use:
            attributes.append(box.special_use)
        return attributes


def _lsub(
    session: ImapContext, command: t.List, patterns: NamePatterns, boxes: list[MailboxState], subscribed: set[str]
) -> Iterator[bytes]:
    """LSUB; with `%` a level above a subscribed name is shown as \\Noselect (RFC 3501 §6.3.9)."""
    names: dict[str, bool] = {}
    hidden: list[str] = []
    for name in subscribed:
        if patterns.match(name):
            names[name] = True
        else:
            hidden.append(name)
        yield b""
    for above in _above(hidden) if "%" in "".join(command.patterns) else ():
        if patterns.match(above):
            names.setdefault(above, False)
        yield b""
    existing = {box.name for box in boxes if not box.noselect}
    for name in sorted(names):
        flags = b"" if names[name] and name in existing else b"\\Noselect"
        yield _untagged(b'LSUB (%b) "/" %b' % (flags, session.shown_name(name)))


# -- STATUS


def _status_line(session: ImapContext, box: MailboxState, items: Iterable[str]) -> bytes:
    values = {
        "MESSAGES": box.messages,
        "UIDNEXT": box.uidnext,
        "UIDVALIDITY": box.uidvalidity,
        "UNSEEN": box.unseen,
        "HIGHESTMODSEQ": box.modseq,
        "SIZE": box.octets,
        "DELETED": box.deleted,
        "APPENDLIMIT": session.resources.limits.append_octets_max,
        "RECENT": 0,
    }
    shown = " ".join(f"{item} {values[item]}" for item in items)
    return b"STATUS %b (%b)" % (session.shown_name(box.name), shown.encode())


async def status(session: ImapContext, command: t.Status) -> str:
    account_id = session.account_id

    def unit(tx: Transaction) -> tuple[MailboxState, int]:
        box = mailboxes.find(tx, account_id, command.mailbox)
        if "RECENT" not in command.items:
            return box, 0
        row = tx.row(
            "SELECT count(*) FROM message JOIN mailbox ON mailbox.account_id=message.account_id"
            " AND mailbox.mailbox_id=message.mailbox_id WHERE message.account_id=? AND message.mailbox_id=?"
            " AND uid>=recent",
            (account_id, box.mailbox_id),
        )
        return box, int(row[0]) if row else 0

    box, recent = await session.resources.database.read(unit)
    if box.noselect:
        raise No("[NONEXISTENT] this is only a level of names")
    if "HIGHESTMODSEQ" in command.items:
        session.use_condstore()
    line = _status_line(session, box, command.items)
    session.engine.untagged(line.replace(b"RECENT 0", b"RECENT %d" % recent))
    return "counted"


# -- changes


async def change(session: ImapContext, command: t.Create | t.Rename | t.OnMailbox) -> str:
    account_id, now = session.account_id, int(session.resources.env.clock.now())
    write = session.resources.database.write
    match command:
        case t.Create(name, uses):
            if any(use not in SPECIAL_USES for use in uses) or len(uses) > 1:
                raise No("[USEATTR] one special use of RFC 6154 at most")
            use = uses[0] if uses else ""
            await write(lambda tx: mailboxes.create(tx, account_id, name, now, use))
            return "created"
        case t.Rename(old, new):
            await write(lambda tx: mailboxes.rename(tx, account_id, old, new, now))
            return "renamed"
        case t.OnMailbox("DELETE", name):
            box = await write(lambda tx: mailboxes.delete(tx, account_id, name))
            if session.view is not None and session.view.mailbox_id == box.mailbox_id:
                session.leave()
            return "deleted"
        case t.OnMailbox("SUBSCRIBE", name):
            await write(lambda tx: mailboxes.subscribe(tx, account_id, mailboxes.check_name(name)))
            return "subscribed"
        case t.OnMailbox(_, name):
            await write(lambda tx: mailboxes.unsubscribe(tx, account_id, name))
            return "unsubscribed"

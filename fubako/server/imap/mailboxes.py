"""Commands on mailboxes: SELECT's answer, LIST and LSUB, STATUS, CREATE, DELETE, RENAME, SUBSCRIBE."""

import re
from collections.abc import Iterable

from fubako.protocol.imap import render
from fubako.protocol.imap import types as t
from fubako.protocol.imap.parse import SPECIAL_USES
from fubako.server.imap.context import SYSTEM_FLAGS, ImapContext, flags_line, flags_response, recent_count
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
        gone = [uid for uid in gone if any(low <= uid <= high for low, high in ranges)]
        changed = [row for row in changed if any(low <= row[0] <= high for low, high in ranges)]
    if gone:
        session.engine.untagged(b"VANISHED (EARLIER) " + render.number_set(gone))
    for uid, bits, keywords, changed_modseq in changed:
        if uid < view.uidnext:
            session.engine.untagged(flags_response(session, view, uid, bits, keywords, changed_modseq, uid_shown=True))


# -- LIST


def _matcher(reference: str, patterns: Iterable[str]) -> re.Pattern[str]:
    """One expression for all patterns: `*` is anything, `%` anything within a level (RFC 9051 §6.3.9)."""
    out: list[str] = []
    for pattern in patterns:
        full = reference + pattern
        head, delimiter, rest = full.partition(DELIMITER)
        if head.upper() == "INBOX":
            full = "INBOX" + delimiter + rest
        words = re.split(r"([*%])", re.sub(r"\*[*%]*|%+\*[*%]*", "*", full))
        out.append("".join(".*" if w == "*" else "[^/]*" if w == "%" else re.escape(w) for w in words))
    return re.compile("|".join(f"(?:{one})" for one in out), re.DOTALL)


async def list_(session: ImapContext, command: t.List) -> str:
    account_id = session.account_id

    def unit(tx: Transaction) -> tuple[list[MailboxState], set[str]]:
        return mailboxes.all_of(tx, account_id), set(mailboxes.subscriptions(tx, account_id))

    if command.patterns == ("",) and not command.lsub:
        session.engine.untagged(b'LIST (\\Noselect) "/" ""')
        return "listed"
    boxes, subscribed = await session.resources.database.read(unit)
    if command.lsub:
        _lsub(session, command, boxes, subscribed)
        return "listed"
    matcher = _matcher(command.reference, command.patterns)
    by_name = {box.name: box for box in boxes}
    names = set(by_name) | (subscribed if "SUBSCRIBED" in command.select else set())
    shown: list[MailboxState] = []
    for name in sorted(names, key=lambda name: (name != "INBOX", name)):
        if not matcher.fullmatch(name):
            continue
        if _show(session, command, name, by_name, subscribed, matcher) and name in by_name:
            shown.append(by_name[name])
    for box in shown if command.status else ():
        if not box.noselect:
            session.engine.untagged(_status_line(session, box, command.status))
    return "listed"


def _show(
    session: ImapContext,
    command: t.List,
    name: str,
    by_name: dict[str, MailboxState],
    subscribed: set[str],
    matcher: re.Pattern[str],
) -> bool:
    box = by_name.get(name)
    prefix = name + DELIMITER
    below = name in subscribed
    # a level is shown for what lies below it and is not shown itself (RFC 5258 §3.5)
    hidden = (other for other in subscribed if other.startswith(prefix) and not matcher.fullmatch(other))
    recursive = "RECURSIVEMATCH" in command.select and any(hidden)
    if "SUBSCRIBED" in command.select and not below and not recursive:
        return False
    if "SPECIAL-USE" in command.select and (box is None or not box.special_use):
        return False
    attributes: list[str] = []
    if box is None:
        attributes.append("\\NonExistent")
    elif box.noselect:
        attributes.append("\\Noselect")
    has_children = any(other.startswith(prefix) for other in by_name)
    attributes.append("\\HasChildren" if has_children else "\\HasNoChildren")
    if below and ("SUBSCRIBED" in command.select or "SUBSCRIBED" in command.returns):
        attributes.append("\\Subscribed")
    if box is not None and box.special_use:
        attributes.append(box.special_use)
    line = b'LIST (%b) "/" %b' % (" ".join(attributes).encode(), session.shown_name(name))
    if recursive:
        line += b' ("CHILDINFO" ("SUBSCRIBED"))'
    session.engine.untagged(line)
    return True


def _lsub(session: ImapContext, command: t.List, boxes: list[MailboxState], subscribed: set[str]) -> None:
    """LSUB; with `%` a level above a subscribed name is shown as \\Noselect (RFC 3501 §6.3.9)."""
    matcher = _matcher(command.reference, command.patterns)
    names: dict[str, bool] = {}
    for name in subscribed:
        if matcher.fullmatch(name):
            names[name] = True
        elif "%" in "".join(command.patterns):
            levels = name.split(DELIMITER)
            for depth in range(1, len(levels)):
                above = DELIMITER.join(levels[:depth])
                if matcher.fullmatch(above):
                    names.setdefault(above, False)
    existing = {box.name for box in boxes if not box.noselect}
    for name in sorted(names):
        flags = b"" if names[name] and name in existing else b"\\Noselect"
        session.engine.untagged(b'LSUB (%b) "/" %b' % (flags, session.shown_name(name)))


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

"""Mailboxes of an account: units of work that make, name, list, count and remove them.

Every function takes a transaction first and may be run again. Names are Unicode with "/" between levels; INBOX is
spelled so and has id 1 in every account.
"""

from dataclasses import dataclass

from fubako.store.interface import StoreError, Transaction

DELIMITER = "/"
INBOX_ID = 1
NAME_OCTETS_MAX = 1000
LEVELS_MAX = 32
MAILBOXES_MAX = 10_000
SUBSCRIPTIONS_MAX = 20_000  # names that need not exist
KEYWORDS_LISTED_MAX = 200

# name -> special use (RFC 6154), made with every account
DEFAULTS = (("INBOX", ""), ("Archive", "\\Archive"), ("Drafts", "\\Drafts"), ("Junk", "\\Junk"), ("Sent", "\\Sent"),
            ("Trash", "\\Trash"))  # fmt: skip

_COLUMNS = (
    "mailbox_id, name, uidvalidity, uidnext, modseq, messages, unseen, deleted, octets, special_use, noselect, keywords"
)


class NoSuchMailbox(StoreError):
    """There is no mailbox of that name."""


class MailboxExists(StoreError):
    """There is one already."""


class NotPermitted(StoreError):
    """This mailbox cannot be treated so; the message says why."""


@dataclass(frozen=True, slots=True)
class MailboxState:
    """One row of `mailbox`, as of one moment."""

    mailbox_id: int
    name: str
    uidvalidity: int
    uidnext: int
    modseq: int
    messages: int
    unseen: int
    deleted: int
    octets: int
    special_use: str
    noselect: int
    keywords: str  # every keyword that a message here has or had, separated by blanks


def canonical(name: str) -> str:
    """The name as kept: INBOX in capitals, also as the first level (RFC 9051 §5.1)."""
    head, delimiter, rest = name.partition(DELIMITER)
    return ("INBOX" if head.upper() == "INBOX" else head) + delimiter + rest


def check_name(name: str) -> str:
    """The canonical name. Raises NotPermitted for one that cannot be created."""
    name = canonical(name.rstrip(DELIMITER))
    levels = name.split(DELIMITER)
    if not name or len(name.encode()) > NAME_OCTETS_MAX or len(levels) > LEVELS_MAX:
        raise NotPermitted("the name is empty, too long or too deep")
    if any(not level or level in (".", "..") for level in levels):
        raise NotPermitted("a level of the name is empty, . or ..")
    if any(ord(c) < 32 or 127 <= ord(c) < 160 or c in "*%" or "\ud800" <= c <= "\udfff" for c in name):
        raise NotPermitted("the name holds a character that is not allowed")
    return name


def all_of(tx: Transaction, account_id: int) -> list[MailboxState]:
    rows = tx.rows(f"SELECT {_COLUMNS} FROM mailbox WHERE account_id=? ORDER BY name", (account_id,))
    return [MailboxState(*row) for row in rows]


def find(tx: Transaction, account_id: int, name: str) -> MailboxState:
    row = tx.row(f"SELECT {_COLUMNS} FROM mailbox WHERE account_id=? AND name=?", (account_id, canonical(name)))
    if row is None:
        raise NoSuchMailbox(f"there is no mailbox {name}")
    return MailboxState(*row)


def state(tx: Transaction, account_id: int, mailbox_id: int) -> MailboxState | None:
    row = tx.row(f"SELECT {_COLUMNS} FROM mailbox WHERE account_id=? AND mailbox_id=?", (account_id, mailbox_id))
    return None if row is None else MailboxState(*row)


def create(tx: Transaction, account_id: int, name: str, now: int, special_use: str = "") -> MailboxState:
    """A new mailbox, and the levels above it that are missing. Raises MailboxExists, NotPermitted."""
    name = check_name(name)
    existing = {box.name: box for box in all_of(tx, account_id)}
    if len(existing) >= MAILBOXES_MAX:
        raise NotPermitted("the account has too many mailboxes")
    if name in existing and not existing[name].noselect:
        raise MailboxExists(f"there is a mailbox {name} already")
    levels = name.split(DELIMITER)
    for depth in range(1, len(levels)):
        above = DELIMITER.join(levels[:depth])
        if above not in existing:
            _insert(tx, account_id, above, now, "")
    if name in existing:  # it was only a level so far
        box = existing[name]
        validity = _next_validity(tx, account_id, now)
        tx.run("UPDATE mailbox SET noselect=0, uidvalidity=?, special_use=? WHERE account_id=? AND mailbox_id=?",
               (validity, special_use, account_id, box.mailbox_id))  # fmt: skip
    else:
        _insert(tx, account_id, name, now, special_use)
    return find(tx, account_id, name)


def _next_validity(tx: Transaction, account_id: int, now: int) -> int:
    """Never used before in this account: the clock, or one more than the last (a clock may go backwards)."""
    row = tx.row("SELECT uidvalidity FROM account WHERE account_id=?", (account_id,))
    validity = max(now, int(row[0]) + 1 if row else 0)
    tx.run("UPDATE account SET uidvalidity=? WHERE account_id=?", (validity, account_id))
    return validity


def _insert(tx: Transaction, account_id: int, name: str, now: int, special_use: str) -> int:
    row = tx.row(
        "UPDATE account SET mailbox_next=mailbox_next+1 WHERE account_id=? RETURNING mailbox_next-1", (account_id,)
    )
    if row is None:
        raise StoreError("there is no such account")
    mailbox_id = int(row[0])
    validity = _next_validity(tx, account_id, now)
    tx.run("INSERT INTO mailbox (account_id, mailbox_id, name, uidvalidity, uidnext, modseq, recent, messages, unseen,"
           " deleted, octets, special_use, noselect) VALUES (?,?,?,?,1,1,1,0,0,0,0,?,0)",
           (account_id, mailbox_id, name, validity, special_use))  # fmt: skip
    return mailbox_id


def create_defaults(tx: Transaction, account_id: int, now: int) -> None:
    for name, special_use in DEFAULTS:
        _insert(tx, account_id, name, now, special_use)
        subscribe(tx, account_id, name)


def delete(tx: Transaction, account_id: int, name: str) -> MailboxState:
    """Remove a mailbox and its messages; one with levels below stays as a level (RFC 9051 §6.3.5)."""
    box = find(tx, account_id, name)
    if box.mailbox_id == INBOX_ID:
        raise NotPermitted("INBOX cannot be deleted")
    below = tx.row("SELECT 1 FROM mailbox WHERE account_id=? AND name>? AND name<? LIMIT 1",
                   (account_id, box.name + DELIMITER, box.name + chr(ord(DELIMITER) + 1)))  # fmt: skip
    if box.noselect and below:
        raise NotPermitted("the mailbox has levels below it")
    key = (account_id, box.mailbox_id)
    tx.run("DELETE FROM message WHERE account_id=? AND mailbox_id=?", key)
    tx.run("DELETE FROM expunged WHERE account_id=? AND mailbox_id=?", key)
    if below:
        tx.run("UPDATE mailbox SET noselect=1, messages=0, unseen=0, deleted=0, octets=0, modseq=modseq+1, special_use=''"
               " WHERE account_id=? AND mailbox_id=?", key)  # fmt: skip
    else:
        tx.run("DELETE FROM mailbox WHERE account_id=? AND mailbox_id=?", key)
    tx.touched(key)
    return box


def rename(tx: Transaction, account_id: int, old: str, new: str, now: int) -> None:
    """Rename a mailbox and all below it; UIDs and UIDVALIDITY stay. INBOX gives its messages to a new mailbox."""
    box = find(tx, account_id, old)
    new = check_name(new)
    existing = {other.name for other in all_of(tx, account_id)}
    if new in existing:
        raise MailboxExists(f"there is a mailbox {new} already")
    if new.startswith(box.name + DELIMITER):
        raise NotPermitted("a mailbox cannot be moved below itself")
    if box.mailbox_id == INBOX_ID:
        _rename_inbox(tx, account_id, box, new, now)
        return
    levels = new.split(DELIMITER)
    for depth in range(1, len(levels)):
        above = DELIMITER.join(levels[:depth])
        if above not in existing:
            _insert(tx, account_id, above, now, "")
    for name in existing:
        if name == box.name or name.startswith(box.name + DELIMITER):
            tx.run(
                "UPDATE mailbox SET name=? WHERE account_id=? AND name=?",
                (new + name[len(box.name) :], account_id, name),
            )


def _rename_inbox(tx: Transaction, account_id: int, box: MailboxState, new: str, now: int) -> None:
    target = create(tx, account_id, new, now)
    key = (account_id, box.mailbox_id)
    tx.run("UPDATE mailbox SET uidnext=?, modseq=?, messages=?, unseen=?, deleted=?, octets=?"
           " WHERE account_id=? AND mailbox_id=?",
           (box.uidnext, box.modseq, box.messages, box.unseen, box.deleted, box.octets, account_id, target.mailbox_id))  # fmt: skip
    tx.run("INSERT INTO expunged (account_id, mailbox_id, modseq, uid) SELECT account_id, mailbox_id, ?, uid FROM message"
           " WHERE account_id=? AND mailbox_id=?", (box.modseq + 1, *key))  # fmt: skip
    tx.run("UPDATE message SET mailbox_id=? WHERE account_id=? AND mailbox_id=?", (target.mailbox_id, *key))
    tx.run(
        "UPDATE mailbox SET messages=0, unseen=0, deleted=0, octets=0, modseq=modseq+1 WHERE account_id=? AND mailbox_id=?",
        key,
    )
    tx.touched(key)


def note_keywords(tx: Transaction, account_id: int, mailbox_id: int, known: str, used: str) -> None:
    """Keep the list of a mailbox's keywords: clients are told of it (RFC 9051 §7.3.5)."""
    have = known.split()
    lower = {keyword.lower() for keyword in have}
    fresh = [keyword for keyword in dict.fromkeys(used.split()) if keyword.lower() not in lower]
    if fresh:
        kept = " ".join([*have, *fresh][:KEYWORDS_LISTED_MAX])
        tx.run("UPDATE mailbox SET keywords=? WHERE account_id=? AND mailbox_id=?", (kept, account_id, mailbox_id))


def subscribe(tx: Transaction, account_id: int, name: str) -> None:
    """Raises NotPermitted."""
    row = tx.row("SELECT count(*) FROM subscription WHERE account_id=?", (account_id,))
    if row is not None and row[0] >= SUBSCRIPTIONS_MAX:
        raise NotPermitted("the account has too many subscriptions")
    tx.run(
        "INSERT INTO subscription (account_id, name) VALUES (?,?) ON CONFLICT DO NOTHING", (account_id, canonical(name))
    )


def unsubscribe(tx: Transaction, account_id: int, name: str) -> None:
    tx.run("DELETE FROM subscription WHERE account_id=? AND name=?", (account_id, canonical(name)))


def subscriptions(tx: Transaction, account_id: int) -> list[str]:
    return [row[0] for row in tx.rows("SELECT name FROM subscription WHERE account_id=? ORDER BY name", (account_id,))]


def claim_recent(tx: Transaction, account_id: int, mailbox_id: int) -> int:
    """The first UID that no session has been told of as \\Recent; from now on all are told (RFC 3501 §2.3.2)."""
    row = tx.row("SELECT recent, uidnext FROM mailbox WHERE account_id=? AND mailbox_id=?", (account_id, mailbox_id))
    if row is None:
        return 0
    if row[0] < row[1]:
        tx.run("UPDATE mailbox SET recent=? WHERE account_id=? AND mailbox_id=?", (row[1], account_id, mailbox_id))
    return int(row[0])

"""Messages in mailboxes: units of work that add, flag, copy, move, remove and tell what changed.

Every change to a mailbox takes its next MODSEQ in the same transaction (RFC 7162); UIDs are given in commit order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fubako.store import ownership
from fubako.store.interface import BlobRef, Row, StoreError, Transaction
from fubako.store.mailboxes import INBOX_ID, NoSuchMailbox, note_keywords, state

SEEN, ANSWERED, FLAGGED, DELETED, DRAFT = 1, 2, 4, 8, 16
FLAG_NAMES: tuple[tuple[int, str], ...] = (
    (ANSWERED, "\\Answered"),
    (FLAGGED, "\\Flagged"),
    (DELETED, "\\Deleted"),
    (SEEN, "\\Seen"),
    (DRAFT, "\\Draft"),
)
FLAG_BITS = {name.lower(): bit for bit, name in FLAG_NAMES}
KEYWORDS_MAX = 100
KEYWORD_OCTETS_MAX = 100
_IN_MAX = 500
PLACE = "blob_id, segment, place, size"  # the columns of a BlobRef


@dataclass(frozen=True, slots=True)
class Letter:
    """What a message row holds besides its place: computed once, kept beside the content."""

    blob: BlobRef
    header_size: int
    envelope: bytes
    structure: bytes
    internaldate: int  # seconds since the epoch
    zone: int = 0  # minutes east of UTC, as the date was given
    flags: int = 0
    keywords: str = ""  # separated by blanks
    trace_id: str = ""
    journey: str = "[]"


@dataclass(frozen=True, slots=True)
class Flags:
    """A set of flags as IMAP names them, split into bits and keywords."""

    bits: int = 0
    keywords: tuple[str, ...] = ()


@dataclass(slots=True)
class Copied:
    """UIDs of a COPY or MOVE, in order, and the target's UIDVALIDITY (RFC 4315 COPYUID)."""

    uidvalidity: int
    sources: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    modseq: int = 0  # the source's, after a move


def parse_flags(names: Iterable[str]) -> Flags:
    """Bits and keywords; raises StoreError for a system flag that cannot be stored, or too many keywords."""
    bits = 0
    keywords: list[str] = []
    for name in names:
        bit = FLAG_BITS.get(name.lower())
        if bit is not None:
            bits |= bit
        elif name.startswith("\\"):
            raise StoreError(f"{name} cannot be stored")
        elif len(name) > KEYWORD_OCTETS_MAX:
            raise StoreError("the keyword is too long")
        elif name.lower() not in (other.lower() for other in keywords):
            keywords.append(name)
    if len(keywords) > KEYWORDS_MAX:
        raise StoreError("too many keywords")
    return Flags(bits, tuple(keywords))


def flag_names(bits: int, keywords: str) -> str:
    """`\\Seen $Forwarded …`, separated by blanks."""
    names = [name for bit, name in FLAG_NAMES if bits & bit]
    if keywords:
        names.append(keywords)
    return " ".join(names)


def content(tx: Transaction, account_id: int, mailbox_id: int, uid: int) -> BlobRef | None:
    """Where the content of a message lies; None: the message is gone."""
    row = tx.row(f"SELECT {PLACE} FROM message WHERE account_id=? AND mailbox_id=? AND uid=?",
                 (account_id, mailbox_id, uid))  # fmt: skip
    return None if row is None else BlobRef(*row)


def add(tx: Transaction, account_id: int, mailbox_id: int, letter: Letter, now: int) -> tuple[int, int, int]:
    """A message whose content is durable; returns (uid, uidvalidity, modseq). Raises NoSuchMailbox, and SegmentLost where
    the content has to be put again."""
    return _add(tx, account_id, mailbox_id, letter, ownership.hold(tx, letter.blob), now)


def _add(  # the row of `add`, its content held
    tx: Transaction, account_id: int, mailbox_id: int, letter: Letter, blob: BlobRef, now: int
) -> tuple[int, int, int]:
    seen, deleted = letter.flags & SEEN, letter.flags & DELETED
    row = tx.row("UPDATE mailbox SET uidnext=uidnext+1, modseq=modseq+1, messages=messages+1, octets=octets+?,"
                 " unseen=unseen+?, deleted=deleted+? WHERE account_id=? AND mailbox_id=? AND noselect=0"
                 " RETURNING uidnext-1, uidvalidity, modseq, keywords",
                 (letter.blob.size, 0 if seen else 1, 1 if deleted else 0, account_id, mailbox_id))  # fmt: skip
    if row is None:
        raise NoSuchMailbox("the mailbox is gone")
    uid, uidvalidity, modseq, known = row
    if letter.keywords and letter.keywords not in known:
        note_keywords(tx, account_id, mailbox_id, known, letter.keywords)
    tx.run("INSERT INTO message (account_id, mailbox_id, uid, modseq, flags, keywords, internaldate, zone, savedate, size,"
           " header_size, blob_id, segment, place, envelope, structure, trace_id, journey)"
           " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
           (account_id, mailbox_id, uid, modseq, letter.flags, letter.keywords, letter.internaldate, letter.zone, now,
            blob.size, letter.header_size, blob.blob_id, blob.segment, blob.offset, letter.envelope, letter.structure,
            letter.trace_id, letter.journey))  # fmt: skip
    tx.touched((account_id, mailbox_id))
    return uid, uidvalidity, modseq


def deliver(tx: Transaction, account_ids: Sequence[int], letter: Letter, now: int) -> list[tuple[int, int, int]]:
    """One letter into the INBOX of each account; (account_id, uidvalidity, uid) each. An account that is gone is left out."""
    placed: list[tuple[int, int, int]] = []
    blob = ownership.hold(tx, letter.blob)
    for account_id in account_ids:
        try:
            uid, uidvalidity, _ = _add(tx, account_id, INBOX_ID, letter, blob, now)
        except NoSuchMailbox:
            continue
        placed.append((account_id, uidvalidity, uid))
    return placed


def select(
    tx: Transaction, columns: str, account_id: int, mailbox_id: int, uids: Sequence[int], extra: str = ""
) -> list[Row]:
    """Rows of the given UIDs (sorted), in UID order. A dense set is one range scan, a sparse one is asked for in lists."""
    if not uids:
        return []
    head = f"SELECT {columns} FROM message WHERE account_id=? AND mailbox_id=? AND uid"
    tail = f"{extra} ORDER BY uid"
    low, high = uids[0], uids[-1]
    if high - low + 1 <= 2 * len(uids):
        rows = tx.rows(f"{head} BETWEEN ? AND ?{tail}", (account_id, mailbox_id, low, high))
        if high - low + 1 == len(uids):
            return rows
        wanted = set(uids)
        return [row for row in rows if row[0] in wanted]
    found: list[Row] = []
    for start in range(0, len(uids), _IN_MAX):
        part = uids[start : start + _IN_MAX]
        marks = ",".join("?" * len(part))
        found += tx.rows(f"{head} IN ({marks}){tail}", (account_id, mailbox_id, *part))
    return found


def store_flags(
    tx: Transaction,
    account_id: int,
    mailbox_id: int,
    uids: Sequence[int],
    how: str,
    flags: Flags,
    unchanged_since: int | None = None,
) -> tuple[list[tuple[int, int, str, int]], list[int], int]:
    """STORE: `how` is "+", "-" or "=". Returns ((uid, bits, keywords, modseq) of each message that is there, UIDs refused
    by UNCHANGEDSINCE (RFC 7162 §3.1.3), the mailbox's MODSEQ before)."""
    box = state(tx, account_id, mailbox_id)
    if box is None:
        raise NoSuchMailbox("the mailbox is gone")
    rows = select(tx, "uid, flags, keywords, modseq", account_id, mailbox_id, uids)
    modseq = box.modseq + 1
    after: list[tuple[int, int, str, int]] = []
    changed: list[tuple[int, str, int, int, int, int]] = []
    refused: list[int] = []
    unseen = deleted = 0
    for uid, bits, keywords, old_modseq in rows:
        if unchanged_since is not None and old_modseq > unchanged_since:
            refused.append(uid)
            continue
        new_bits, new_keywords = _apply(bits, keywords, how, flags)
        if (new_bits, new_keywords) == (bits, keywords):
            after.append((uid, bits, keywords, old_modseq))
            continue
        unseen += (bits & SEEN) - (new_bits & SEEN)
        deleted += ((new_bits & DELETED) - (bits & DELETED)) // DELETED
        after.append((uid, new_bits, new_keywords, modseq))
        changed.append((new_bits, new_keywords, modseq, account_id, mailbox_id, uid))
    if changed:
        tx.many(
            "UPDATE message SET flags=?, keywords=?, modseq=? WHERE account_id=? AND mailbox_id=? AND uid=?", changed
        )
        tx.run("UPDATE mailbox SET modseq=?, unseen=unseen+?, deleted=deleted+? WHERE account_id=? AND mailbox_id=?",
               (modseq, unseen, deleted, account_id, mailbox_id))  # fmt: skip
        if flags.keywords and how != "-":
            note_keywords(tx, account_id, mailbox_id, box.keywords, " ".join(flags.keywords))
        tx.touched((account_id, mailbox_id))
    return after, refused, box.modseq


def _apply(bits: int, keywords: str, how: str, flags: Flags) -> tuple[int, str]:
    if how == "=":
        return flags.bits, " ".join(flags.keywords)
    if not flags.keywords:
        return (bits | flags.bits if how == "+" else bits & ~flags.bits), keywords
    present = keywords.split()
    named = {keyword.lower() for keyword in flags.keywords}
    if how == "+":
        have = {keyword.lower() for keyword in present}
        kept = present + [keyword for keyword in flags.keywords if keyword.lower() not in have]
        return bits | flags.bits, " ".join(kept[:KEYWORDS_MAX])
    return bits & ~flags.bits, " ".join(keyword for keyword in present if keyword.lower() not in named)


def expunge(
    tx: Transaction, account_id: int, mailbox_id: int, uids: Sequence[int] | None, *, flagged: bool = True
) -> tuple[list[int], int]:
    """Remove messages: those with \\Deleted (and among `uids` where given), or exactly `uids` with `flagged` False.
    Returns (UIDs removed, MODSEQ of the removal, 0 when nothing was)."""
    columns = "uid, flags, size"
    if uids is None:
        rows = tx.rows(
            f"SELECT {columns} FROM message WHERE account_id=? AND mailbox_id=? ORDER BY uid", (account_id, mailbox_id)
        )
    else:
        rows = select(tx, columns, account_id, mailbox_id, uids)
    gone = [row for row in rows if row[1] & DELETED] if flagged else rows
    return _remove(tx, account_id, mailbox_id, gone)


def _remove(tx: Transaction, account_id: int, mailbox_id: int, gone: Sequence[Row]) -> tuple[list[int], int]:
    if not gone:
        return [], 0
    unseen = sum(1 for row in gone if not row[1] & SEEN)
    deleted = sum(1 for row in gone if row[1] & DELETED)
    row = tx.row("UPDATE mailbox SET modseq=modseq+1, messages=messages-?, unseen=unseen-?, deleted=deleted-?, octets=octets-?"
                 " WHERE account_id=? AND mailbox_id=? RETURNING modseq",
                 (len(gone), unseen, deleted, sum(row[2] for row in gone), account_id, mailbox_id))  # fmt: skip
    if row is None:
        raise NoSuchMailbox("the mailbox is gone")
    modseq = int(row[0])
    keys = [(account_id, mailbox_id, row[0]) for row in gone]
    tx.many("DELETE FROM message WHERE account_id=? AND mailbox_id=? AND uid=?", keys)
    tx.many("INSERT INTO expunged (account_id, mailbox_id, modseq, uid) VALUES (?,?,?,?)",
            [(account_id, mailbox_id, modseq, row[0]) for row in gone])  # fmt: skip
    tx.touched((account_id, mailbox_id))
    return [row[0] for row in gone], modseq


def copy(
    tx: Transaction,
    account_id: int,
    source_id: int,
    uids: Sequence[int],
    target_id: int,
    now: int,
    *,
    move: bool = False,
) -> Copied:
    """COPY or MOVE within an account, all or nothing. Flags, keywords and dates go along (RFC 9051 §6.4.7)."""
    target = state(tx, account_id, target_id)
    if target is None or target.noselect:
        raise NoSuchMailbox("the target mailbox is gone")
    rows = select(tx, "uid, flags, size, keywords", account_id, source_id, uids)
    copied = Copied(target.uidvalidity)
    if not rows:
        return copied
    first, modseq = target.uidnext, target.modseq + 1
    copied.sources = [row[0] for row in rows]
    copied.targets = list(range(first, first + len(rows)))
    tx.run("UPDATE mailbox SET uidnext=uidnext+?, modseq=?, messages=messages+?, unseen=unseen+?, deleted=deleted+?,"
           " octets=octets+? WHERE account_id=? AND mailbox_id=?",
           (len(rows), modseq, len(rows), sum(1 for row in rows if not row[1] & SEEN),
            sum(1 for row in rows if row[1] & DELETED), sum(row[2] for row in rows), account_id, target_id))  # fmt: skip
    tx.many("INSERT INTO message (account_id, mailbox_id, uid, modseq, flags, keywords, internaldate, zone, savedate, size,"
            " header_size, blob_id, segment, place, envelope, structure, trace_id, journey)"
            " SELECT account_id, ?, ?, ?, flags, keywords, internaldate, zone, ?, size, header_size, blob_id, segment, place,"
            " envelope, structure, trace_id, journey FROM message WHERE account_id=? AND mailbox_id=? AND uid=?",
            [(target_id, new, modseq, now, account_id, source_id, old)
             for old, new in zip(copied.sources, copied.targets, strict=True)])  # fmt: skip
    note_keywords(tx, account_id, target_id, target.keywords, " ".join(row[3] for row in rows))
    tx.touched((account_id, target_id))
    if move:
        _, copied.modseq = _remove(tx, account_id, source_id, rows)
    return copied


def uids(tx: Transaction, account_id: int, mailbox_id: int) -> list[int]:
    rows = tx.rows("SELECT uid FROM message WHERE account_id=? AND mailbox_id=? ORDER BY uid", (account_id, mailbox_id))
    return [row[0] for row in rows]


def changed_since(tx: Transaction, account_id: int, mailbox_id: int, modseq: int) -> list[tuple[int, int, str, int]]:
    """(uid, bits, keywords, modseq) of messages added or flagged after `modseq`, in UID order."""
    return tx.rows(
        "SELECT uid, flags, keywords, modseq FROM message WHERE account_id=? AND mailbox_id=? AND modseq>?"
        " ORDER BY uid",
        (account_id, mailbox_id, modseq),
    )


def has_account(tx: Transaction, account_id: int) -> bool:
    return tx.row("SELECT 1 FROM account WHERE account_id=?", (account_id,)) is not None


def expunged_since(tx: Transaction, account_id: int, mailbox_id: int, modseq: int) -> list[int]:
    rows = tx.rows("SELECT DISTINCT uid FROM expunged WHERE account_id=? AND mailbox_id=? AND modseq>? ORDER BY uid",
                   (account_id, mailbox_id, modseq))  # fmt: skip
    return [row[0] for row in rows]

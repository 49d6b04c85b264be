"""`verify`: every checksum, every count, every reference."""

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct, field

from fubako.store import ownership, record
from fubako.store.interface import StoreError, Transaction
from fubako.store.search import passed_over
from fubako.store.segments import SegmentCore
from fubako.store.sqlite import SqliteCore

_BATCH = 100
_UIDS = "SELECT mailbox_id, uid FROM message WHERE account_id=?"
_MESSAGES_SHOWN = 10  # of those that share a damaged content

Progress = Callable[[int, int], None]


class Report(Struct, kw_only=True):
    """What was looked at, and every fault in words. `orphan_octets`: whole records that no row refers to, which compaction gives
    back; `passed_over`: messages that search leaves out, and why."""

    messages: int = 0
    blobs: int = 0
    octets: int = 0
    orphan_octets: int = 0
    faults: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


def verify(database: SqliteCore, segments: SegmentCore, indexes: Path | None, progress: Progress) -> Report:
    """Reads everything; changes nothing, and may run beside a server. `indexes` is the folder of the search indexes;
    `progress(done, all)` in segments."""
    report = Report()
    report.faults += [f"SQLite: {fault}" for fault in database.integrity()]
    known = database.read(ownership.all_of)
    files = segments.numbers()
    for number, segment in enumerate(known, 1):
        _segment(database, segments, segment.number, report)
        progress(number, len(known))
    later = {one.number for one in database.read(ownership.all_of)}  # made meanwhile
    unknown = set(files) - {one.number for one in known} - later
    report.orphan_octets += sum(_octets(segments, number) for number in unknown)
    database.read(lambda tx: _rows(tx, report))
    if indexes is not None:
        _look_at_indexes(indexes, database, report)
    return report


def _segment(database: SqliteCore, segments: SegmentCore, number: int, report: Report) -> None:
    """Each octet is read once; what does not stand there whole is asked for by its reference, which says why."""
    try:
        found = {one.place: one for one in segments.records(number)}
    except StoreError:
        found = {}
    for one in database.read(lambda tx: ownership.living(tx, number)):
        report.blobs += 1
        report.octets += one.ref.size
        stands = found.pop(one.ref.offset, None)
        if (
            stands is not None
            and stands.whole
            and stands.size == one.ref.size
            and stands.blob_id in (None, one.ref.blob_id)
        ):
            continue
        fault = segments.check(one.ref)
        if fault and not _moved_meanwhile(database, segments, one):
            holders = database.read(lambda tx, place=one.ref.offset: _holders(tx, number, place))  # type: ignore[misc]  # binds the loop's value
            report.faults.append(f"{fault}: {holders}")
    report.orphan_octets += sum(record.occupied(one.size) for one in found.values())


def _octets(segments: SegmentCore, number: int) -> int:
    """Of a file that no row knows; it may go meanwhile."""
    try:
        return segments.octets(number)
    except OSError:
        return 0


def _moved_meanwhile(database: SqliteCore, segments: SegmentCore, one: ownership.Living) -> bool:
    elsewhere = database.read(lambda tx: ownership.moved(tx, one.ref))
    return elsewhere is not None and elsewhere != one.ref and not segments.check(elsewhere)


def _holders(tx: Transaction, segment: int, place: int) -> str:
    """Whose messages a content is, in words."""
    rows = tx.rows("SELECT address, name, uid FROM message JOIN account ON account.account_id=message.account_id"
                   " JOIN mailbox ON mailbox.account_id=message.account_id AND mailbox.mailbox_id=message.mailbox_id"
                   " WHERE segment=? AND place=? LIMIT ?", (segment, place, _MESSAGES_SHOWN))  # fmt: skip
    queued = tx.rows("SELECT lane_id, queue_id FROM queue_letter WHERE segment=? AND place=? LIMIT ?",
                     (segment, place, _MESSAGES_SHOWN))  # fmt: skip
    shown = [f"UID {uid} in {name} of {address}" for address, name, uid in rows]
    return ", ".join(shown + [f"{lane_id}-{queue_id} in the queue" for lane_id, queue_id in queued])


def _look_at_indexes(folder: Path, database: SqliteCore, report: Report) -> None:
    """An index is made of what is here: one that is damaged is no fault of the store."""
    for path in sorted(folder.glob("*.sqlite")):
        if not path.stem.isdigit():
            continue
        try:
            left_out = passed_over(path)
        except StoreError as error:
            report.passed_over.append(f"account {path.stem}: {error}; the next search makes it anew")
            continue
        kept = _uids(database, int(path.stem)) if left_out else set()
        report.passed_over += [
            f"UID {uid} in mailbox {mailbox_id} of account {path.stem} is left out of search: {reason}"
            for mailbox_id, uid, reason in left_out
            if (mailbox_id, uid) in kept
        ]


def _uids(database: SqliteCore, account_id: int) -> set[tuple[int, int]]:
    """(mailbox, UID) of all messages of an account."""
    return {(row[0], row[1]) for row in database.read(lambda tx: tx.rows(_UIDS, (account_id,)))}


def _rows(tx: Transaction, report: Report) -> None:
    report.messages = int(tx.rows("SELECT count(*) FROM message")[0][0])
    for account_id, mailbox_id, *wrong in tx.rows(
        "SELECT mailbox.account_id, mailbox.mailbox_id, messages, unseen, deleted, octets, uidnext, mailbox.modseq,"
        " count(uid), coalesce(sum(CASE WHEN flags & 1 = 0 THEN 1 ELSE 0 END), 0),"
        " coalesce(sum(CASE WHEN flags & 8 != 0 THEN 1 ELSE 0 END), 0), coalesce(sum(size), 0),"
        " coalesce(max(uid), 0), coalesce(max(message.modseq), 0) FROM mailbox LEFT JOIN message"
        " ON message.account_id=mailbox.account_id AND message.mailbox_id=mailbox.mailbox_id"
        " GROUP BY mailbox.account_id, mailbox.mailbox_id"
    ):
        if wrong[:4] != wrong[6:10] or wrong[4] <= wrong[10] or wrong[5] < wrong[11]:
            report.faults.append(f"mailbox {mailbox_id} of account {account_id}: its counts do not match its messages")
    for table in ("message", "queue_letter"):
        for number, count in tx.rows(f"SELECT {table}.segment, count(*) FROM {table} LEFT JOIN segment"
                                     f" ON segment.segment={table}.segment WHERE segment.segment IS NULL"
                                     f" GROUP BY {table}.segment"):  # fmt: skip
            report.faults.append(f"segment {number:x}: {count} rows of {table} refer to it, and it is not known")

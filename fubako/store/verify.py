"""`verify`: every checksum, every count, every reference; and `compact`: give back the room of what was removed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fubako.store.interface import BlobRef, StoreError, Transaction
from fubako.store.search import passed_over
from fubako.store.segments import SegmentCore
from fubako.store.sqlite import SqliteCore

QUIET_SECONDS = 600.0  # a segment written to more recently may hold content whose rows are not committed yet
LIVE_SHARE = 0.5
_BATCH = 100
_UIDS = "SELECT mailbox_id, uid FROM message WHERE account_id=?"

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Report:
    """What was looked at, and every fault in words."""

    messages: int = 0
    blobs: int = 0
    octets: int = 0
    orphan_octets: int = 0
    faults: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)  # messages that search leaves out, and why


def verify(database: SqliteCore, segments: SegmentCore, indexes: Path | None, progress: Progress) -> Report:
    """Reads everything; changes nothing. `indexes` is the folder of the search indexes; `progress(done, all)` in blobs."""
    report = Report()
    report.faults += [f"SQLite: {fault}" for fault in database.integrity()]
    blobs = database.read(
        lambda tx: tx.rows("SELECT blob_id, segment, place, size, refs FROM blob ORDER BY segment, place")
    )
    known = {(row[1], row[2]) for row in blobs}
    for number, (blob_id, segment, place, size, _refs) in enumerate(blobs, 1):
        fault = segments.check(BlobRef(blob_id, segment, place, size))
        if fault:
            report.faults.append(fault)
        report.octets += size
        if number % _BATCH == 0 or number == len(blobs):
            progress(number, len(blobs))
    report.blobs = len(blobs)
    for number in segments.numbers():
        report.orphan_octets += sum(size for offset, size in segments.records(number) if (number, offset) not in known)
    database.read(lambda tx: _rows(tx, report))
    if indexes is not None:
        _look_at_indexes(indexes, database, report)
    return report


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
        " count(uid), coalesce(sum(flags & 1 = 0), 0), coalesce(sum(flags & 8 != 0), 0), coalesce(sum(size), 0),"
        " coalesce(max(uid), 0), coalesce(max(message.modseq), 0) FROM mailbox LEFT JOIN message"
        " ON message.account_id=mailbox.account_id AND message.mailbox_id=mailbox.mailbox_id"
        " GROUP BY mailbox.account_id, mailbox.mailbox_id"
    ):
        if wrong[:4] != wrong[6:10] or wrong[4] <= wrong[10] or wrong[5] < wrong[11]:
            report.faults.append(f"mailbox {mailbox_id} of account {account_id}: its counts do not match its messages")
    for blob_id, refs, count in tx.rows(
        "SELECT blob.blob_id, refs, count(holder.blob_id) FROM blob LEFT JOIN"
        " (SELECT blob_id FROM message UNION ALL SELECT blob_id FROM queue_letter) AS holder ON holder.blob_id=blob.blob_id"
        " GROUP BY blob.blob_id HAVING refs != count(holder.blob_id)"
    ):
        report.faults.append(f"blob {blob_id:x}: {count} letters hold it, {refs} are counted")
    for uid, account_id in tx.rows(
        "SELECT uid, account_id FROM message WHERE NOT EXISTS (SELECT 1 FROM blob WHERE blob.blob_id=message.blob_id)"
    ):
        report.faults.append(f"UID {uid} of account {account_id}: its content is missing")


def compact(
    database: SqliteCore, segments: SegmentCore, quiet_seconds: float = QUIET_SECONDS, *, erase: bool = False
) -> int:
    """Copy what lives out of segments that are mostly dead, and remove them; `erase`: out of those that hold anything dead.
    Returns octets given back.

    New place durable first, rows second, old file last: a crash at any point leaves every content reachable.
    """
    given_back = 0
    fresh = not erase
    for number in segments.numbers():
        if not segments.removable(number, quiet_seconds):
            continue
        live = database.read(
            lambda tx, n=number: tx.rows("SELECT blob_id, place, size FROM blob WHERE segment=? ORDER BY place", (n,))  # type: ignore[misc]  # binds the loop's value
        )
        octets = segments.octets(number)
        living = segments.occupied([row[2] for row in live])
        if living >= octets or (not erase and living > LIVE_SHARE * octets):
            continue
        if live and not fresh:
            segments.rotate()  # what lives goes where nothing is dead
            fresh = True
        for start in range(0, len(live), _BATCH):
            _move(database, segments, number, live[start : start + _BATCH])
        segments.remove(number)
        given_back += octets - sum(row[2] for row in live)
    return given_back


def _move(database: SqliteCore, segments: SegmentCore, number: int, rows: list[tuple[int, ...]]) -> None:
    contents = [[segments.read(BlobRef(blob_id, number, place, size))] for blob_id, place, size in rows]
    placed = segments.put(contents)

    def unit(tx: Transaction) -> None:
        tx.many(
            "UPDATE blob SET segment=?, place=? WHERE blob_id=? AND segment=?",
            [(ref.segment, ref.offset, row[0], number) for ref, row in zip(placed, rows, strict=True)],
        )

    database.commit([unit])

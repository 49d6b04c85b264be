"""Who may write, empty or remove a segment: one table of states, and the units of work that go through it.

    WRITING  ->  SEALED     its writer left it, or is gone
    SEALED   ->  EMPTYING   what lives is being moved elsewhere
    EMPTYING ->  SEALED     given up: something in it cannot be moved
    EMPTYING ->  REMOVED    no row refers to it any more: the file may go
    WRITING  ->  REMOVED    it never came to hold anything that a row knows

Numbers of segments come from the rows and are never given twice. The file is made and held before its row, and goes before its row:
one without a row is about to get it, or was left by somebody who is gone. A segment is written in one life of one owner and never
appended to afterwards, so a place in it means one content for ever. Rows may refer only to places in segments that are WRITING
or SEALED (`hold`), which is asked in the transaction that makes them refer. So whoever empties a segment sees all that lives in
it, and an owner who was paused for however long can make nothing reachable that is going away.

Who writes, empties or removes the file holds its lock meanwhile; the state alone keeps content safe, the lock tells who is gone.
"""

from enum import StrEnum

from msgspec import Struct

from fubako.store.faults import BUSY
from fubako.store.interface import BlobRef, StoreError, StoreUnavailable, Transaction

MOVED_SECONDS = 7 * 24 * 3600  # so long it is known where moved content lies, for sessions that hold its old place


class State(StrEnum):
    WRITING = "writing"
    SEALED = "sealed"
    EMPTYING = "emptying"
    REMOVED = "removed"


TRANSITIONS = frozenset(
    {
        (State.WRITING, State.SEALED),
        (State.SEALED, State.EMPTYING),
        (State.EMPTYING, State.SEALED),
        (State.EMPTYING, State.REMOVED),
        (State.WRITING, State.REMOVED),
    }
)
_REFERRED = (
    "EXISTS (SELECT 1 FROM message WHERE message.segment=segment.segment)"
    " OR EXISTS (SELECT 1 FROM queue_letter WHERE queue_letter.segment=segment.segment)"
)


class SegmentLost(StoreUnavailable):
    """The segment is another one's now, or going away; what was put there has to be put again, later."""

    usual = BUSY


class Segment(Struct, frozen=True, kw_only=True):
    """`epoch` is raised by each change of state."""

    number: int
    state: State
    owner: str
    epoch: int


class Living(Struct, frozen=True, kw_only=True):
    """A content that rows refer to: `rows` of them."""

    ref: BlobRef
    rows: int


def next_number(tx: Transaction) -> int:
    """A number for a new segment, given to nobody else, ever."""
    row = tx.row("UPDATE ids SET next=next+1 WHERE name='segment' RETURNING next-1")
    if row is None:
        raise StoreError("the rows know no number for a new segment")
    return int(row[0])


def begin(tx: Transaction, number: int, owner: str, now: int) -> bool:
    """A new segment of `owner`, who has made its file and holds it; those that he wrote before are sealed. False: somebody took the
    file in as one that nobody writes."""
    leave(tx, owner)
    row = tx.row("INSERT INTO segment (segment, state, owner, epoch, since) VALUES (?,?,?,1,?)"
                 " ON CONFLICT (segment) DO NOTHING RETURNING 1", (number, State.WRITING, owner, now))  # fmt: skip
    return row is not None


def leave(tx: Transaction, owner: str) -> None:
    """Nobody of that name writes any more."""
    tx.run("UPDATE segment SET state=?, epoch=epoch+1 WHERE owner=? AND state=?", (State.SEALED, owner, State.WRITING))


def change(tx: Transaction, known: Segment, to: State, owner: str) -> Segment:
    """The segment in its next state. Raises SegmentLost where it is not as it was known."""
    if (known.state, to) not in TRANSITIONS:
        raise AssertionError(f"a segment does not become {to} when it is {known.state}")
    condition = f" AND NOT ({_REFERRED})" if to is State.REMOVED else ""
    row = tx.row("UPDATE segment SET state=?, owner=?, epoch=epoch+1 WHERE segment=? AND state=? AND epoch=?"
                 f"{condition} RETURNING epoch",
                 (to, owner, known.number, known.state, known.epoch))  # fmt: skip
    if row is None:
        raise SegmentLost(f"segment {known.number:x} cannot become {to} now")
    return Segment(number=known.number, state=to, owner=owner, epoch=int(row[0]))


def forget(tx: Transaction, known: Segment) -> None:
    """Its file is gone, durably."""
    tx.run("DELETE FROM segment WHERE segment=? AND state=? AND epoch=?", (known.number, State.REMOVED, known.epoch))


def adopt(tx: Transaction, number: int, now: int) -> bool:
    """A file that no row knows is known from now on, as one that nobody writes. False: it is known already."""
    row = tx.row("INSERT INTO segment (segment, state, owner, epoch, since) VALUES (?,?,'',1,?)"
                 " ON CONFLICT (segment) DO NOTHING RETURNING 1", (number, State.SEALED, now))  # fmt: skip
    if row is not None:
        tx.run("UPDATE ids SET next=? WHERE name='segment' AND next<=?", (number + 1, number))
    return row is not None


def all_of(tx: Transaction) -> list[Segment]:
    rows = tx.rows("SELECT segment, state, owner, epoch FROM segment ORDER BY segment")
    return [Segment(number=row[0], state=State(row[1]), owner=row[2], epoch=row[3]) for row in rows]


def living(tx: Transaction, number: int) -> list[Living]:
    """What rows refer to in a segment, in the order of places."""
    rows = tx.rows("SELECT blob_id, place, size, count(*) FROM (SELECT blob_id, place, size FROM message WHERE segment=?"
                   " UNION ALL SELECT blob_id, place, size FROM queue_letter WHERE segment=?) AS holder"
                   " GROUP BY blob_id, place, size ORDER BY place", (number, number))  # fmt: skip
    return [Living(ref=BlobRef(row[0], number, row[1], row[2]), rows=row[3]) for row in rows]


def hold(tx: Transaction, ref: BlobRef) -> BlobRef:
    """Where content lies that a row of this transaction is to refer to. Raises SegmentLost: it has to be put again."""
    row = tx.row("SELECT state FROM segment WHERE segment=?", (ref.segment,))
    if row is not None and row[0] in (State.WRITING, State.SEALED):
        return ref
    found = moved(tx, ref)
    if found is None or found.segment == ref.segment:
        raise SegmentLost(f"segment {ref.segment:x} is going away")
    return hold(tx, found)


def moved(tx: Transaction, ref: BlobRef) -> BlobRef | None:
    """Where content lies now that was moved from its place; None: it was not."""
    row = tx.row("SELECT segment, place FROM moved WHERE blob_id=?", (ref.blob_id,))
    return None if row is None else BlobRef(ref.blob_id, row[0], row[1], ref.size)


def move(tx: Transaction, old: BlobRef, new: BlobRef, now: int) -> None:
    """Every row that refers to the old place refers to the new one."""
    hold(tx, new)
    places = (new.segment, new.offset, old.segment, old.offset)
    tx.run("UPDATE message SET segment=?, place=? WHERE segment=? AND place=?", places)
    tx.run("UPDATE queue_letter SET segment=?, place=? WHERE segment=? AND place=?", places)
    tx.run("INSERT INTO moved (blob_id, segment, place, at) VALUES (?,?,?,?) ON CONFLICT (blob_id) DO UPDATE"
           " SET segment=excluded.segment, place=excluded.place, at=excluded.at",
           (old.blob_id, new.segment, new.offset, now))  # fmt: skip


def forget_moves(tx: Transaction, now: int) -> None:
    tx.run("DELETE FROM moved WHERE at<?", (now - MOVED_SECONDS,))

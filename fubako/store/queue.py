"""The queue: letters on their way out, as rows; units of work that put, lease, settle and show them.

Every key begins with `lane_id`. Who works on a lane holds its lease and an epoch (`lease`); every outcome is written under that
epoch, so that an owner who was paused too long writes nothing (scale: at most one owner's outcomes count). Times are whole seconds.
"""

from collections.abc import Hashable, Iterable, Sequence

from msgspec import Struct

from fubako.message.status import Status
from fubako.message.target import Handed, Way, from_row, to_row
from fubako.store import lease, ownership
from fubako.store.interface import BlobRef, Row, StoreError, Transaction
from fubako.store.lease import Holding, LeaseLost

LANES = 4
QUEUE_ACCOUNT = 0  # changes of the queue are told as places of this account


class Outgoing(Struct, frozen=True):
    """A letter as it is queued: what it needs on its way besides its content."""

    blob: BlobRef
    sender: str  # empty: the null sender
    body: str = "7BIT"
    smtputf8: bool = False
    require_tls: bool = False
    ret: str = ""
    envid: str = ""
    submitter: str = ""  # the account that sent it
    trace_id: str = ""
    journey: str = "[]"
    created: int = 0
    tls_optional: bool = False  # TLS-Required: No (RFC 8689 §5): the letter matters more than how it travels
    priority: int = 0  # RFC 6710: -9 to 9, higher ones first
    deliver_by: int = 0  # RFC 2852: when the sender wants it to be there; 0: it does not matter
    by_mode: str = ""  # R: return it then; N: tell the sender then


class Target(Struct, frozen=True):
    """One recipient of a queued letter."""

    address: str  # as RCPT said it, or where an alias leads
    domain: str
    notify: str = ""
    orcpt: str = ""
    way: Way = Way.ROUTE
    target: Handed | None = None  # with PROGRAM and FILE


class Queued(Struct, frozen=True):
    """A recipient that is due, with its letter's key."""

    lane_id: int
    queue_id: int
    number: int
    address: str
    domain: str
    notify: str
    orcpt: str
    attempts: int
    warned: int
    way: Way = Way.ROUTE
    target: Handed | None = None

    @property
    def key(self) -> tuple[int, int, int]:
        return self.lane_id, self.queue_id, self.number

    @property
    def shown(self) -> str:
        """As an administrator sees it: with what stands behind an alias. Reports to senders name the address alone."""
        return f"{self.address} {self.target.shown}" if self.target is not None else self.address


_QUEUED = (
    "lane_id, queue_id, number, address, domain, notify, orcpt, attempts, warned, way, target FROM queue_recipient"
)


def _queued(row: Row) -> Queued:
    return Queued(*(*row[:9], Way(row[9]), from_row(row[10])))


class Outcome(Struct, frozen=True):
    """What became of one recipient in one attempt. `again_at` None: it is over, one way or the other."""

    queued: Queued
    status: Status
    peer: str = ""
    again_at: int | None = None
    journey: str = "[]"
    warned: bool = False
    goes_on: bool = False  # under the same trace id in another row: nothing is to be told of it yet


def lane_of(trace_id: str) -> int:
    return int(trace_id[-2:] or "0", 16) % LANES


class Placed(Struct, frozen=True):
    """A letter that was queued. `ready`: whoever holds its lane may send it at once."""

    lane_id: int
    queue_id: int
    ready: bool


def put(
    tx: Transaction, letter: Outgoing, targets: Sequence[Target], *, held: bool = False, at: int | None = None
) -> tuple[int, int]:
    """Queue a letter whose content is durable; returns its key."""
    placed = place(tx, letter, targets, held=held, at=at)
    return placed.lane_id, placed.queue_id


def place(
    tx: Transaction, letter: Outgoing, targets: Sequence[Target], *, held: bool = False, at: int | None = None,
    lanes: Sequence[int] = (),
) -> Placed:  # fmt: skip
    """As `put`, into one of the lanes where some are given: the caller holds them, and learns of the letter by what is returned."""
    blob = ownership.hold(tx, letter.blob)
    chance = lane_of(letter.trace_id)
    lane_id = lanes[chance % len(lanes)] if lanes else chance
    row = tx.row(
        "UPDATE lane SET next=next+1 WHERE lane_id=? RETURNING next-1, EXISTS (SELECT 1 FROM hold_rule)", (lane_id,)
    )
    if row is None:
        raise StoreError("the queue has no such lane")
    queue_id = int(row[0])
    tx.run("INSERT INTO queue_letter (lane_id, queue_id, blob_id, segment, place, size, sender, body, smtputf8, require_tls,"
           " ret, envid, submitter, trace_id, journey, created, priority, deliver_by, by_mode)"
           " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
           (lane_id, queue_id, blob.blob_id, blob.segment, blob.offset, blob.size, letter.sender, letter.body, int(letter.smtputf8),
            _wish(letter), letter.ret, letter.envid, letter.submitter, letter.trace_id, letter.journey,
            letter.created, letter.priority, letter.deliver_by, letter.by_mode))  # fmt: skip
    due = letter.created if at is None else at
    rules = tx.rows("SELECT field, value FROM hold_rule") if row[1] else []
    tx.many("INSERT INTO queue_recipient (lane_id, queue_id, number, address, domain, notify, orcpt, held, next_attempt, way,"
            " target) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            [(lane_id, queue_id, number, t.address, t.domain, t.notify, t.orcpt, int(held or _holds(rules, letter, t)), due,
              t.way, to_row(t.target)) for number, t in enumerate(targets)])  # fmt: skip
    ready = not held and at is None and not rules
    if not (ready and lanes):
        tx.touched((QUEUE_ACCOUNT, lane_id))
    return Placed(lane_id, queue_id, ready)


def _holds(rules: Sequence[Row], letter: Outgoing, target: Target) -> bool:
    """Whether an administrator wants to look at such letters first."""
    facts = {"sender": letter.sender.lower(), "recipient": target.address.lower(), "domain": target.domain}
    return any(facts[field] == value for field, value in rules)


def _wish(letter: Outgoing) -> int:
    """What the sender said of TLS, as it is kept: 1 REQUIRETLS, 2 TLS-Required: No."""
    return 1 if letter.require_tls else 2 if letter.tls_optional else 0


# -- leases


def lanes(tx: Transaction) -> dict[Hashable, Holding]:
    """Who holds which."""
    return lease.held(tx, lease.LANES)


def take(tx: Transaction, lane_id: int, owner: str, gone: Holding | None = None) -> int | None:
    """The lease of a lane that nobody holds, or renewed by its owner: the epoch; None while another one holds it who is not
    known to be `gone` (`lease`)."""
    return lease.take(tx, lease.LANES, lane_id, owner, gone)


def release(tx: Transaction, owner: str) -> None:
    lease.release(tx, lease.LANES, owner)


def check(tx: Transaction, lane_id: int, epoch: int) -> None:
    """Raises LeaseLost. Locks the lane: nobody takes it before this transaction has ended."""
    if tx.row("UPDATE lane SET beat=beat WHERE lane_id=? AND epoch=? RETURNING 1", (lane_id, epoch)) is None:
        raise LeaseLost(f"lane {lane_id} is another one's now")


# -- work


def due(tx: Transaction, lane_id: int, now: int, limit: int) -> list[Queued]:
    """Recipients whose time has come, oldest first."""
    rows = tx.rows(f"SELECT {_QUEUED} WHERE lane_id=? AND held=0 AND next_attempt<=?"
                   " ORDER BY next_attempt, queue_id, number LIMIT ?", (lane_id, now, limit))  # fmt: skip
    return [_queued(row) for row in rows]


def fresh(tx: Transaction, lane_id: int, after_queue_id: int, now: int, limit: int) -> list[Queued]:
    """Recipients of letters that came after a known one and are due: they need not wait behind a long queue."""
    rows = tx.rows(f"SELECT {_QUEUED} WHERE lane_id=? AND queue_id>? AND held=0 AND next_attempt<=?"
                   " ORDER BY queue_id, number LIMIT ?", (lane_id, after_queue_id, now, limit))  # fmt: skip
    return [_queued(row) for row in rows]


def displaced(tx: Transaction, lane_id: int, now: int, longest: int) -> list[tuple[int, int]]:
    """(queue_id, number) of recipients whose next attempt is later than `longest` from now, which no schedule says: the wall clock
    went back. Who waits for a time that a sender set (FUTURERELEASE) goes through the intake, and is left alone."""
    rows = tx.rows("SELECT queue_id, number FROM queue_recipient WHERE lane_id=? AND held=0 AND next_attempt>? AND way<>?"
                   " LIMIT 1000", (lane_id, now + longest, Way.AGAIN))  # fmt: skip
    return [(row[0], row[1]) for row in rows]


def bring_back(tx: Transaction, lane_id: int, keys: Iterable[tuple[int, int]], now: int) -> None:
    """Those are due now."""
    tx.many("UPDATE queue_recipient SET next_attempt=? WHERE lane_id=? AND queue_id=? AND number=?",
            [(now, lane_id, *key) for key in keys])  # fmt: skip


def shift_back(tx: Transaction, lane_id: int, now: int, seconds: int) -> None:
    """The wall clock went back by so much: what was planned by it comes so much sooner. Times that senders set stay."""
    tx.run("UPDATE queue_recipient SET next_attempt=next_attempt-? WHERE lane_id=? AND held=0 AND next_attempt>? AND way<>?",
           (seconds, lane_id, now, Way.AGAIN))  # fmt: skip


def next_due(tx: Transaction, lane_id: int, now: int) -> int | None:
    """When the next recipient that is not due yet will be."""
    row = tx.row(
        "SELECT min(next_attempt) FROM queue_recipient WHERE lane_id=? AND held=0 AND next_attempt>?", (lane_id, now)
    )
    return None if row is None or row[0] is None else int(row[0])


def newest(tx: Transaction, lane_id: int) -> int:
    row = tx.row("SELECT next FROM lane WHERE lane_id=?", (lane_id,))
    return int(row[0]) - 1 if row else 0


_LETTER = (
    "blob_id, segment, place, size, sender, body, smtputf8, require_tls, ret, envid, submitter, trace_id, journey, created,"
    " priority, deliver_by, by_mode"
)


def letter(tx: Transaction, lane_id: int, queue_id: int) -> Outgoing | None:
    row = tx.row(f"SELECT {_LETTER} FROM queue_letter WHERE lane_id=? AND queue_id=?", (lane_id, queue_id))
    if row is None:
        return None
    blob, wish = BlobRef(*row[:4]), row[7]
    return Outgoing(
        blob, row[4], row[5], bool(row[6]), wish == 1, row[8], row[9], row[10], row[11], row[12], row[13], wish == 2,
        row[14], row[15], row[16],
    )  # fmt: skip


def settle(tx: Transaction, lane_id: int, epoch: int, trace_id: str, outcomes: Iterable[Outcome], now: int) -> None:
    """Write what became of recipients of one letter. When none is left it goes, and its content when nobody else holds it.
    Raises LeaseLost; then nothing is written."""
    check(tx, lane_id, epoch)
    letters: set[int] = set()
    for one in outcomes:
        q, status = one.queued, one.status
        if one.again_at is not None:
            tx.run("UPDATE queue_recipient SET attempts=attempts+1, next_attempt=?, warned=?, code=?, enhanced=?, reason=?,"
                   " peer=? WHERE lane_id=? AND queue_id=? AND number=?",
                   (one.again_at, int(one.warned or bool(q.warned)), status.code, status.enhanced, status.text, one.peer,
                    *q.key))  # fmt: skip
            continue
        if not one.goes_on:
            tx.run("INSERT INTO sent (trace_id, address, at, code, enhanced, reason, journey) VALUES (?,?,?,?,?,?,?)"
                   " ON CONFLICT (trace_id, address) DO NOTHING",
                   (trace_id, q.shown, now, status.code, status.enhanced, status.text, one.journey))  # fmt: skip
        tx.run("DELETE FROM queue_recipient WHERE lane_id=? AND queue_id=? AND number=?", q.key)
        letters.add(q.queue_id)
    for queue_id in letters:
        drop_empty(tx, lane_id, queue_id)


def drop_empty(tx: Transaction, lane_id: int, queue_id: int) -> None:
    """A letter that has no recipient left goes."""
    tx.run("DELETE FROM queue_letter WHERE lane_id=? AND queue_id=? AND NOT EXISTS (SELECT 1 FROM queue_recipient AS r"
           " WHERE r.lane_id=queue_letter.lane_id AND r.queue_id=queue_letter.queue_id)", (lane_id, queue_id))  # fmt: skip


def drop_all_empty(tx: Transaction, lane_id: int) -> None:
    """The same for all letters of a lane."""
    tx.run("DELETE FROM queue_letter WHERE lane_id=? AND NOT EXISTS (SELECT 1 FROM queue_recipient AS r"
           " WHERE r.lane_id=queue_letter.lane_id AND r.queue_id=queue_letter.queue_id)", (lane_id,))  # fmt: skip


def forget_sent(tx: Transaction, before: int) -> None:
    """What was sent long ago is no longer remembered; ids begin with their time."""
    tx.run("DELETE FROM sent WHERE trace_id<?", (f"{before:08x}",))

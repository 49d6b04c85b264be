"""What waits in the queue as an administrator sees it: which recipients are meant, how they are shown, what is done to them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fubako.message.status import Status
from fubako.message.target import Way, from_row
from fubako.store.interface import Row, StoreError, Transaction
from fubako.store.queue import QUEUE_ACCOUNT, drop_all_empty, drop_empty

_MANY = 1000  # letters; so many are looked through together


@dataclass(frozen=True, slots=True)
class Entry:
    """One recipient, as it is shown."""

    queue_id: str
    trace_id: str
    sender: str
    recipient: str
    domain: str
    way: str
    size: int
    created: int
    held: int
    attempts: int
    next_attempt: int
    status: str
    peer: str


def name(lane_id: int, queue_id: int) -> str:
    """How a letter of the queue is named: lane and number."""
    return f"{lane_id}-{queue_id}"


def parse_name(text: str) -> tuple[int, int]:
    """Raises StoreError."""
    lane_id, dash, queue_id = text.partition("-")
    if not (dash and lane_id.isdigit() and queue_id.isdigit()):
        raise StoreError(f"{text} is no queue id; they look like 2-17")
    return int(lane_id), int(queue_id)


_ENTRY = (
    "r.lane_id, r.queue_id, trace_id, sender, address, domain, way, size, created, held, attempts, next_attempt, code, enhanced,"
    " reason, peer, target FROM queue_recipient AS r JOIN queue_letter AS l ON l.lane_id=r.lane_id AND l.queue_id=r.queue_id"
)


def _entry(row: Row) -> Entry:
    status = str(Status(row[12], row[13], row[14])) if row[12] else ""
    target = from_row(row[16])
    recipient = f"{row[4]} {target.shown}" if target is not None else row[4]
    return Entry(*(name(row[0], row[1]), *row[2:4], recipient, *row[5:12], status, row[15]))


@dataclass(frozen=True, slots=True)
class Selection:
    """Which recipients an operation means. Nothing given: all of them."""

    queue_id: str = ""
    sender: str = ""
    recipient: str = ""
    domain: str = ""

    def alone(self) -> tuple[str, list[object]]:
        """A condition on the rows of queue_recipient AS r alone."""
        where, values = replace(self, sender="").where()
        if self.sender:
            where += (
                " AND EXISTS (SELECT 1 FROM queue_letter AS l WHERE l.lane_id=r.lane_id AND l.queue_id=r.queue_id"
                " AND l.sender=?)"
            )
            values.append(self.sender)
        return where, values

    def where(self) -> tuple[str, list[object]]:
        parts, values = ["1=1"], list[object]()
        if self.queue_id:
            parts.append("r.lane_id=? AND r.queue_id=?")
            values += parse_name(self.queue_id)
        for column, value in (("sender", self.sender), ("address", self.recipient), ("domain", self.domain)):
            if value:
                parts.append(f"{column}=?")
                values.append(value.lower() if column == "domain" else value)
        return " AND ".join(parts), values


def entries(tx: Transaction, selection: Selection, limit: int = 1000) -> list[Entry]:
    where, values = selection.where()
    rows = tx.rows(f"SELECT {_ENTRY} WHERE {where} ORDER BY r.lane_id, r.queue_id, number LIMIT ?", (*values, limit))
    return [_entry(row) for row in rows]


HOLD_FIELDS = ("sender", "recipient", "domain")


def hold_rules(tx: Transaction) -> list[Row]:
    """(field, value, reason, created)."""
    return tx.rows("SELECT field, value, reason, created FROM hold_rule ORDER BY field, value")


def add_hold_rule(tx: Transaction, field: str, value: str, reason: str, now: int) -> None:
    tx.run("INSERT INTO hold_rule (field, value, reason, created) VALUES (?,?,?,?)"
           " ON CONFLICT (field, value) DO UPDATE SET reason=excluded.reason",
           (field, value.lower(), reason, now))  # fmt: skip


def remove_hold_rule(tx: Transaction, field: str, value: str) -> bool:
    return tx.row("DELETE FROM hold_rule WHERE field=? AND value=? RETURNING value", (field, value.lower())) is not None


def hold(tx: Transaction, selection: Selection, *, held: bool) -> int:
    """How many recipients that were; so with the others."""
    return _change(tx, selection, "held=?", (int(held),))


def retry(tx: Transaction, selection: Selection, now: int) -> int:
    return _change(tx, selection, "next_attempt=?", (now,))


def requeue(tx: Transaction, selection: Selection, now: int) -> int:
    """As if their letters had just come in: through the intake, where an alias is looked up as it is now."""
    what = "way=?, target='', held=0, attempts=0, warned=0, next_attempt=?"
    return _change(tx, selection, what, (Way.AGAIN, now))


def _change(tx: Transaction, selection: Selection, what: str, values: Sequence[object]) -> int:
    where, chosen = selection.alone()
    rows = tx.rows(f"UPDATE queue_recipient AS r SET {what} WHERE {where} RETURNING lane_id", (*values, *chosen))
    return _told(tx, rows)


def drop(tx: Transaction, selection: Selection, now: int) -> int:
    """Without a word to the sender; who asks for the letter's way learns of it, by an end without a code."""
    where, chosen = selection.alone()
    tx.run("INSERT INTO sent (trace_id, address, at, code, enhanced, reason, journey)"
           " SELECT l.trace_id, r.address, ?, 0, '', '', l.journey FROM queue_recipient AS r JOIN queue_letter AS l"
           f" ON l.lane_id=r.lane_id AND l.queue_id=r.queue_id WHERE {where} ON CONFLICT (trace_id, address) DO NOTHING",
           (now, *chosen))  # fmt: skip
    rows = tx.rows(f"DELETE FROM queue_recipient AS r WHERE {where} RETURNING lane_id, queue_id", chosen)
    letters = set(rows)
    if len(letters) < _MANY:
        for lane_id, queue_id in letters:
            drop_empty(tx, lane_id, queue_id)
    else:
        for lane_id in {row[0] for row in rows}:
            drop_all_empty(tx, lane_id)
    return _told(tx, rows)


def _told(tx: Transaction, rows: Sequence[Row]) -> int:
    for lane_id in {row[0] for row in rows}:
        tx.touched((QUEUE_ACCOUNT, lane_id))
    return len(rows)


def summary(tx: Transaction, now: int, edges: Sequence[int]) -> list[tuple[str, int, list[int]]]:
    """(domain, recipients, how many are younger than each edge in seconds and the rest), the busiest first."""
    younger = ", ".join(f"sum(created>{now - edge:d})" for edge in edges)
    rows = tx.rows(f"SELECT domain, count(*), {younger} FROM queue_recipient AS r JOIN queue_letter AS l"
                   " ON l.lane_id=r.lane_id AND l.queue_id=r.queue_id GROUP BY domain ORDER BY 2 DESC, 1")  # fmt: skip
    shown = []
    for domain, count, *cumulative in rows:
        ages = [high - low for low, high in zip([0, *cumulative[:-1]], cumulative, strict=True)]
        shown.append((domain, count, [*ages, count - cumulative[-1]]))
    return shown

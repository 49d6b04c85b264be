"""Leases: who holds a lane of the queue, a maildrop or the house, as rows; and who is believed to be gone.

A holder raises the row's `beat` again and again. Who wants the thing takes it when nobody holds it, or after he has seen the same
(owner, epoch, beat) for LEASE_SECONDS by a clock of his own that nobody sets: no wall clock, no process id and no other machine's
time decides. A taking raises `epoch`; what is written for a holder is written under it (`require`), so that one who was paused for
however long writes nothing.
"""

from collections.abc import Hashable, Mapping

from msgspec import Struct

from fubako.store.interface import StoreError, Transaction

LEASE_SECONDS = 30.0  # a holder that did not beat for so long holds nothing, by its own clock
TAKEN_SECONDS = LEASE_SECONDS + 2.0  # and by those of others a little later: clocks do not run quite alike


class LeaseLost(StoreError):
    """Another owner has it now."""


class Holding(Struct, frozen=True):
    """A row, as it was read. `owner` empty: nobody's."""

    owner: str
    epoch: int
    beat: int


class Kept(Struct, frozen=True):
    """Where leases of a kind are kept: a table with the columns owner, epoch and beat, and the name of its key."""

    table: str
    key: str


LANES = Kept("lane", "lane_id")
NAMES = Kept("lease", "name")


def held(tx: Transaction, kept: Kept) -> dict[Hashable, Holding]:
    rows = tx.rows(f"SELECT {kept.key}, owner, epoch, beat FROM {kept.table}")
    return {row[0]: Holding(*row[1:]) for row in rows}


def take(tx: Transaction, kept: Kept, key: int | str, owner: str, gone: Holding | None = None) -> int | None:
    """The epoch, when it is `owner`'s now: it was already, or nobody's, or still as it was when its holder was found `gone`. None:
    another one's."""
    where = f"FROM {kept.table} WHERE {kept.key}=?"
    row = tx.row(f"SELECT owner, epoch, beat {where}", (key,))
    if row is None:
        tx.run(f"INSERT INTO {kept.table} ({kept.key}, owner, epoch, beat) VALUES (?,?,1,0)", (key, owner))
        return 1
    holding = Holding(*row)
    if holding.owner not in (owner, "") and holding != gone:
        return None
    epoch = holding.epoch + int(holding.owner != owner)
    tx.run(f"UPDATE {kept.table} SET owner=?, epoch=?, beat=beat+1 WHERE {kept.key}=?", (owner, epoch, key))
    return epoch


def require(tx: Transaction, kept: Kept, key: int | str, owner: str, epoch: int) -> None:
    """Raises LeaseLost. Locks the row: nobody takes the lease before this transaction has ended."""
    sql = f"UPDATE {kept.table} SET beat=beat WHERE {kept.key}=? AND owner=? AND epoch=? RETURNING epoch"
    if tx.row(sql, (key, owner, epoch)) is None:
        raise LeaseLost(f"{kept.table} {key} is another one's now")


def release(tx: Transaction, kept: Kept, owner: str) -> None:
    """All of an owner's."""
    tx.run(f"UPDATE {kept.table} SET owner='' WHERE owner=?", (owner,))


def drop(tx: Transaction, name: str, owner: str, epoch: int) -> None:
    """A named one, and its row: owners are never called alike, so an epoch that comes again means no harm."""
    tx.run("DELETE FROM lease WHERE name=? AND owner=? AND epoch=?", (name, owner, epoch))


def release_servers(tx: Transaction) -> None:
    """For who has claimed an embedded store for its only server: those before are gone, whatever they held."""
    tx.run("UPDATE lane SET owner=''")
    tx.run("DELETE FROM lease WHERE owner LIKE ?", (f"{SERVER}%",))


SERVER = "server-"  # owners that run under a claim begin so


class Sightings:
    """What others hold, and since when it has looked just so. `now`: seconds of a clock that is never set (`Clock.monotonic`)."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, tuple[Holding, float]] = {}

    def note(self, holdings: Mapping[Hashable, Holding], now: float) -> None:
        """All there are; those that have changed are seen for the first time."""
        before = self._seen
        self._seen = {
            key: before[key] if key in before and before[key][0] == holding else (holding, now)
            for key, holding in holdings.items()
        }

    def gone(self, key: Hashable, now: float) -> Holding | None:
        """The holding whose owner does not beat any more."""
        seen = self._seen.get(key)
        return seen[0] if seen is not None and now - seen[1] >= TAKEN_SECONDS else None

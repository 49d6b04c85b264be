"""`compact`: give back the room of what was removed. `seal`: what segments are, once their writers are gone.

Both may run beside any number of servers and commands, and be ended at any point: whoever comes next goes on.
"""

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar, cast

from msgspec import Struct

from fubako.clock import Clock, SystemClock
from fubako.store import ownership, record
from fubako.store.interface import Damaged, Gone, Handle, StoreError, StoreFull, Transaction
from fubako.store.ownership import Living, Segment, SegmentLost, State
from fubako.store.segments import MAGIC, SegmentCore
from fubako.store.sqlite import SqliteCore

T = TypeVar("T")
LIVE_SHARE = 0.5  # a segment of which less is alive is emptied
BATCH_OCTETS = 4 * 1024 * 1024  # moved and committed together
BATCH_CONTENTS = 100
DISK_RESERVE_OCTETS = 64 * 1024 * 1024  # room of the disk that compaction leaves alone
_NUMBERS_MAX = 64


class Compacted(Struct, frozen=True, kw_only=True):
    """`octets`: given back. `damaged`: contents that could not be moved, in words; their segments stay. `short`: there was no room
    to move what lives out of some; those that hold nothing alive went all the same."""

    octets: int = 0
    damaged: tuple[str, ...] = ()
    short: bool = False


def commit(database: SqliteCore, unit: Callable[[Transaction], T]) -> T:
    """One unit of work, for who may wait. Raises what it raised."""
    (result,), _ = database.commit([unit])
    return cast("T", result)


class Keeper:
    """Empties, mends and removes segments, as an owner of its own."""

    def __init__(
        self, database: SqliteCore, segments: SegmentCore, *, clock: Clock | None = None, owner: str = ""
    ) -> None:
        self._database, self._segments = database, segments
        self._clock = clock or SystemClock()
        self._owner = owner or f"keeper-{secrets.token_hex(8)}"

    def _commit(self, unit: Callable[[Transaction], T]) -> T:
        return commit(self._database, unit)

    def _now(self) -> int:
        return int(self._clock.now())

    # -- segments whose writers are gone

    def seal(self) -> list[str]:
        """Every segment whose writer is gone is sealed, files that no row knows are taken in; what was done, in words. Nothing is
        cut off but what follows the last record that is whole or known."""
        done = [self._adopt(number) for number in self._unknown()]
        written = [one for one in self._database.read(ownership.all_of) if one.state is State.WRITING]
        done += [self._seal(one) for one in written if one.number != self._segments.active]
        return [what for what in done if what]

    def _unknown(self) -> list[int]:
        """Files without a row."""
        files = self._segments.numbers()
        known = {one.number for one in self._database.read(ownership.all_of)}
        return [number for number in files if number not in known]

    def _adopt(self, number: int) -> str:
        """While it is held: nobody is about to write it."""
        try:
            handle = self._segments.take(number)
        except Gone:
            return ""
        if handle is None:
            return ""
        try:
            taken = self._commit(lambda tx: ownership.adopt(tx, number, self._now()))
        finally:
            handle.close()
        return f"segment {number:x}: no row knew the file" if taken else ""

    def _seal(self, segment: Segment) -> str:
        try:
            handle = self._segments.take(segment.number)
        except Gone:
            return self._missing(segment)
        if handle is None:
            return ""
        try:
            told = self._cut(segment, handle)
            with suppress(SegmentLost):
                self._commit(lambda tx: ownership.change(tx, segment, State.SEALED, ""))
            return told
        finally:
            handle.close()

    def _missing(self, segment: Segment) -> str:
        """The file was never made, or somebody removed it."""
        try:
            gone = self._commit(lambda tx: ownership.change(tx, segment, State.REMOVED, self._owner))
            self._commit(lambda tx: ownership.forget(tx, gone))
        except SegmentLost:
            return f"segment {segment.number:x} is missing, and messages lie in it: see `store verify`"
        return ""

    def _cut(self, segment: Segment, handle: Handle) -> str:
        """A torn tail, and zeros that were written ahead."""
        known = self._database.read(lambda tx: ownership.living(tx, segment.number))
        last = max((one.ref.offset + record.occupied(one.ref.size) for one in known), default=0)
        end, torn = self._segments.torn(handle, last)
        if end >= handle.size():
            return ""
        handle.truncate(end)
        handle.sync()
        return f"segment {segment.number:x}: {torn} octets of an unfinished write cut off" if torn else ""

    # -- segments that hold what is dead

    def compact(self, *, erase: bool = False, free: Callable[[], int] | None = None) -> Compacted:
        """Move what lives out of segments that are mostly dead, and remove them; `erase`: out of those that hold anything dead.
        `free`: octets of room on the disk."""
        octets, damaged, short = 0, list[str](), False
        self.seal()
        self._commit(lambda tx: ownership.forget_moves(tx, self._now()))
        for segment in self._database.read(ownership.all_of):
            if segment.state is State.REMOVED:
                self._finish(segment)
            elif segment.state in (State.SEALED, State.EMPTYING):
                try:
                    octets += self._empty(segment, erase=erase, free=free)
                except Damaged as error:
                    damaged.append(str(error))
                except StoreFull:  # those that hold nothing alive need no room
                    short = True
                except (SegmentLost, Gone):
                    continue  # another one was quicker, or the file is missing, which `verify` tells
        self._leave()
        return Compacted(octets=octets, damaged=tuple(damaged), short=short)

    def _leave(self) -> None:
        if self._segments.leave():
            self._commit(lambda tx: ownership.leave(tx, self._owner))

    def _empty(self, segment: Segment, *, erase: bool, free: Callable[[], int] | None) -> int:
        handle = self._segments.take(segment.number)
        if handle is None:
            return 0
        try:
            held = handle.size()
            living = self._database.read(lambda tx: ownership.living(tx, segment.number))
            alive = self._segments.occupied(segment.number, [one.ref.size for one in living])
            if segment.state is State.SEALED and not _worth_it(alive, held, erase=erase):
                return 0
            if free is not None and living and free() < alive + DISK_RESERVE_OCTETS:
                raise StoreFull("no room to move what lives out of old segments")
            if segment.state is State.SEALED:
                segment = self._commit(lambda tx: ownership.change(tx, segment, State.EMPTYING, self._owner))
            try:
                # asked again: from here on nothing new refers to it
                self._move(self._database.read(lambda tx: ownership.living(tx, segment.number)))
                gone = self._commit(lambda tx: ownership.change(tx, segment, State.REMOVED, self._owner))
            except StoreError:
                with suppress(StoreError):
                    self._commit(lambda tx: ownership.change(tx, segment, State.SEALED, ""))
                raise
            self._finish(gone)
            return max(0, held - alive)
        finally:
            handle.close()

    def _finish(self, segment: Segment) -> None:
        self._segments.remove(segment.number)
        self._commit(lambda tx: ownership.forget(tx, segment))

    def _move(self, living: Sequence[Living]) -> None:
        batch: list[Living] = []
        octets = 0
        for one in living:
            batch.append(one)
            octets += one.ref.size
            if octets >= BATCH_OCTETS or len(batch) >= BATCH_CONTENTS:
                self._move_batch(batch)
                batch, octets = [], 0
        if batch:
            self._move_batch(batch)

    def _move_batch(self, batch: Sequence[Living]) -> None:
        """New place durable first, rows second: a crash at any point leaves every content reachable."""
        olds = [one.ref for one in batch]
        contents = [self._segments.read(ref) for ref in olds]
        if self._segments.full:
            self._begin()
        news = self._segments.put_as(olds, contents)
        now = self._now()

        def unit(tx: Transaction) -> None:
            for old, new in zip(olds, news, strict=True):
                ownership.move(tx, old, new, now)

        self._commit(unit)

    def _begin(self) -> None:
        for _ in range(_NUMBERS_MAX):
            number = self._commit(ownership.next_number)
            if not self._segments.begin(number):
                continue
            if self._commit(lambda tx, n=number: ownership.begin(tx, n, self._owner, self._now())):  # type: ignore[misc]  # binds the loop's value
                return
            self._segments.leave()
        raise StoreError("no number for a new segment is free: look at the folder of segments")


def _worth_it(alive: int, held: int, *, erase: bool) -> bool:
    """Whether a segment of `held` octets, of which `alive` live, is emptied."""
    if not alive:
        return True
    return alive + len(MAGIC) < held if erase else alive <= LIVE_SHARE * held

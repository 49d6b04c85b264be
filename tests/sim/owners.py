"""Several owners of one store at once, as a scheduler by seed interleaves them: servers that deliver, copy and remove, readers that
hold old places, keepers that seal, empty and remove segments. Any of them is killed, or the power goes, at any operation; octets of
the disk are flipped. A model of what was told to whom says what must be there.

Left out: SQLite between processes (its transactions are atomic here; one connection serves all, and is lost only with the power),
migrations, the search index, backups, errors of the disk (EIO, ENOSPC), clocks that jump.

python tests/sim/owners.py --runs 10000 --seed 0 [--mutant NAME]
"""

import argparse
import contextlib
import gc
import os
import random
import sys
import threading
import time
from pathlib import Path
from unittest.mock import patch

import apsw

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from keeping import put
from simdisk import PowerCut, SimDisk, SimHandle, SimVfs

from fubako.accounts import directory
from fubako.store import messages, ownership, record, segments
from fubako.store.compaction import Keeper, commit
from fubako.store.interface import BlobRef, Damaged, Gone, StoreError
from fubako.store.messages import Letter
from fubako.store.segments import SegmentCore
from fubako.store.sqlite import SqliteCore
from fubako.store.verify import verify

USERS = 2
SEGMENT_OCTETS = 2500
STEPS_MAX = 3000
FOLDER = "/segments"
VFS_NAME = f"fubako-owners-{os.getpid()}"
VFS = SimVfs(VFS_NAME)


class Violation(AssertionError):
    pass


class Killed(BaseException):
    """This owner is no more."""


# -- planted bugs: each is one line of the code as it must not be


def _any_place(_tx, ref: BlobRef) -> BlobRef:
    return ref


def _first_fault_is_the_end(self, handle, _known_end: int) -> tuple[int, int]:
    """As a start once took any bad checksum for the end of what was written."""
    end = len(segments.MAGIC)
    for one in segments._walk(handle):
        if one.place != end or not one.whole:
            break
        end = one.place + record.occupied(one.size)
    return end, handle.size() - end


def _remove_at_once(tx, known, to, owner):
    """Removed without a look at who refers to it by then."""
    row = tx.row(
        "UPDATE segment SET state=?, owner=?, epoch=epoch+1 WHERE segment=? RETURNING epoch", (to, owner, known.number)
    )
    return ownership.Segment(number=known.number, state=to, owner=owner, epoch=row[0] if row else 0)


def _numbers_of_the_folder(tx) -> int:
    """Numbers are those that are free, as they once were."""
    taken = {one.number for one in ownership.all_of(tx)}
    return next(number for number in range(1, 10_000) if number not in taken)


def _unproved(handle, ref: BlobRef, get) -> bytes:
    return get(handle, ref.offset, record.occupied(ref.size))[record.prelude(ref.size) :]


MUTANTS = {
    "rows-refer-to-any-place": ((ownership, "hold", _any_place),),
    "reads-are-not-proved": ((segments, "_content", _unproved),),
    "pieces-are-not-proved": ((segments, "_prove_pieces", lambda *_: None),),
    "a-fault-is-the-end": ((SegmentCore, "torn", _first_fault_is_the_end),),
    "removed-with-what-lives": ((ownership, "change", _remove_at_once), (Keeper, "_move", lambda *_: None)),
    "removed-at-once": ((ownership, "change", _remove_at_once), (ownership, "hold", _any_place)),
    "numbers-come-back": ((ownership, "next_number", _numbers_of_the_folder),),
    "everybody-is-gone": ((SimHandle, "lock", lambda _self: True),),
}


class Baton:
    """One thread runs at a time; who comes to a step hands over to whom the seed names."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.waiting: dict[str, threading.Semaphore] = {}
        self.main = threading.Semaphore(0)
        self.current = ""

    def pause(self) -> None:
        """Called by an owner: others may run now."""
        mine = self.waiting[self.current]
        self.main.release()
        mine.acquire()

    def run(self, name: str) -> None:
        """Let one owner go on until it pauses or ends."""
        self.current = name
        self.waiting[name].release()
        self.main.acquire()


class SharedDisk(SimDisk):
    """A disk at whose every operation another owner may get his turn. SQLite's own are not parted."""

    def __init__(self, rng: random.Random, world: "World") -> None:
        super().__init__(rng)
        self.world = world

    def who(self) -> str:
        return self.world.running.name if self.world.running is not None else ""

    def step(self) -> None:
        self.world.may_pause()
        super().step()

    def open(self, path: str):
        self.world.may_pause()
        return super().open(path)


class Owner:
    """One process: its files, and what it does."""

    def __init__(self, world: "World", name: str, work) -> None:
        self.world, self.name, self.work = world, name, work
        self.segments = SegmentCore(world.disk, FOLDER, segment_max=SEGMENT_OCTETS)
        self.handles: list = []
        self.killed = self.ended = False
        self.error: BaseException | None = None
        world.baton.waiting[name] = threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self.world.baton.waiting[self.name].acquire()
        try:
            self.work(self)
            self.segments.close()
            self.world.commit(lambda tx: ownership.leave(tx, self.name))
        except (Killed, PowerCut):
            pass
        except BaseException as error:
            self.error = error
        self.ended = True
        self.world.let_go(self)
        self.world.baton.main.release()


class World:
    """One store, its owners, and what was told."""

    def __init__(self, seed: int, mutant: str = "") -> None:
        self.rng = random.Random(seed)
        self.mutant = mutant
        self.baton = Baton(self.rng)
        self.disk = SharedDisk(self.rng, self)
        self.owners: dict[str, Owner] = {}
        self.running: Owner | None = None
        self.in_rows = False
        self.told: dict[tuple[int, int, int], bytes] = {}
        self.maybe_gone: set[tuple[int, int, int]] = set()
        self.gone: set[tuple[int, int, int]] = set()
        self.ever: dict[tuple[int, int, int], bytes] = {}
        self.flipped: set[int] = set()  # ids whose octets were changed on the disk
        self.ids: dict[int, bytes] = {}
        self.count = 0
        VFS.disk = self.disk
        self._open()
        self.commit(self._accounts)

    def _accounts(self, tx) -> None:
        directory.add_domain(tx, "a.test", 1)
        for number in range(USERS):
            directory.add_account(tx, f"u{number}@a.test", 1)

    def _open(self) -> None:
        self.in_rows = True
        self.database = SqliteCore("/db/mail.sqlite", vfs=VFS_NAME, exclusive=True, checkpoint_pages=60)
        self.in_rows = False

    # -- turns

    def may_pause(self) -> None:
        owner = self.running
        if owner is None or self.in_rows:
            return
        if owner.killed:
            raise Killed
        self.baton.pause()
        self.running = owner
        if owner.killed:
            raise Killed

    def commit(self, unit):
        self.may_pause()
        self.in_rows = True
        try:
            return commit(self.database, unit)
        finally:
            self.in_rows = False

    def read(self, unit):
        self.in_rows = True
        try:
            return self.database.read(unit)
        finally:
            self.in_rows = False

    def let_go(self, owner: Owner) -> None:
        """The kernel closes what a process had open: its locks go."""
        for file in self.disk.files.values():
            if file.locked and file.holder == owner.name:
                file.locked = False
        self.running = None

    def start(self, work) -> None:
        self.count += 1
        name = f"{work.__name__}{self.count}"
        self.owners[name] = Owner(self, name, work)

    def schedule(self, steps: int) -> None:
        """So many turns; now and then somebody is killed, or begins."""
        for _ in range(steps):
            living = [one for one in self.owners.values() if not one.ended]
            if not living:
                return
            owner = self.rng.choice(living)
            if self.rng.random() < 0.004:
                owner.killed = True
            self.running = owner
            self.baton.run(owner.name)
            self.running = None
            if owner.error is not None:
                raise Violation(f"{owner.name}: {owner.error!r}") from owner.error

    # -- what owners do

    def serve(self, owner: Owner) -> None:
        for _ in range(self.rng.randint(2, 8)):
            roll = self.rng.random()
            if roll < 0.55:
                self.deliver(owner)
            elif roll < 0.7:
                self.copy()
            elif roll < 0.9:
                self.remove()
            else:
                owner.segments.leave()
                self.commit(lambda tx: ownership.leave(tx, owner.name))

    def keep(self, owner: Owner) -> None:
        keeper = Keeper(_Rows(self), owner.segments, owner=owner.name)
        for _ in range(self.rng.randint(1, 2)):
            with contextlib.suppress(Damaged):
                keeper.compact(erase=self.rng.random() < 0.7)

    def read_on(self, owner: Owner) -> None:
        """Places are asked for first, and read much later."""
        rows = self.read(lambda tx: tx.rows(f"SELECT account_id, mailbox_id, uid, {messages.PLACE} FROM message"))
        self.rng.shuffle(rows)
        for account, box, uid, *place in rows[:6]:
            self.may_pause()
            self.look((account, box, uid), BlobRef(*place), owner.segments)

    def deliver(self, owner: Owner) -> None:
        content = self.rng.randbytes(self.rng.choice((30, 200, 700)))
        (ref,) = put(_Rows(self), owner.segments, [[content]], owner.name)
        if self.ids.setdefault(ref.blob_id, content) != content:
            raise Violation(f"id {ref.blob_id:x} was given twice")
        if self.rng.random() < 0.15:  # as when it leaves a segment while others' rows are still to come
            owner.segments.leave()
            self.commit(lambda tx: ownership.leave(tx, owner.name))
        for _ in range(self.rng.choice((0, 0, 0, 1, 30, 60))):  # paused between content and rows
            self.may_pause()
        account = self.rng.randint(1, USERS)
        letter = Letter(ref, 0, b"()", b"()", 1)
        try:
            placed = self.commit(lambda tx: messages.deliver(tx, [account], letter, 1))
        except ownership.SegmentLost:
            return  # refused: the peer was told nothing
        for who, _validity, uid in placed:
            self.note((who, 1, uid), content)

    def note(self, key: tuple[int, int, int], content: bytes) -> None:
        if self.ever.setdefault(key, content) != content:
            raise Violation(f"{key} was given twice")
        self.told[key] = content

    def some(self) -> list[tuple[int, int, int]]:
        keys = sorted(self.told)
        if not keys:
            return []
        account, box, _ = self.rng.choice(keys)
        mine = [key for key in keys if key[:2] == (account, box)]
        return self.rng.sample(mine, min(len(mine), 4))

    def copy(self) -> None:
        keys = sorted(self.some())
        if not keys:
            return
        account, box, uids = keys[0][0], keys[0][1], [key[2] for key in keys]
        copied = self.commit(lambda tx: messages.copy(tx, account, box, uids, 2, 1))
        for source, target in zip(copied.sources, copied.targets, strict=True):
            self.note((account, 2, target), self.ever[account, box, source])

    def remove(self) -> None:
        keys = sorted(self.some())
        if not keys:
            return
        account, box, uids = keys[0][0], keys[0][1], [key[2] for key in keys]
        self.maybe_gone.update(keys)
        for key in keys:
            self.told.pop(key, None)
        self.commit(lambda tx: messages.expunge(tx, account, box, uids, flagged=False))
        self.gone.update(keys)

    # -- what happens to a disk

    def flip(self) -> None:
        """One bit of a content that rows know."""
        rows = self.read(lambda tx: tx.rows(f"SELECT {messages.PLACE} FROM message"))
        if not rows:
            return
        ref = BlobRef(*self.rng.choice(rows))
        file = self.disk.files.get(f"{FOLDER}/{segments.segment_name(ref.segment)}")
        if file is None:
            raise Violation(f"segment {ref.segment:x} is missing")
        at = ref.offset + self.rng.randrange(record.occupied(ref.size))
        bit = 1 << self.rng.randrange(8)
        for data in (file.data, file.durable):
            if at < len(data):
                data[at] ^= bit
        self.flipped.add(ref.blob_id)

    def power_cut(self) -> None:
        for owner in self.owners.values():
            owner.killed = True
        self.disk.dead = True
        self.in_rows = True
        with contextlib.suppress(PowerCut, apsw.Error):
            self.database.close()
        self.in_rows = False
        self.finish()
        self.database = None
        gc.collect(0)
        self.disk.crash()
        self._open()

    def finish(self) -> None:
        for owner in self.owners.values():
            while not owner.ended:
                self.running = owner
                self.baton.run(owner.name)
        self.owners.clear()
        self.running = None

    # -- what must be true

    def look(self, key: tuple[int, int, int], ref: BlobRef, core: SegmentCore) -> None:
        try:
            found = core.read(ref)
        except Gone:
            moved = self.read(lambda tx: ownership.moved(tx, ref))
            if moved is None or moved.segment == ref.segment:
                if key in self.told:
                    raise Violation(f"lost: {key}, its segment {ref.segment:x} is gone") from None
                return
            self.look(key, moved, core)
            return
        except Damaged as error:
            if ref.blob_id not in self.flipped:
                raise Violation(f"{key}: {error}, and nobody damaged it") from None
            return
        except StoreError as error:
            raise Violation(f"{key}: {error}") from None
        if self.ever.setdefault(key, found) != found:
            raise Violation(f"{key} shows another content than it had")

    def check(self) -> None:
        core = SegmentCore(self.disk, FOLDER, segment_max=SEGMENT_OCTETS)
        rows = self.read(lambda tx: tx.rows(f"SELECT account_id, mailbox_id, uid, {messages.PLACE} FROM message"))
        present = set()
        for account, box, uid, *place in rows:
            key = (account, box, uid)
            present.add(key)
            if key in self.gone:
                raise Violation(f"{key} came back")
            self.look(key, BlobRef(*place), core)
        lost = set(self.told) - present - self.maybe_gone
        if lost:
            raise Violation(f"lost: {sorted(lost)}")
        damaged = {f"{one:x}" for one in self.flipped}
        faults = verify(_Rows(self), core, None, lambda *_: None).faults
        strange = [fault for fault in faults if not any(one in fault for one in damaged)]
        if strange:
            raise Violation(f"verify: {strange}")
        core.close()
        self.told = {key: self.ever[key] for key in present if key in self.ever}
        self.maybe_gone.clear()


class _Rows:
    """The rows as an owner's own connection has them."""

    def __init__(self, world: World) -> None:
        self._world = world

    def commit(self, units):
        (unit,) = units
        self._world.may_pause()
        self._world.in_rows = True
        try:
            return self._world.database.commit([unit])
        finally:
            self._world.in_rows = False

    def read(self, unit):
        return self._world.read(unit)

    def integrity(self):
        return []


@contextlib.contextmanager
def planted(mutant: str):
    """The program with one bug."""
    if not mutant:
        yield
        return
    with contextlib.ExitStack() as stack:
        for place, name, wrong in MUTANTS[mutant]:
            stack.enter_context(patch.object(place, name, wrong))
        yield


def simulate(runs: int, seed: int, mutant: str = "") -> dict:
    """`runs` worlds; raises Violation with the seed that shows it again."""
    told = cuts = 0
    with planted(mutant):
        for number in range(runs):
            world_seed = seed * 1_000_003 + number
            world = World(world_seed, mutant)
            try:
                cuts += one(world)
            except Violation as violation:
                raise Violation(f"world {world_seed}: {violation}") from violation
            finally:
                told += len(world.ever)
                for owner in world.owners.values():
                    owner.killed = True
                world.finish()
                world.disk.dead = True
                with contextlib.suppress(PowerCut, apsw.Error):
                    world.database.close()
    return {"runs": runs, "messages": told, "cuts": cuts}


def one(world: World) -> int:
    """Some lives of a store; how often the power went."""
    cuts = 0
    for _ in range(world.rng.randint(2, 4)):
        for _ in range(world.rng.randint(2, 5)):
            world.start(world.rng.choice((world.serve, world.serve, world.keep, world.read_on)))
        world.schedule(world.rng.randint(20, 250))
        if world.rng.random() < 0.25:
            world.flip()
        end = world.rng.random()
        if end < 0.4:
            cuts += 1
            world.power_cut()
        elif end < 0.7:
            for owner in world.owners.values():
                owner.killed = True
        world.schedule(STEPS_MAX)
        world.finish()
        if world.rng.random() < 0.5:
            world.start(world.keep)
            world.schedule(STEPS_MAX)
            world.finish()
        world.check()
    return cuts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mutant", choices=MUTANTS, default="")
    options = parser.parse_args()
    start = time.process_time()
    try:
        facts = simulate(options.runs, options.seed, options.mutant)
    except Violation as violation:
        print(f"VIOLATION {violation}")
        return 1
    print(
        f"{facts['runs']} worlds, {facts['messages']} messages, {facts['cuts']} power cuts, 0 lost, 0 shown to another,"
        f" 0 UIDs or ids given twice, {time.process_time() - start:.1f} CPU-s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Crashes of the store on a simulated disk: letters arrive, are flagged, copied, removed; the power goes at any operation;
what was acknowledged must be there, whole, under its UID, and no UID may be given twice.

python tests/sim/crashes.py --runs 10000 --seed 0 [--mutant NAME]
"""

import argparse
import gc
import os
import random
import sys
import time
from pathlib import Path

import apsw

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import contextlib

from keeping import put
from simdisk import PowerCut, SimDisk, SimVfs

from fubako.accounts import directory
from fubako.message.status import Status
from fubako.store import messages, queue
from fubako.store.compaction import Keeper
from fubako.store.interface import BlobRef
from fubako.store.messages import Flags, Letter
from fubako.store.queue import Outcome, Outgoing, Target
from fubako.store.segments import SegmentCore
from fubako.store.sqlite import SqliteCore

MUTANTS = ("reply-before-sync", "commit-before-sync", "synchronous-normal", "no-directory-sync")
USERS = 3
VFS_NAME = f"fubako-sim-{os.getpid()}"
VFS = SimVfs(VFS_NAME)


class Violation(AssertionError):
    pass


class World:
    """One store and what its clients were told."""

    def __init__(self, seed: int, mutant: str = "") -> None:
        self.rng = random.Random(seed)
        self.mutant = mutant
        self.disk = SimDisk(self.rng)
        self.disk.lazy_directory = "/segments" if mutant == "no-directory-sync" else ""
        self.now = 1000
        self.told: dict[tuple[int, int], dict[int, bytes]] = {}  # (account, mailbox) -> uid -> content acknowledged
        self.gone: dict[tuple[int, int], set[int]] = {}  # removals that were acknowledged or in flight
        self.maybe_gone: dict[tuple[int, int], set[int]] = {}
        self.ever: dict[tuple[int, int], dict[int, bytes]] = {}  # uid -> content, once it was seen
        self.crashes = self.letters = 0
        self.queued: dict[
            tuple[int, int, int], bytes
        ] = {}  # recipients elsewhere that were accepted and are not settled
        self.maybe_settled: set[tuple[int, int, int]] = set()
        self.ended: set[tuple[int, int, int]] = set()
        VFS.disk = self.disk
        self.open(first=True)

    def open(self, first: bool = False) -> None:
        synchronous = "NORMAL" if self.mutant == "synchronous-normal" else "FULL"
        self.database = SqliteCore(
            "/db/mail.sqlite", vfs=VFS_NAME, exclusive=True, synchronous=synchronous, checkpoint_pages=60
        )
        self.segments = SegmentCore(self.disk, "/segments", segment_max=20_000)
        if first:

            def setup(tx):
                directory.add_domain(tx, "a.test", self.now)
                for i in range(USERS):
                    directory.add_account(tx, f"u{i}@a.test", self.now)

            self.commit(setup)

    def commit(self, unit):
        (result,), _ = self.database.commit([unit])
        if isinstance(result, Exception):
            raise result
        return result

    # -- work

    def one(self) -> None:
        roll = self.rng.random()
        if roll < 0.6:
            self.deliver()
        elif roll < 0.7:
            self.carry()
        elif roll < 0.8:
            self.flag()
        elif roll < 0.9:
            self.copy()
        else:
            self.remove()

    def deliver(self) -> None:
        """A group of letters, as the intake does it: content synced, rows committed, then told."""
        if self.rng.random() < 0.3:
            self.segments.reserve()
        count = self.rng.randint(1, 3)
        contents = [self.rng.randbytes(self.rng.choice((40, 600, 3000))) for _ in range(count)]
        who = [sorted(self.rng.sample(range(1, USERS + 1), self.rng.randint(1, USERS))) for _ in range(count)]
        if self.mutant == "commit-before-sync":
            real, self.disk.lazy_sync = self.disk.lazy_sync, True
            refs = put(self.database, self.segments, [[content] for content in contents], f"life {self.crashes}")
            self.disk.lazy_sync = real
        elif self.mutant == "reply-before-sync":
            self.disk.lazy_sync = True
            refs = put(self.database, self.segments, [[content] for content in contents], f"life {self.crashes}")
        else:
            refs = put(self.database, self.segments, [[content] for content in contents], f"life {self.crashes}")
        targets = [
            [Target(f"{self.letters}.{n}@far.test", "far.test") for n in range(self.rng.choice((0, 0, 1, 2)))]
            for _ in range(count)
        ]

        def unit(tx, ref, ids, elsewhere):
            placed = messages.deliver(tx, ids, Letter(ref, 0, b"()", b"()", self.now), self.now)
            outgoing = Outgoing(ref, "u0@a.test", trace_id=f"{self.letters:04x}", created=self.now)
            return placed, queue.put(tx, outgoing, elsewhere) if elsewhere else None

        units = [
            (lambda tx, ref=ref, ids=ids, elsewhere=elsewhere: unit(tx, ref, ids, elsewhere))
            for ref, ids, elsewhere in zip(refs, who, targets, strict=True)
        ]
        results, _ = self.database.commit(units)
        self.disk.lazy_sync = False
        for content, elsewhere, (placed, key) in zip(contents, targets, results, strict=True):
            for account, _validity, uid in placed:
                self.note((account, 1), uid, content)
            for number in range(len(elsewhere)):
                if (*key, number) in self.ended:
                    raise Violation(f"queue id {key} was given twice")
                self.queued[(*key, number)] = content
        self.letters += count

    def carry(self) -> None:
        """Lease a lane, and settle some of what is due: sent, or to be tried again."""
        lane = self.rng.randrange(queue.LANES)
        epoch = self.commit(lambda tx: queue.take(tx, lane, f"owner{self.crashes}", queue.lanes(tx)[lane]))
        self.now += 2
        assert epoch is not None  # whoever had it before the crash has been seen without a beat for long enough
        found = self.database.read(lambda tx: queue.due(tx, lane, self.now, 3))
        outcomes = [
            Outcome(one, Status(250, "2.0.0", "ok"))
            if self.rng.random() < 0.7
            else Outcome(one, Status(451, "4.0.0", "later"), "", self.now + 1)
            for one in found
        ]
        over = [one.queued.key for one in outcomes if one.again_at is None]
        self.maybe_settled.update(over)

        def settle(tx):
            for one in outcomes:
                trace_id = queue.letter(tx, *one.queued.key[:2]).trace_id
                queue.settle(tx, lane, epoch, trace_id, [one], self.now)

        self.commit(settle)
        for key in over:
            self.queued.pop(key, None)
            self.ended.add(key)

    def note(self, place, uid: int, content: bytes) -> None:
        before = self.ever.setdefault(place, {}).get(uid)
        if before is not None and before != content:
            raise Violation(f"UID {uid} of {place} was given twice")
        self.ever[place][uid] = content
        self.told.setdefault(place, {})[uid] = content

    def some(self):
        places = [place for place in self.told if self.told[place]]
        if not places:
            return None
        place = self.rng.choice(places)
        return place, self.rng.sample(sorted(self.told[place]), min(len(self.told[place]), 3))

    def flag(self) -> None:
        chosen = self.some()
        if chosen:
            (account, box), uids = chosen
            self.commit(lambda tx: messages.store_flags(tx, account, box, sorted(uids), "+", Flags(messages.SEEN)))

    def copy(self) -> None:
        chosen = self.some()
        if not chosen:
            return
        (account, box), uids = chosen
        copied = self.commit(lambda tx: messages.copy(tx, account, box, sorted(uids), 2, self.now))
        for source, target in zip(copied.sources, copied.targets, strict=True):
            self.note((account, 2), target, self.told[account, box][source])

    def remove(self) -> None:
        chosen = self.some()
        if not chosen:
            return
        place, uids = chosen
        self.maybe_gone.setdefault(place, set()).update(uids)
        self.commit(lambda tx: messages.expunge(tx, *place, sorted(uids), flagged=False))
        for uid in uids:
            del self.told[place][uid]
        self.gone.setdefault(place, set()).update(uids)

    # -- crash and check

    def crash(self) -> None:
        self.crashes += 1
        try:
            self.disk.dead = True
            self.database.close()
        except (PowerCut, apsw.Error):
            pass
        self.database = self.segments = None
        gc.collect(0)
        self.disk.crash()
        self.open()
        Keeper(self.database, self.segments).seal()
        self.check()

    def check(self) -> None:
        broken = self.database.integrity()
        if broken:
            raise Violation(f"SQLite: {broken}")
        rows = self.database.read(
            lambda tx: tx.rows(
                f"SELECT account_id, mailbox_id, uid, {messages.PLACE} FROM message ORDER BY account_id, mailbox_id, uid"
            )
        )
        present: dict[tuple[int, int], set[int]] = {}
        for account, box, uid, *where in rows:
            place, ref = (account, box), BlobRef(*where)
            present.setdefault(place, set()).add(uid)
            fault = self.segments.check(ref)
            if fault:
                raise Violation(f"corrupt: UID {uid} of {place}: {fault}")
            content = self.segments.read(ref)
            known = self.ever.setdefault(place, {}).setdefault(uid, content)
            if known != content:
                raise Violation(f"UID {uid} of {place} holds another letter than it did")
            if uid in self.gone.get(place, ()):
                raise Violation(f"UID {uid} of {place} came back")
        for place, letters in self.told.items():
            lost = set(letters) - present.get(place, set()) - self.maybe_gone.get(place, set())
            if lost:
                raise Violation(f"lost: UIDs {sorted(lost)} of {place}")
        self.counts()
        self.check_queue()
        # what was in flight is now known to be there or not
        self.told = {place: {uid: self.ever[place][uid] for uid in uids} for place, uids in present.items()}
        self.maybe_gone.clear()

    def check_queue(self) -> None:
        """Every recipient that was accepted waits or was settled, once; its content is whole; nobody's count is wrong."""
        rows = self.database.read(
            lambda tx: tx.rows(
                f"SELECT r.lane_id, r.queue_id, number, {messages.PLACE} FROM queue_recipient AS r LEFT JOIN queue_letter AS l"
                " ON l.lane_id=r.lane_id AND l.queue_id=r.queue_id"
            )
        )
        present = {tuple(row[:3]): row[3:] for row in rows}
        for key, where in present.items():
            if where[0] is None:
                raise Violation(f"queue recipient {key} without its letter")
            if key in self.ended:
                raise Violation(f"queue recipient {key} came back after it was settled")
            content = self.segments.read(BlobRef(*where))
            if self.queued.setdefault(key, content) != content:
                raise Violation(f"queue recipient {key} holds another letter than it did")
        lost = set(self.queued) - set(present) - self.maybe_settled
        if lost:
            raise Violation(f"lost from the queue: {sorted(lost)}")
        self.ended |= {key for key in self.queued if key not in present}
        self.queued = {key: self.queued[key] for key in present}
        self.maybe_settled.clear()

    def counts(self) -> None:
        rows = self.database.read(
            lambda tx: tx.rows(
                "SELECT mailbox.account_id, mailbox.mailbox_id, messages, unseen, octets, uidnext, count(uid),"
                " coalesce(sum(flags & 1 = 0), 0), coalesce(sum(size), 0), coalesce(max(uid), 0) FROM mailbox LEFT JOIN message"
                " ON message.account_id=mailbox.account_id AND message.mailbox_id=mailbox.mailbox_id"
                " GROUP BY mailbox.account_id, mailbox.mailbox_id"
            )
        )
        for account, box, count, unseen, octets, uidnext, *real in rows:
            if [count, unseen, octets] != real[:3] or real[3] >= uidnext:
                raise Violation(f"counters of {(account, box)} do not match the messages")


def simulate(runs: int, seed: int, mutant: str = "") -> dict:
    """`runs` crashes in worlds of 25; raises Violation with the seed that shows it again."""
    crashes = letters = 0
    world_seed = seed * 1_000_003
    while crashes < runs:
        world = World(world_seed, mutant)
        try:
            for _ in range(min(25, runs - crashes)):
                world.disk.cut_at = world.disk.operations + world.rng.randint(1, 200)
                try:
                    while True:
                        world.one()
                except PowerCut:
                    pass
                except apsw.Error:
                    if not world.disk.dead:
                        raise
                except Exception as error:
                    if not world.disk.dead:
                        raise Violation(repr(error)) from error
                world.crash()
        except Violation as violation:
            raise Violation(f"world {world_seed}, crash {world.crashes}: {violation}") from violation
        finally:
            crashes += world.crashes
            letters += world.letters
        world.disk.dead = True
        with contextlib.suppress(PowerCut, apsw.Error):
            world.database.close()
        world_seed += 1
    return {"crashes": crashes, "letters": letters}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
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
        f"{facts['crashes']} crashes, {facts['letters']} letters, 0 lost, 0 corrupt, no UID given twice,"
        f" {time.process_time() - start:.1f} CPU-s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

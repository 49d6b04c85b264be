"""Leases are judged by the clock of who wants them, and by nothing else: no wall clock, no process id, nobody else's time.

Several owners are several objects on one store; their clocks are the test's. Left out: clocks that run at very different speeds.
"""

import asyncio
import random

import pytest
from memory_server import MemoryServer

from fubako.accounts import directory
from fubako.accounts.identity import Identity
from fubako.clock import SystemClock
from fubako.net.memory import pair
from fubako.server.pop3 import Pop3Session
from fubako.server.session import Arrival
from fubako.store import lease, queue
from fubako.store.lease import LANES, LEASE_SECONDS, NAMES, TAKEN_SECONDS, LeaseLost, Sightings
from fubako.store.leases import BEAT_SECONDS, Leases
from fubako.store.sqlite import SqliteCore


class Clock:
    """The wall clock and the one that nobody sets go their own ways."""

    def __init__(self, wall: float = 1e9, monotonic: float = 5.0) -> None:
        self.wall, self.steady = wall, monotonic

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady


class Owner:
    """As a runner does it: look, then take what nobody has."""

    def __init__(self, core, name: str, monotonic: float) -> None:
        self.core, self.name, self.monotonic, self.sightings = core, name, monotonic, Sightings()

    def beat(self, seconds: float = 0.0) -> int | None:
        self.monotonic += seconds
        self.sightings.note(self.core.read(queue.lanes), self.monotonic)
        gone = self.sightings.gone(0, self.monotonic)
        ((epoch,), _) = self.core.commit([lambda tx: queue.take(tx, 0, self.name, gone)])
        return epoch


@pytest.fixture
def core(tmp_path):
    made = SqliteCore(str(tmp_path / "mail.sqlite"))
    yield made
    made.close()


def test_a_holder_that_beats_keeps_its_lease_and_its_epoch_whatever_the_clocks_say(core):
    one, other = Owner(core, "a", 1000.0), Owner(core, "b", 7.0)
    epoch = one.beat()
    for _ in range(20):
        assert one.beat(LEASE_SECONDS / 4) == epoch
        assert other.beat(LEASE_SECONDS - 1) is None  # a clock that runs four times as fast
    assert one.beat(10 * LEASE_SECONDS) == epoch  # late, but nobody took it: what it sent is not sent again


def test_who_does_not_beat_loses_it_after_a_time_by_the_takers_clock(core):
    one, other = Owner(core, "a", 1000.0), Owner(core, "b", 7.0)
    epoch = one.beat()
    assert other.beat() is None
    assert other.beat(TAKEN_SECONDS - 1) is None
    assert other.beat(1) == epoch + 1
    assert one.beat() is None
    with pytest.raises(LeaseLost):
        core.commit([lambda tx: queue.check(tx, 0, epoch)])
    core.commit([lambda tx: queue.check(tx, 0, epoch + 1)])


def test_one_sighting_is_none(core):
    """Who has just come knows nothing of how long others have been silent, whenever that was."""
    one, other = Owner(core, "a", 0.0), Owner(core, "b", 1e6)
    one.beat()
    assert other.beat(1e6) is None


def test_a_beat_between_the_look_and_the_taking_counts(core):
    one, other = Owner(core, "a", 0.0), Owner(core, "b", 0.0)
    epoch = one.beat()
    other.beat()
    other.sightings.note(core.read(queue.lanes), TAKEN_SECONDS)
    gone = other.sightings.gone(0, TAKEN_SECONDS)
    assert gone is not None
    assert one.beat() == epoch
    ((taken,), _) = core.commit([lambda tx: queue.take(tx, 0, "b", gone)])
    assert taken is None


def test_settling_locks_the_lane(core):
    """The fence is a write to the lane's row: on any database a taking waits for it, or fails."""
    seen = []

    class Watched:
        def __init__(self, tx):
            self.rows, self.many, self.run, self.touched = tx.rows, tx.many, tx.run, tx.touched
            self._row = tx.row

        def row(self, sql, parameters=()):
            seen.append(sql)
            return self._row(sql, parameters)

    epoch = Owner(core, "a", 0.0).beat()
    core.commit([lambda tx: queue.settle(Watched(tx), 0, epoch, "t", [], 1)])
    assert seen[0].startswith("UPDATE lane SET")


def test_many_owners_with_many_clocks_never_hold_one_thing_together(core):
    """A holder acts for LEASE_SECONDS after its last beat began, by its own clock; nobody else holds it meanwhile."""
    rng = random.Random(5)
    owners = [Owner(core, f"o{number}", rng.uniform(0, 1e6)) for number in range(3)]
    until: dict[str, float] = {}
    now, changes, last = 0.0, 0, ""
    for _ in range(1500):
        step = rng.choice((0.5, 3.0, LEASE_SECONDS / 4, TAKEN_SECONDS, 2 * TAKEN_SECONDS))
        now += step
        for owner in owners:
            owner.monotonic += step
        owner = rng.choice(owners if rng.random() < 0.3 else owners[:1])
        if owner.beat() is not None:
            assert all(ends <= now for name, ends in until.items() if name != owner.name), now
            until[owner.name] = now + LEASE_SECONDS
            changes += owner.name != last
            last = owner.name
    assert changes > 20


async def session(server, leases, account, words: bytes) -> bytes:
    from dataclasses import replace

    ours, theirs = pair(local=True)
    resources = replace(server.app.resources, leases=leases)
    running = Pop3Session(resources, Arrival(ours, "pop3", proved=Identity(account, "PREAUTH")))
    task = asyncio.ensure_future(running.run())
    theirs.write(words)
    heard = b""
    while octets := await theirs.read():
        heard += octets
        if b"QUIT" not in words and heard.endswith(b"\r\n"):
            return heard
    await task
    return heard


def test_a_maildrop_is_one_sessions_on_two_servers_of_one_store(monkeypatch):
    """And it is to be had again as soon as QUIT was answered, on either; or when its owner was silent for long enough."""

    async def test():
        async with MemoryServer("pop3", {}) as server:

            def unit(tx):
                return directory.add_account(tx, "m0@gcd.org", 1)

            account = await server.store.database.write(unit)
            clocks = [Clock(), Clock(wall=2e9, monotonic=1e7)]
            here, there = (Leases(server.store.database, clock, name) for clock, name in zip(clocks, "ab", strict=True))
            held = await session(server, here, account, b"NOOP\r\n")
            assert held.startswith(b"+OK")
            for leases in (here, there):
                assert (await session(server, leases, account, b"QUIT\r\n")).startswith(b"-ERR [IN-USE]")
            clocks[1].steady += TAKEN_SECONDS - 1
            assert (await session(server, there, account, b"QUIT\r\n")).startswith(b"-ERR [IN-USE]")
            clocks[1].steady += 1
            assert (await session(server, there, account, b"QUIT\r\n")).startswith(b"+OK")
            assert (await session(server, there, account, b"QUIT\r\n")).startswith(b"+OK")
            lost = here._held[f"pop3-{account.account_id}"]
            with pytest.raises(LeaseLost):
                await server.store.database.write(lost.require)
            await there.close()
            await here.close()

    asyncio.run(asyncio.wait_for(test(), 30))


def test_what_is_held_beats_and_what_is_released_is_gone(monkeypatch):
    monkeypatch.setattr("fubako.store.leases.BEAT_SECONDS", 0.001)

    async def test():
        async with MemoryServer("pop3", {}) as server:
            database = server.store.database
            leases = Leases(database, SystemClock(), "me")
            held = await leases.take("house")
            assert await leases.take("house") is None
            first = (await database.read(lambda tx: lease.held(tx, NAMES)))["house"]
            while (await database.read(lambda tx: lease.held(tx, NAMES)))["house"].beat < first.beat + 3:
                await asyncio.sleep(0.001)
            held.release()
            again = await leases.take("house")  # at once, in the same process
            assert again is not None
            await leases.close()
            assert await database.read(lambda tx: lease.held(tx, NAMES)) == {}

    asyncio.run(asyncio.wait_for(test(), 30))


def test_a_server_that_claims_the_store_need_not_wait_for_the_one_that_was_killed(core):
    core.commit(
        [lambda tx: lease.take(tx, LANES, 1, "server-1-x"), lambda tx: lease.take(tx, NAMES, "pop3-1", "server-1-x")]
    )
    core.commit([lambda tx: lease.take(tx, NAMES, "pop3-2", "77-x")])  # a pipe's: it runs beside any server
    core.commit([lease.release_servers])
    assert core.read(lambda tx: lease.held(tx, NAMES)).keys() == {"pop3-2"}
    assert core.read(queue.lanes)[1].owner == ""


def test_times_of_leases_fit_together():
    assert 3 * BEAT_SECONDS < LEASE_SECONDS < TAKEN_SECONDS
    before = SystemClock().monotonic()
    assert before <= SystemClock().monotonic()

"""The wall clock jumps; letters go out when they would have, and none is given up for that.

The runner and its store are real, the clocks are the test's. Left out: the loop's own timers, which no wall clock moves.
"""

import asyncio

from peer import House, Peer
from test_runner import to

from fubako.clock import Env
from fubako.delivery.schedule import ATTEMPTS_MIN, LONGEST_GAP, Schedule
from fubako.store import queue

DAY = 24 * 3600


class Clock:
    def __init__(self) -> None:
        self.wall, self.steady = 1.7e9, 100.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    @property
    def at(self) -> float:
        return self.wall

    def go_on(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


async def deferred(house, peer) -> None:
    await house.send("bob@far.test")
    house.run()
    await house.until(lambda: "DATA" in peer.said)

    async def tried():
        return [one for one in await house.entries() if one.attempts]

    await house.until(tried)


async def looked(house) -> None:
    """Some of the runner's next rounds."""
    runner = house.app._runner
    for _ in range(5):
        lease, seen = runner._lease, asyncio.Event()

        async def leased(lease=lease, seen=seen):
            await lease()
            seen.set()

        runner._lease = leased
        runner._wake.set()
        await seen.wait()
        runner._lease = lease


async def sent(house, peer) -> None:
    def woken():
        house.clock.steady += 1
        house.clock.wall += 1
        house.app._runner._wake.set()
        return peer.letters

    await house.until(woken)


def run_with_clock(tmp_path, story) -> None:
    async def test():
        clock = Clock()
        says = {"END": ["451 4.2.0 busy", "250 2.0.0 ok"]}
        async with Peer(says=says) as peer, House(tmp_path, to(peer), first_gap_seconds=600) as house:
            object.__setattr__(house.app.env, "clock", clock)
            house.clock = clock
            await deferred(house, peer)
            assert not peer.letters
            await story(clock, house, peer)

    asyncio.run(asyncio.wait_for(test(), 60))


def test_two_days_back_while_it_runs(tmp_path):
    async def story(clock, house, peer):
        clock.wall -= 2 * DAY
        await looked(house)
        assert not peer.letters  # it is not due yet, by any clock
        clock.go_on(800)
        await sent(house, peer)

    run_with_clock(tmp_path, story)


def test_two_days_back_while_nothing_ran(tmp_path):
    async def story(clock, house, peer):
        await house.app._runner.close()
        clock.wall -= 2 * DAY
        clock.steady = 1.0
        house.run()
        await sent(house, peer)

    run_with_clock(tmp_path, story)


def test_a_minute_ahead_sends_nothing_twice(tmp_path):
    async def story(clock, house, peer):
        epochs = await house.store.database.read(queue.lanes)
        clock.wall += 3600
        await sent(house, peer)
        await looked(house)
        assert len(peer.letters) == 1
        after = await house.store.database.read(queue.lanes)
        assert [one.epoch for one in after.values()] == [one.epoch for one in epochs.values()]

    run_with_clock(tmp_path, story)


def test_a_clock_that_jumps_ahead_makes_no_letter_old():
    schedule = Schedule()
    for attempts in range(1, ATTEMPTS_MIN):
        again = schedule.next_attempt(0, attempts, 30 * DAY, 0.5)
        assert again is not None and 30 * DAY < again <= 30 * DAY + LONGEST_GAP
    assert schedule.next_attempt(0, ATTEMPTS_MIN, 30 * DAY, 0.5) is None
    assert Env().clock.monotonic() > 0

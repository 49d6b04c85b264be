"""Jobs whose content kills, hangs, grows or lies; who asks is told, and the next job is answered. Its world: a machine whose kernel
has Landlock and seccomp; limits are of seconds, and nothing here measures them: only what kind of failure is told."""

import asyncio
import sys
from pathlib import Path

import pytest

from fubako.scan import frames, jobs
from fubako.scan.jobs import Failure, JobFailed
from fubako.scan.limits import ScanLimits
from fubako.scan.nursery import Nursery
from fubako.scan.pool import Pool
from fubako.scan.turns import Asker, Turns
from fubako.telemetry import Telemetry

GOOD = b"Subject: Gr\xc3\xbc\xc3\x9fe\r\nContent-Type: text/plain; charset=iso-2022-jp\r\n\r\n\x1b$B%F%9%H\x1b(B\r\n"
NOBODY = Asker()


def planted():
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        return Nursery.start("planted")
    finally:
        sys.path.pop(0)


def message(fault):
    return b"Subject: x\r\n\r\nplanted: " + fault + b"\r\n"


class Told(Telemetry):
    def __init__(self):
        super().__init__(quiet=True)
        self.events = []

    def event(self, name, trace_id="", **facts):
        self.events.append((name, facts))


@pytest.fixture
def run():
    """Runs a test with a pool of planted workers."""

    def runner(test, **limits):
        async def whole():
            given = {"cpu_seconds": 1.0, "deadline_seconds": 20.0, "memory_octets": 400 << 20, **limits}
            pool = Pool(ScanLimits(**given), Told(), start=planted)
            try:
                return await test(pool)
            finally:
                pool.close()

        return asyncio.run(asyncio.wait_for(whole(), 100))

    return runner


def alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().split()[2] != "Z"
    except OSError:
        return False


async def fails(pool, fault):
    with pytest.raises(JobFailed) as failed:
        await pool.index(message(fault), 14, NOBODY)
    return failed.value.kind


@pytest.mark.parametrize(("fault", "kind", "limits"), [
    (b"die", Failure.DIED, {}),
    (b"loop", Failure.DEADLINE, {}),  # the kernel ends it after its processor time
    (b"sleep", Failure.DEADLINE, {"deadline_seconds": 0.5}),  # no processor time at all
    (b"grow", Failure.MEMORY, {}),
    (b"raise", Failure.REFUSED, {}),
    (b"lie", Failure.REFUSED, {}),
])  # fmt: skip
def test_a_job_that_goes_wrong_fails_alone(run, fault, kind, limits):
    async def test(pool):
        assert await fails(pool, fault) is kind
        found = await pool.index(GOOD, len(GOOD) - 9, NOBODY)
        assert "grüsse" in found.header and "テス" in found.body
        assert kind in (Failure.REFUSED, Failure.MEMORY) or "scan.worker_ended" in dict(pool.telemetry.events)

    run(test, **limits)


def test_the_loop_of_who_asks_turns_on(run):
    async def test(pool):
        turns = 0
        asked = asyncio.ensure_future(pool.index(message(b"loop"), 14, NOBODY))
        while not asked.done():
            turns += 1
            await asyncio.sleep(0.001)
        assert isinstance(asked.exception(), JobFailed)
        return turns

    assert run(test) > 100


def test_a_worker_reaches_nothing_and_knows_nothing(run, monkeypatch):
    monkeypatch.setenv("FUBAKO_PASSWORD", "secret")

    async def test(pool):
        found = await pool.index(message(b"reach"), 14, NOBODY)
        assert found.header.split() == ["PermissionError"] * 6
        assert "FUBAKO_PASSWORD" not in found.body
        facts = dict(pool.telemetry.events)["sandbox.applied"]
        assert facts["part"] == "scan" and "system calls" in facts["held"]

    run(test)


def test_a_nursery_that_has_ended_is_started_anew(run):
    async def test(pool):
        await pool.index(GOOD, 10, NOBODY)
        assert await fails(pool, b"die") is Failure.DIED
        pool._nursery.close()
        assert (await pool.index(GOOD, 10, NOBODY)).body

    run(test)


def test_where_no_worker_can_be_started_who_asks_is_told_at_once():
    def start():
        raise OSError("no processes left")

    async def test():
        pool = Pool(ScanLimits(), Told(), start=start)
        for _ in range(3):
            with pytest.raises(JobFailed) as failed:
                await pool.index(GOOD, 10, NOBODY)
            assert failed.value.kind is Failure.UNAVAILABLE and not failed.value.of_content
        assert [name for name, _ in pool.telemetry.events] == ["scan.unavailable"]  # tried once, then rested

    asyncio.run(test())


def test_a_job_that_nobody_waits_for_any_more_gives_its_place_back(run):
    async def test(pool):
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await pool.index(message(b"sleep"), 14, NOBODY)
        assert (await pool.index(GOOD, 10, NOBODY)).body

    run(test, processes=1)


def test_a_large_message_and_its_worker(run):
    async def test(pool):
        large = GOOD + b"word " * 400_000
        assert (await pool.index(large, 10, NOBODY)).body.endswith("word ")
        assert not pool._idle  # its memory has gone back to the machine

    run(test, retire_octets=1_000_000)


def test_background_work_leaves_a_place_free_and_accounts_take_turns():
    async def test():
        turns, order = Turns(ScanLimits(processes=2)), []

        async def job(name, asker):
            await turns.take(asker)
            order.append(name)

        await turns.take(Asker(1, waiting=False))
        waiting = [asyncio.ensure_future(job(f"b{n}", Asker(n, waiting=False))) for n in (1, 1, 2)]
        await asyncio.sleep(0)
        assert not order  # the other place is kept
        await turns.take(Asker(9))
        waiting += [asyncio.ensure_future(job(f"a{n}", Asker(n))) for n in (1, 1, 1, 2)]
        await asyncio.sleep(0)
        for _ in range(8):
            turns.give_back(Asker(9))
            await asyncio.sleep(0)
        assert order == ["a1", "a2", "a1", "a1"]
        turns.give_back(Asker(1, waiting=False))
        await asyncio.sleep(0)
        assert order[4:] == ["b1"]
        for one in waiting:
            one.cancel()

    asyncio.run(test())


def test_lines_are_bounded():
    async def test():
        turns = Turns(ScanLimits(processes=1, waiting_max=3, waiting_per_account=2))
        await turns.take(NOBODY)
        waiting = [asyncio.ensure_future(turns.take(Asker(account))) for account in (1, 1, 1, 2, 3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [one.done() for one in waiting] == [False, False, True, False, True]
        for one in waiting:
            one.cancel()
        assert {type(e) for e in await asyncio.gather(*waiting, return_exceptions=True)} == {
            JobFailed,
            asyncio.CancelledError,
        }
        assert turns._waiting == 0

    asyncio.run(test())


def test_who_waits_too_long_is_told():
    async def test():
        turns = Turns(ScanLimits(processes=1, wait_seconds=0.01))
        await turns.take(NOBODY)
        with pytest.raises(JobFailed) as failed:
            await turns.take(NOBODY)
        assert failed.value.kind is Failure.BUSY

    asyncio.run(test())


@pytest.mark.parametrize("octets", [
    b"\xff" * 12, (1 << 31).to_bytes(4, "little") + bytes(8), bytes(4) + (1).to_bytes(8, "little"),
    (3).to_bytes(4, "little") + bytes(8) + b"\xc1\xc1\xc1",
])  # fmt: skip
def test_a_worker_that_was_taken_over_is_not_listened_to(octets):
    """Its answer is judged as a stranger's octets are: nothing is read beyond the limits, nothing but an answer is understood."""
    import socket

    async def test():
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.sendall(octets)
            with pytest.raises(Exception) as raised:
                jobs.answer(await frames.answered(ours))
            assert type(raised.value).__name__ in ("FrameError", "DecodeError", "ValidationError")

    asyncio.run(test())


def test_workers_end_with_who_asked():
    """A serving process that is killed leaves nobody behind: the door and the channels end, and so do nursery and workers."""
    program = (
        "import asyncio, os\nfrom fubako.scan.pool import Pool\nfrom fubako.scan.turns import Asker\n"
        "async def main():\n pool = Pool()\n await pool.index(b'Subject: x', 1, Asker())\n"
        " print(pool._idle[0].pid, flush=True)\n os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())"
    )

    async def test():
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
        pid = int(await process.stdout.readline())
        await process.wait()
        while alive(pid):
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(test(), 60))

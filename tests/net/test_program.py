"""A program that is given something: read, read in part, not read at all, or not in time."""

import asyncio
import sys

import pytest

from fubako.net.program import talk

try:
    import uvloop
except ImportError:
    uvloop = None


def run(main):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop else None) as runner:
        return runner.run(main)


@pytest.mark.parametrize("given", [b"", b"hello\n", bytes(range(256)) * 8192])
def test_it_reads_what_it_is_given(given):
    assert run(talk(["cat"], given, 20)) == (0, given, b"")


@pytest.mark.parametrize("given", [b"", b"x", b"x" * 1_000_000])
def test_it_may_end_without_reading(given):
    async def often():
        programs = (
            ["true"],
            ["false"],
            ["head", "-c", "1"],
            ["sh", "-c", "exec <&-; echo out; echo wrong >&2; exit 3"],
        )
        for _ in range(10):
            said = await asyncio.gather(*(talk(one, given, 20) for one in programs))
            assert [code for code, _, _ in said] == [0, 1, 0, 3]
            assert said[2][1] == given[:1] and said[3][1:] == (b"out\n", b"wrong\n")

    run(often())


def test_it_does_not_run_on(tmp_path):
    mark = tmp_path / "mark"
    code = f"import time, pathlib; time.sleep(1.0); pathlib.Path({str(mark)!r}).touch()"

    async def late():
        with pytest.raises(TimeoutError):
            await talk([sys.executable, "-c", code], b"x", 0.3)
        await asyncio.sleep(1.2)

    run(late())
    assert not mark.exists()

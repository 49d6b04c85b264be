"""How the work of a function grows with its input: `check` raises Growth where it is more than linear.

Three measures, none of them a time limit: the interpreter's steps (opcodes, the same in every run) and the peak of memory at n,
2n and 4n, which must not grow by more than FACTOR a doubling; and, for work inside C, which steps do not see, the processor
time at a size where it can be measured, where four times the input may take at most TIMES the time.
"""

import gc
import sys
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from types import FrameType
from typing import Any

FACTOR = 2.3
TIMES = 8.0
STEPS_FLOOR = 3000  # what a call costs whatever its input
MEMORY_FLOOR = 256 * 1024  # small tuples that Python keeps for the next call, up to 2,000 of a size, are not seen
SECONDS_MEASURABLE = 0.05
TRIES = 5

Run = Callable[[bytes], Any]
Shape = Callable[[int], bytes]


class Growth(AssertionError):
    """The work grows faster than its input."""


def steps(run: Run, octets: bytes) -> int:
    """Opcodes that one call takes."""
    count = 0

    def inside(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "opcode"
        return inside

    def entered(frame: FrameType, _event: str, _argument: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return inside

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        with suppress(Exception):
            run(octets)
    finally:
        sys.settrace(before)
    return count


def memory(run: Run, octets: bytes) -> int:
    """The most octets that one call holds."""
    tracemalloc.start()
    try:
        with suppress(Exception):
            run(octets)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def seconds(run: Run, octets: bytes) -> float:
    """Processor time of this thread for one call."""
    began = time.thread_time()
    with suppress(Exception):
        run(octets)
    return time.thread_time() - began


def slower(run: Run, few: bytes, many: bytes) -> tuple[float, float] | None:
    """The seconds that `few` and `many` took where many, four times as much, took more than TIMES as long; None: they did not.
    Each is the least of some calls: what disturbs one makes it longer, so that more are made only where the first ones accuse."""
    short = long = float("inf")
    gc.collect()
    gc.disable()  # its work is not the function's
    try:
        for _ in range(TRIES):
            long = min(long, seconds(run, many))
            if long < SECONDS_MEASURABLE:
                return None
            short = min(short, seconds(run, few), seconds(run, few))
            if long <= TIMES * short:
                return None
    finally:
        gc.enable()
    return short, long


def _grows(found: list[int]) -> bool:
    """Faster than the octets do."""
    return any(after > FACTOR * before for before, after in pairwise(found))


def check(run: Run, shape: Shape, small: int, large: int) -> None:
    """`small` and `large`: n for steps and memory, and for time. Raises Growth."""
    with suppress(Exception):
        run(shape(8))  # what is made at the first call is not counted
    inputs = [shape(small * times) for times in (1, 2, 4)]
    counted = [steps(run, one) + STEPS_FLOOR for one in inputs]
    held = [memory(run, one) + MEMORY_FLOOR for one in inputs]
    if _grows(held):  # what another thread, or a cache, held at that moment is not there again
        held = [min(before, memory(run, one) + MEMORY_FLOOR) for before, one in zip(held, inputs, strict=True)]
    for what, found in (("steps", counted), ("octets of memory", held)):
        if _grows(found):
            raise Growth(f"{what} at n, 2n, 4n: {found}")
    found = slower(run, shape(large), shape(4 * large))
    if found is not None:
        raise Growth(f"{found[0]:.4f} s at n, {found[1]:.4f} s at 4n")

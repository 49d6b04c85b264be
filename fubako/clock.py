"""Time and randomness come in as arguments: `Clock` and `Env`.

Nothing else in the package reads a clock or the system's generator, so that a test can hand in a clock that
jumps and bytes that repeat.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


class Clock(Protocol):
    """Seconds, as floats: `now` since the epoch (UTC), which may jump; `monotonic` since an arbitrary start that all processes of a
    machine share, which does not, and counts the time that the machine sleeps."""

    def now(self) -> float: ...
    def monotonic(self) -> float: ...


_SHARED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.clock_gettime(_SHARED)


_POOL_OCTETS = 4096


class RandomPool:
    """The operating system's randomness, taken in larger pieces: one system call serves hundreds of ids.

    Not for two processes: a child makes its own.
    """

    def __init__(self) -> None:
        self._pool = b""
        self._used = 0

    def __call__(self, octets: int) -> bytes:
        if self._used + octets > len(self._pool):
            self._pool, self._used = os.urandom(max(_POOL_OCTETS, octets)), 0
        taken = self._pool[self._used : self._used + octets]
        self._used += octets
        return taken


@dataclass(frozen=True, slots=True)
class Env:
    """What a part of the program takes from the world around it."""

    clock: Clock = field(default_factory=SystemClock)
    random: Callable[[int], bytes] = field(default_factory=RandomPool)

    def trace_id(self) -> str:
        """A new id for a connection or a message: 20 hexadecimal digits. The first eight are the second, so that ids sort by
        time and new ones lie side by side in an index."""
        return f"{int(self.clock.now()) & 0xFFFFFFFF:08x}{self.random(6).hex()}"

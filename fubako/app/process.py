"""What holds for a whole process: its loop, its allocator, its end."""

import asyncio
import contextlib
import ctypes
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

from fubako.front.heap import keep_freed

uvloop: ModuleType | None
try:
    import uvloop
except ImportError:  # an extra; everything works without it
    uvloop = None

SWITCH_SECONDS = 0.0005  # the threads that wait for the disk get the interpreter back sooner than by default


def tune() -> None:
    """Process-wide settings: freed memory is kept, threads switch sooner, and
    waking up does not push aside who is running: several arrivals are then served in one go (sched(7), SCHED_BATCH)."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    keep_freed()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(20_000, 20, 20)


def end_with_parent() -> None:
    """A worker gets SIGTERM when its supervisor is gone, however that ended."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


RESERVED_FILES = 256  # descriptors that connections leave to the store, the queue and lookups
_FILES_MAX = 1 << 20  # where the kernel sets no limit of its own


def raise_files() -> int:
    """Raise the limit of open descriptors as far as it goes; what it is then (RLIMIT_NOFILE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, _FILES_MAX)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _FILES_MAX if soft == resource.RLIM_INFINITY else soft
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def connections_that_fit(wanted: int, files: int) -> int:
    """How many connections a process can hold with `files` descriptors, the reserve left over; at least one."""
    return max(1, min(wanted, files - min(RESERVED_FILES, files // 2)))


def run(main: Coroutine[Any, Any, int], loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> int:
    """Run on uvloop where it is installed, or on a `loop` of another kind."""
    factory = loop or (uvloop.new_event_loop if uvloop is not None else None)
    with asyncio.Runner(loop_factory=factory) as runner:
        return int(runner.run(main))

"""What else a process has: capabilities, limits, descriptors, a parent."""

import contextlib
import ctypes
import os
import resource
import signal

from fubako.confine.description import ConfinementFailed, Limits
from fubako.confine.kernel import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    PR_SET_PDEATHSIG,
    prctl,
    syscall,
)

_CAPGET = {"x86_64": 125, "aarch64": 90}
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION = 0x20080522
_CAPABILITIES_MAX = 64


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("octets", ctypes.c_uint32 * 6),)  # effective, permitted, inheritable, twice: the lower half, the upper


def only_thread() -> bool:
    """Whether no other thread runs, which would keep its rights."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:  # no /proc: nobody can tell
        return True


def close_others(keep: frozenset[int]) -> None:
    """Close every descriptor but these."""
    last = -1
    for number in sorted(keep):
        if number > last + 1:  # Python 3.11 takes an empty range that ends at 0 for all
            os.closerange(last + 1, number)
        last = number
    os.closerange(last + 1, _files_max())


def _files_max() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1 << 20 if hard == resource.RLIM_INFINITY else max(hard, 1 << 16)


def end_with(parent: int, number: signal.Signals) -> None:
    """Get a signal when the parent is gone. It may be gone already: then this process ends now."""
    prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)
        raise ConfinementFailed("the parent has ended")


def drop_capabilities(machine: str) -> list[str]:
    """All, also those that a later program could get back. Returns what could not be dropped, in words."""
    missing: list[str] = []
    if not _has_any(machine):  # given up before
        return missing
    with contextlib.suppress(OSError):  # before Linux 4.3
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(_CAPABILITIES_MAX):
        try:
            if prctl(PR_CAPBSET_READ, number):
                prctl(PR_CAPBSET_DROP, number)
        except PermissionError:  # an ordinary user: no_new_privs keeps the bounding set from mattering
            break
        except OSError:
            break  # the last capability was the one before
    try:
        syscall(_CAPSET[machine], ctypes.byref(_Header(_CAPABILITY_VERSION, 0)), ctypes.byref(_Sets()))
    except OSError as error:
        missing.append(f"capabilities ({error.strerror})")
    return missing


def _has_any(machine: str) -> bool:
    sets = _Sets()
    syscall(_CAPGET[machine], ctypes.byref(_Header(_CAPABILITY_VERSION, 0)), ctypes.byref(sets))
    return any(sets.octets)


def limit(given: Limits) -> None:
    """Hard and soft alike; never above what they are. Raises OSError, ValueError."""
    for which, wanted in (
        (resource.RLIMIT_AS, given.memory_octets),
        (resource.RLIMIT_CPU, given.cpu_seconds),
        (resource.RLIMIT_FSIZE, given.file_octets),
        (resource.RLIMIT_NOFILE, given.files),
        (resource.RLIMIT_NPROC, given.processes),
    ):
        if wanted:
            _lower(which, wanted)
    if given.core_octets is not None:
        _lower(resource.RLIMIT_CORE, given.core_octets)


def _lower(which: int, wanted: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(which, (value, value))

"""The kernel's calls that Python does not offer, by ctypes: each raises OSError as `os` does."""

import ctypes
import os
import platform
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

PR_SET_PDEATHSIG, PR_GET_DUMPABLE, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_READ, PR_CAPBSET_DROP = (
    1,
    3,
    4,
    22,
    23,
    24,
)
PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 39, 47, 4

MACHINE = platform.machine()
KNOWN_MACHINES = ("x86_64", "aarch64")  # little-endian, 64 bits: what the structures and filters here are written for


def syscall(number: int, *arguments: Any) -> int:
    """Numbers go as 64 bits, or the upper half of a register would be chance."""
    passed = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *passed))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def prctl(option: int, *arguments: int) -> int:
    padded = [ctypes.c_ulong(one) for one in (*arguments, 0, 0, 0, 0)[:4]]
    result = int(_libc.prctl(ctypes.c_int(option), *padded))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def known_machine() -> bool:
    return MACHINE in KNOWN_MACHINES and ctypes.sizeof(ctypes.c_void_p) == 8

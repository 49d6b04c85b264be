"""Landlock (landlock(7)): beneath which paths a process may do what, which TCP ports it may use, whom it may signal.

Its interface has versions; `apply` asks the kernel for the one it has and says what a newer one would hold. Holds the calling
thread only, and what comes from it: it is called before any other thread is made.
"""

import contextlib
import ctypes
import errno
import os
import stat
from pathlib import Path

from fubako.confine.description import Confinement, Network
from fubako.confine.kernel import syscall

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same numbers on every architecture
_VERSION_FLAG, _PATH_BENEATH, _NET_PORT = 1, 1, 2

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REFER, TRUNCATE, IOCTL_DEV = (
    1 << 0,
    1 << 1,
    1 << 2,
    1 << 3,
    1 << 13,
    1 << 14,
    1 << 15,
)
_MAKE_AND_REMOVE = ((1 << 13) - 1) & ~(EXECUTE | WRITE_FILE | READ_FILE | READ_DIR)  # the rights of the first version
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_BIND_TCP, _CONNECT_TCP = 1, 2
_ABSTRACT_SOCKETS, _SIGNALS = 1, 2


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _Port(ctypes.Structure):
    _fields_ = (("access", ctypes.c_uint64), ("port", ctypes.c_uint64))


def version() -> int:
    """Of the kernel's interface; 0 where it has none, or it is switched off."""
    try:
        return syscall(_CREATE, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def known_rights(abi: int) -> int:
    """All rights on files that a version can hold."""
    rights = (1 << 13) - 1
    for since, right in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        if abi >= since:
            rights |= right
    return rights


def lacking(abi: int, wanted: Confinement) -> list[str]:
    """What this version does not hold, in words."""
    if abi == 0:
        return ["files (no Landlock)"]
    missing = []
    if abi < 3:
        missing.append("truncating files (Landlock 3)")
    if abi < 4 and wanted.network is Network.ANY and (wanted.bind_ports or wanted.connect_ports) is not None:
        missing.append("TCP ports (Landlock 4)")
    if abi < 5:
        missing.append("ioctl on devices (Landlock 5)")
    if abi < 6 and wanted.network is not Network.NONE:
        missing.append("abstract Unix sockets (Landlock 6)")
    return missing


def apply(abi: int, wanted: Confinement) -> None:
    """`abi` >= 1. Raises OSError."""
    fs = known_rights(abi)
    net, scoped = 0, 0
    if abi >= 4:
        net |= _BIND_TCP if wanted.bind_ports is not None or wanted.network is not Network.ANY else 0
        net |= _CONNECT_TCP if wanted.connect_ports is not None or wanted.network is not Network.ANY else 0
    if abi >= 6:
        scoped = _ABSTRACT_SOCKETS | (0 if wanted.signals else _SIGNALS)
    attributes = _Ruleset(fs, net, scoped)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = syscall(_CREATE, ctypes.byref(attributes), size, 0)
    try:
        _add_paths(ruleset, fs, wanted)
        _add_ports(ruleset, net, wanted)
        syscall(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _add_paths(ruleset: int, handled: int, wanted: Confinement) -> None:
    reading, running = READ_FILE | READ_DIR, READ_FILE | READ_DIR | EXECUTE
    writing = reading | WRITE_FILE | TRUNCATE | REFER | _MAKE_AND_REMOVE & ~_DEVICES
    for paths, rights in ((wanted.read, reading), (wanted.write, writing), (wanted.run, running)):
        for path in paths:
            _beneath(ruleset, path, rights & handled)


_DEVICES = 1 << 6 | 1 << 11  # MAKE_CHAR, MAKE_BLOCK: nobody's need


def _beneath(ruleset: int, path: Path, rights: int) -> None:
    """A path that is not there, or not in our reach, can give no right: it is left out, as nothing can be reached beneath it."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            return
        raise
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _OF_FILES
        rule = _Beneath(rights, fd)
        syscall(_ADD, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


def _add_ports(ruleset: int, handled: int, wanted: Confinement) -> None:
    if wanted.network is not Network.ANY:
        return
    for ports, right in ((wanted.bind_ports, _BIND_TCP), (wanted.connect_ports, _CONNECT_TCP)):
        for port in ports or () if handled & right else ():
            rule = _Port(right, port)
            syscall(_ADD, ruleset, _NET_PORT, ctypes.byref(rule), 0)

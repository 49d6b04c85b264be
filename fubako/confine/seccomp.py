"""A seccomp filter (seccomp(2)): which system calls are left, as a BPF program made here.

Invariant: another architecture than the one the program was made for, and the x32 interface beside x86_64, end the process; a call
that is denied fails with its errno. Arguments are judged by their lower 32 bits, where the kernel itself reads no more of them.
"""

import ctypes
import errno
import os
import socket
import struct
from dataclasses import dataclass

from fubako.confine import groups
from fubako.confine.calls import AARCH64, X86_64
from fubako.confine.description import Calls, Confinement, Network
from fubako.confine.kernel import MACHINE, PR_SET_DUMPABLE, PR_SET_SECCOMP, prctl, syscall

_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_MODE_FILTER, _SET_FILTER, _ALL_THREADS = 2, 1, 1
_X32 = 0x40000000
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_TABLES = {"x86_64": X86_64, "aarch64": AARCH64}
_SECCOMP = {"x86_64": 317, "aarch64": 277}

_NEW_NAMESPACES = 0x7E020080  # CLONE_NEW*: time, mount, cgroup, uts, ipc, user, pid, net
_THREAD = 0x00010000  # CLONE_THREAD
_EXECUTABLE, _EMPTY_PATH = 0x4, 0x1000  # PROT_EXEC, AT_EMPTY_PATH
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # would type for the owner of the terminal
_FAMILIES = (
    socket.AF_UNIX,
    socket.AF_INET,
    socket.AF_INET6,
    socket.AF_NETLINK,
)  # libc asks netlink for addresses of its own
_OPENS_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True, slots=True)
class _Rule:
    """Denies a call, always (`argument` None) or by its masked argument, counted from 0."""

    call: str
    errno: int = errno.EPERM
    argument: int | None = None
    mask: int = 0xFFFFFFFF
    value: int | None = None  # denied when the masked argument is this …
    unless: tuple[int, ...] = ()  # … or unless it is one of these


def rules(wanted: Confinement) -> list[_Rule]:
    """What is denied before anything else is judged; the first that applies decides."""
    denied = [_Rule(one) for one in (*groups.MACHINE, *groups.OTHERS)]
    denied += [
        _Rule("clone3", errno.ENOSYS)
    ]  # its flags lie in memory, where no filter can look: libc falls back to clone
    denied += [_Rule("clone", argument=0, mask=bit, value=bit) for bit in _bits(_NEW_NAMESPACES)]
    denied += [_Rule("ioctl", argument=1, value=_TIOCSTI), _Rule("ioctl", argument=1, value=_TIOCLINUX)]
    denied += [_Rule("prctl", argument=0, value=PR_SET_DUMPABLE), _Rule("prlimit64", argument=0, unless=(0,))]
    if not wanted.privileges:
        denied += [_Rule(one) for one in groups.RIGHTS]
    if not wanted.spawn:
        denied += [_Rule(one) for one in groups.SPAWN]
        denied += [_Rule("clone", argument=0, mask=_THREAD, value=0)]
    if not wanted.run:
        denied += [_Rule(one, errno.EACCES) for one in groups.RUN]
    if not wanted.signals:
        denied += [_Rule(one) for one in groups.SIGNALS]
        denied += [_Rule(one, argument=0, unless=(os.getpid(),)) for one in ("kill", "tgkill")]
    if not wanted.modes:
        denied += [_Rule(one) for one in groups.MODES]
    if not wanted.new_code:
        denied += [
            _Rule(one, argument=2, mask=_EXECUTABLE, value=_EXECUTABLE) for one in ("mmap", "mprotect", "pkey_mprotect")
        ]
        denied += [_Rule("memfd_create")]
    return denied + _network_rules(wanted) + _path_rules(wanted)


def _bits(mask: int) -> list[int]:
    return [1 << place for place in range(32) if mask >> place & 1]


def _network_rules(wanted: Confinement) -> list[_Rule]:
    if wanted.network is Network.ANY:  # in families that mail never uses holes are found every year
        return [_Rule("socket", errno.EAFNOSUPPORT, 0, unless=_FAMILIES)]
    if wanted.network is Network.UNIX:
        return [
            _Rule("socket", errno.EACCES, 0, unless=(socket.AF_UNIX,)),
            _Rule("socketpair", errno.EACCES, 0, unless=(socket.AF_UNIX,)),
        ]
    return [_Rule(one, errno.EACCES) for one in ("socket", "connect", "bind", "listen")]


def _path_rules(wanted: Confinement) -> list[_Rule]:
    """Landlock holds these too; so they hold where a kernel has none."""
    if wanted.write:
        return []
    denied = [_Rule(one, errno.EACCES) for one in groups.CHANGES]
    if not wanted.read and not wanted.run:
        denied += [_Rule(one, errno.EACCES) for one in groups.PATHS]
        denied += [_Rule("newfstatat", errno.EACCES, 3, mask=_EMPTY_PATH, value=0)]
    else:
        denied += [_Rule("open", errno.EACCES, 1, mask=bit, value=bit) for bit in _bits(_OPENS_TO_WRITE)]
        denied += [_Rule("openat", errno.EACCES, 2, mask=bit, value=bit) for bit in _bits(_OPENS_TO_WRITE)]
        denied += [_Rule("openat2", errno.ENOSYS)]
    return denied


def program(wanted: Confinement, machine: str = MACHINE) -> bytes:
    """The filter as an array of `struct sock_filter`."""
    table = _TABLES[machine]
    code = [_step(_LOAD, _ARCHITECTURE), _step(_EQUAL, _AUDIT[machine], 1, 0), _step(_RETURN, _KILL_PROCESS)]
    code += [_step(_LOAD, _NUMBER)]
    if machine == "x86_64":
        code += [_step(_AT_LEAST, _X32, 0, 1), _step(_RETURN, _KILL_PROCESS)]
    for rule in rules(wanted):
        if rule.call in table:
            code += _denial(rule, table[rule.call])
    if wanted.calls is Calls.ORDINARY:
        return b"".join([*code, _step(_RETURN, _ALLOW)])
    for name in (*groups.COMPUTING, "mmap", "mprotect", "newfstatat", "kill", "tgkill"):  # judged above
        if name in table:
            code += [_step(_EQUAL, table[name], 0, 1), _step(_RETURN, _ALLOW)]
    return b"".join([*code, _step(_RETURN, _ERRNO | errno.EPERM)])


def _denial(rule: _Rule, number: int) -> list[bytes]:
    denied = _step(_RETURN, _ERRNO | rule.errno)
    if rule.argument is None:
        return [_step(_EQUAL, number, 0, 1), denied]
    if rule.value is not None:
        judged = [_step(_EQUAL, rule.value, 0, 1)]
    else:  # each that is equal jumps over those behind it, and over the denial
        judged = [_step(_EQUAL, one, len(rule.unless) - place) for place, one in enumerate(rule.unless)]
    inner = [
        _step(_LOAD, _ARGUMENTS + 8 * rule.argument),
        _step(_AND, rule.mask),
        *judged,
        denied,
        _step(_LOAD, _NUMBER),
    ]
    return [_step(_EQUAL, number, 0, len(inner)), *inner]


def _step(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, operand)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def apply(wanted: Confinement) -> None:
    """For all threads of the process, for good. `no_new_privs` has to be set. Raises OSError."""
    octets = program(wanted)
    given = _Program(len(octets) // 8, octets)
    try:
        if syscall(_SECCOMP[MACHINE], _SET_FILTER, _ALL_THREADS, ctypes.byref(given)):
            raise OSError(errno.ESRCH, "a thread took no filter")
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EINVAL):
            raise
        prctl(PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(given))

"""`launch_unit.py UNIT STATE COMMAND…`: run a command as a unit would have it, as far as that is possible without systemd.

Held: the system calls of SystemCallFilter (libseccomp), CapabilityBoundingSet, NoNewPrivileges, UMask, MemoryDenyWriteExecute
(PR_SET_MDWE), and a root that is read-only but for the folder STATE and a /var/tmp of its own. Not held: the user of the unit
(it stays root, without root's capabilities), PrivateDevices, ProtectProc, RestrictAddressFamilies, RestrictNamespaces and what
else looks at the arguments of calls.
"""

import ctypes
import os
import subprocess
import sys

_NEW_MOUNTS, _BIND, _REMOUNT, _READ_ONLY, _RECURSIVE, _PRIVATE = 0x20000, 4096, 32, 1, 16384, 1 << 18
_CAPBSET_DROP, _NO_NEW_PRIVS = 24, 38
_CAPABILITIES = {"CAP_NET_BIND_SERVICE": 10}
_MDWE, _NO_EXEC_GAIN = 65, 1  # Linux 6.3
_ALLOW, _EPERM = 0x7FFF0000, 0x00050000 | 1

TEMPORARY = "/var/tmp"

libc = ctypes.CDLL(None, use_errno=True)


def done(code: int) -> None:
    if code:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def settings(unit: str) -> list[tuple[str, str]]:
    with open(unit, encoding="utf-8") as file:
        return [tuple(line.strip().split("=", 1)) for line in file if "=" in line and not line.startswith("#")]


def expanded(names: str) -> set[str]:
    found: set[str] = set()
    for name in names.split():
        if name.startswith("@"):
            shown = subprocess.run(
                ["systemd-analyze", "--no-pager", "syscall-filter", name], capture_output=True, text=True, check=True
            )
            words = [line.strip() for line in shown.stdout.splitlines()[1:]]
            found |= expanded(" ".join(word for word in words if word and not word.startswith("#")))
        else:
            found.add(name)
    return found


def calls(given: list[tuple[str, str]]) -> set[str]:
    allowed: set[str] = expanded("@default")
    for name, value in given:
        if name == "SystemCallFilter":
            allowed = allowed - expanded(value[1:]) if value.startswith("~") else allowed | expanded(value)
    return allowed | {"execve"}


def read_only_but(state: str) -> None:
    done(libc.unshare(_NEW_MOUNTS))
    done(libc.mount(None, b"/", None, _RECURSIVE | _PRIVATE, None))
    done(libc.mount(state.encode(), state.encode(), None, _BIND, None))
    done(
        libc.mount(b"tmpfs", TEMPORARY.encode(), b"tmpfs", 0, None)
    )  # PrivateTmp, where the test's own folders are not
    done(libc.mount(None, b"/", None, _BIND | _REMOUNT | _READ_ONLY, None))


def filter_calls(allowed: set[str]) -> None:
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(_EPERM)))
    for name in sorted(allowed):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0 and seccomp.seccomp_rule_add(context, ctypes.c_uint32(_ALLOW), number, 0):
            raise OSError(f"no rule for {name}")
    if seccomp.seccomp_load(context):
        raise OSError("the filter was not loaded")


def main() -> None:
    unit, state, *command = sys.argv[1:]
    given = settings(unit)
    values = dict(given)
    kept = {_CAPABILITIES[name] for name in values["CapabilityBoundingSet"].split()}
    allowed = calls(given)
    os.umask(int(values["UMask"], 8))
    if values["ProtectSystem"] == "strict":
        read_only_but(state)
    for capability in set(range(41)) - kept:
        done(libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0))
    if values["NoNewPrivileges"] == "yes":
        done(libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
    if values.get("MemoryDenyWriteExecute") == "yes":
        done(libc.prctl(_MDWE, _NO_EXEC_GAIN, 0, 0, 0))
    filter_calls(allowed)
    os.environ["TMPDIR"] = TEMPORARY
    os.execv(command[0], command)


if __name__ == "__main__":
    main()

"""What a confined process tries fails, and what it keeps works. Its world: the kernel that the tests run on; what an older one
cannot hold is judged by the tables alone, and other machines' filters by an interpreter. Run as root, so that no
file mode stands in the way and only the confinement can."""

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from fubako.confine import Calls, Confinement, ConfinementFailed, Network, landlock, seccomp

ATTEMPTS = Path(__file__).with_name("attempts.py")
DENIED = {"PermissionError", "FileNotFoundError"}
# what nobody may do, whatever is kept
NEVER = [
    "ptrace", "process_vm_readv", "pidfd_getfd", "mount", "unshare", "new namespace", "setns", "bpf", "io_uring", "userfaultfd",
    "perf", "keyctl", "setuid", "module", "open_by_handle_at", "dumpable", "chroot",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for name in ("read", "write"):
        (tmp_path / name).mkdir()
    (tmp_path / "read/file").write_text("kept")
    (tmp_path / "write/kept").write_text("kept")
    return tmp_path


def attempts(folder, wanted, before="pass"):
    """What became of each attempt of a process that was confined so."""
    program = f"import runpy, sys; {before}; runpy.run_path({str(ATTEMPTS)!r})"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        try:
            ended = subprocess.run(
                [sys.executable, "-c", program, wanted, str(other.pid), str(folder)],
                capture_output=True,
                text=True,
                timeout=60,
            )
        finally:
            other.kill()
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def failed(tried):
    return {name for name, what in tried["attempts"].items() if what != "done"}


def test_without_confinement_the_attempts_can_succeed(folder):
    """Else the tests below would prove nothing."""
    tried = attempts(
        folder, "Confinement()", "import fubako.confine as c; c.confine = lambda wanted: c.Report((), (), 0)"
    )
    for name in ("read", "list", "write", "rename out", "chmod", "exec", "fork", "tcp", "unix", "kill other", "memfd", "setuid",
                 "executable memory", "descriptor"):  # fmt: skip
        assert tried["attempts"][name] == "done", name


def test_a_process_that_only_computes_reaches_nothing(folder):
    tried = attempts(folder, "Confinement(calls=Calls.COMPUTING, keep=frozenset({0, 1, 2}))")
    allowed = {"kill self", "read handed", "compute", "memory", "executable later"}
    assert failed(tried) == set(tried["attempts"]) - allowed
    assert tried["attempts"]["descriptor"] == "BadDescriptor"
    assert (folder / "read/file").read_text() == "kept"
    assert not (folder / "new").exists()


def test_paths_that_are_kept_and_all_others(folder):
    tried = attempts(
        folder, f"Confinement(read=(Path({str(folder / 'read')!r}),), write=(Path({str(folder / 'write')!r}),))"
    )
    done = set(tried["attempts"]) - failed(tried)
    assert {"read folder", "write folder", "thread", "socketpair", "compute"} <= done
    assert not {"read", "list", "write", "write read folder", "rename out", "unlink", "truncate", "chmod", "link", "exec", "fork",
                "tcp", "unix", "udp", "kill other", "executable memory", *NEVER} & done  # fmt: skip


def test_what_is_kept_works(folder):
    wanted = (
        "Confinement(read=(Path('/'),), run=(Path('/'),), network=Network.ANY, bind_ports=(2525,), spawn=True, signals=True,"
        " new_code=True)"
    )
    tried = attempts(folder, wanted)
    done = set(tried["attempts"]) - failed(tried)
    assert {"read", "list", "exec", "fork", "tcp port", "kill other", "executable memory", "unix", "udp"} <= done
    assert not {"tcp", "write", "chmod", "abstract", *NEVER} & done


def test_unix_sockets_alone(folder):
    tried = attempts(folder, "Confinement(network=Network.UNIX)")
    assert {"tcp", "tcp port", "udp", "netlink"} <= failed(tried)
    assert tried["attempts"]["unix"] == "done"


def test_memory_has_a_limit(folder):
    tried = attempts(folder, "Confinement(read=(Path('/'),), limits=Limits(memory_octets=512 << 20))")
    assert tried["attempts"]["memory"] == "MemoryError"
    assert tried["attempts"]["compute"] == "done"


def test_the_report_names_what_is_held(folder):
    report = attempts(folder, "Confinement()")["report"]
    assert report["landlock"] == landlock.version()
    assert "system calls" in report["held"] and "capabilities" in report["held"]


def test_a_kernel_without_landlock_is_told_and_the_filter_holds_alone(folder):
    """A process that keeps no path needs no Landlock for it."""
    tried = attempts(folder, "Confinement()", "import fubako.confine.landlock as l; l.version = lambda: 0")
    assert tried["report"]["missing"] == ["files (no Landlock)"]
    assert {"read", "list", "stat", "write", "truncate", "rename out"} <= failed(tried)


def test_a_kernel_without_seccomp_is_told_and_landlock_holds_alone(folder):
    fault = "(_ for _ in ()).throw(OSError(38, 'Function not implemented'))"
    before = f"import fubako.confine.seccomp as s; s.apply = lambda wanted: {fault}"
    tried = attempts(folder, "Confinement()", before)
    assert tried["report"]["missing"] == ["system calls (Function not implemented)"]
    assert {"read", "write", "truncate", "rename out", "tcp port"} <= failed(tried)


@pytest.mark.parametrize("abi", range(1, 8))
def test_each_version_of_landlock_is_asked_only_for_what_it_knows(abi):
    assert landlock.known_rights(abi).bit_length() == {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)
    told = " ".join(landlock.lacking(abi, Confinement(network=Network.ANY, connect_ports=(25,))))
    assert [("truncating" in told), ("TCP" in told), ("ioctl" in told), ("abstract" in told)] == [
        abi < n for n in (3, 4, 5, 6)
    ]


def test_an_older_landlock_takes_the_rules(folder):
    before = "import fubako.confine.landlock as l; l.version = lambda: 1"
    tried = attempts(
        folder, f"Confinement(read=(Path({str(folder / 'read')!r}),), write=(Path({str(folder / 'write')!r}),))", before
    )
    assert {"read", "write", "write read folder"} <= failed(tried)
    assert "abstract Unix sockets (Landlock 6)" not in tried["report"]["missing"]  # no socket can be made at all


def test_threads_that_run_would_keep_their_rights():
    program = (
        "import threading, fubako.confine as c; threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "try: c.confine(c.Confinement())\nexcept c.ConfinementFailed as e: print('refused')"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60).stdout
        == "refused\n"
    )


def test_who_has_lost_its_parent_ends():
    program = f"import fubako.confine as c; c.confine(c.Confinement(parent={os.getppid() + 1_000_000})); print('lives')"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == -signal.SIGKILL and not ended.stdout


@pytest.mark.parametrize("keeps", [{"read": (Path("/"),)}, {"spawn": True}, {"network": Network.UNIX}])
def test_what_only_computes_keeps_nothing_else(keeps):
    with pytest.raises(ConfinementFailed):
        Confinement(calls=Calls.COMPUTING, **keeps)


def run_filter(octets, number, *, architecture, arguments=()):
    """A BPF interpreter for the few instructions that are used."""
    where, value = 0, 0
    given = struct.pack("<II", number, architecture) + bytes(8) + b"".join(struct.pack("<Q", one) for one in arguments)
    given = given.ljust(64, b"\0")
    while True:
        code, yes, no, operand = struct.unpack_from("<HBBI", octets, 8 * where)
        where += 1
        match code:
            case 0x20:
                value = struct.unpack_from("<I", given, operand)[0]
            case 0x54:
                value &= operand
            case 0x15:
                where += yes if value == operand else no
            case 0x35:
                where += yes if value >= operand else no
            case 0x06:
                return operand


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize(
    "wanted", [Confinement(), Confinement(calls=Calls.COMPUTING), Confinement(spawn=True, network=Network.ANY)]
)
def test_the_filter_of_each_machine(machine, wanted):
    """Judged by an interpreter of its own, so that the other machine's filter is looked at too."""
    octets, table = seccomp.program(wanted, machine), seccomp._TABLES[machine]
    arch = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[machine]
    allow, kill = 0x7FFF0000, 0x80000000
    assert run_filter(octets, table["read"], architecture=arch) == allow
    assert run_filter(octets, table["read"], architecture=0x40000003) == kill  # i386's calls have other numbers
    if machine == "x86_64":
        assert run_filter(octets, 0x40000000 | table["read"], architecture=arch) == kill
    for name in ("ptrace", "bpf", "io_uring_setup", "mount", "execve", "openat", "setuid", "kill"):
        if name != "openat" or not wanted.read:
            assert run_filter(octets, table[name], architecture=arch, arguments=(2**32 - 2,)) >> 16 == 5, name
    assert run_filter(octets, table["clone3"], architecture=arch) == 0x00050000 | 38
    thread = run_filter(octets, table["clone"], architecture=arch, arguments=(0x00010000,))
    child = run_filter(octets, table["clone"], architecture=arch, arguments=(17,))
    assert (thread == allow) is (wanted.calls is Calls.ORDINARY)
    assert (child == allow) is wanted.spawn
    assert run_filter(octets, table["mmap"], architecture=arch, arguments=(0, 4096, 3)) == allow
    assert run_filter(octets, table["mmap"], architecture=arch, arguments=(0, 4096, 5)) >> 16 == 5
    inet = run_filter(octets, table["socket"], architecture=arch, arguments=(2,))
    assert (inet == allow) is (wanted.network is Network.ANY)
    assert run_filter(octets, table["newfstatat"], architecture=arch, arguments=(3, 0, 0, 0x1000)) == allow
    assert run_filter(octets, table["newfstatat"], architecture=arch, arguments=(3, 0, 0, 0)) >> 16 == 5
    unknown = run_filter(octets, 0x3FFFFFFF, architecture=arch)
    assert (unknown == allow) is (wanted.calls is Calls.ORDINARY)

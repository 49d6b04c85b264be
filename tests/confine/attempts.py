"""Run as a program: confines itself as told, then tries what it must not be able to do. Prints what became of each attempt."""

import ctypes
import json
import os
import socket
import sys
import threading
from pathlib import Path

from fubako.confine import Calls, Confinement, Limits, Network, confine
from fubako.confine.calls import AARCH64, X86_64
from fubako.confine.kernel import MACHINE, syscall

TABLE = X86_64 if MACHINE == "x86_64" else AARCH64
wanted = eval(sys.argv[1], {  # a test's own text
    "Confinement": Confinement, "Calls": Calls, "Limits": Limits, "Network": Network, "Path": Path, "os": os,
})  # fmt: skip
other, folder = int(sys.argv[2]), Path(sys.argv[3])


def call(name, *arguments):
    return lambda: syscall(TABLE[name], *arguments)


def execute():
    if os.fork() == 0:
        try:
            os.execv("/bin/true", ["true"])
        finally:
            os._exit(1)
    if os.wait()[1]:
        raise PermissionError


def thread():
    one = threading.Thread(target=lambda: None)
    one.start()
    one.join()


def pair():
    for one in socket.socketpair():
        one.close()


def tcp(port):
    with socket.socket() as one:
        one.bind(("127.0.0.1", port))


def abstract():
    with socket.socket(socket.AF_UNIX) as one:
        one.connect("\0fubako-test")


def executable():
    syscall(TABLE["mmap"], 0, 4096, 7, 0x22, -1, 0)


buffer = ctypes.create_string_buffer(4096)
ATTEMPTS = {
    "read": lambda: open("/etc/passwd").close(),
    "read folder": lambda: (folder / "read/file").read_text(),
    "list": lambda: os.listdir("/"),
    "stat": lambda: os.stat("/etc/passwd"),
    "write": lambda: (folder / "new").write_text("x"),
    "write read folder": lambda: (folder / "read/file").write_text("x"),
    "write folder": lambda: (folder / "write/new").write_text("x"),
    "rename out": lambda: os.rename(folder / "write/kept", folder / "moved"),
    "truncate": lambda: os.truncate(folder / "read/file", 0),
    "chmod": lambda: os.chmod(folder / "read/file", 0o777),
    "link": lambda: os.symlink("/etc/passwd", folder / "link"),
    "unlink": lambda: os.unlink(folder / "read/file"),
    "exec": execute,
    "fork": lambda: os._exit(0) if os.fork() == 0 else os.wait(),
    "thread": thread,
    "socketpair": pair,
    "unix": lambda: socket.socket(socket.AF_UNIX).close(),
    "abstract": abstract,
    "tcp": lambda: tcp(0),
    "tcp port": lambda: tcp(2525),
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "kill other": lambda: os.kill(other, 0),
    "kill self": lambda: os.kill(os.getpid(), 0),
    "ptrace": call("ptrace", 16, other, 0, 0),
    "process_vm_readv": call("process_vm_readv", other, ctypes.addressof(buffer), 0, ctypes.addressof(buffer), 0, 0),
    "pidfd_getfd": call("pidfd_getfd", 0, 0, 0),
    "mount": call("mount", b"none", b"/mnt", b"tmpfs", 0, None),
    "chroot": lambda: os.chroot("/"),
    "unshare": call("unshare", 0x04000000),
    "new namespace": call("clone", 0x10000000 | 0x00010000, 0, 0, 0, 0),
    "setns": call("setns", 0, 0),
    "bpf": call("bpf", 0, ctypes.addressof(buffer), 128),
    "io_uring": call("io_uring_setup", 1, ctypes.addressof(buffer)),
    "userfaultfd": call("userfaultfd", 0),
    "perf": call("perf_event_open", ctypes.addressof(buffer), 0, -1, -1, 0),
    "keyctl": call("keyctl", 0, -3, 1, 0, 0),
    "memfd": call("memfd_create", b"x", 0),
    "module": call("init_module", 0, 0, b""),
    "open_by_handle_at": call("open_by_handle_at", -100, ctypes.addressof(buffer), 0),
    "executable memory": executable,
    "executable later": lambda: ctypes.CFUNCTYPE(None),
    "dumpable": lambda: ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) and (_ for _ in ()).throw(PermissionError()),
    "read handed": lambda: os.read(handed, 1),
    "descriptor": lambda: os.fstat(stray),
    "compute": lambda: sorted(range(10**5)),
    "memory": lambda: bytearray(1 << 30),
    "setuid": lambda: os.setuid(12345),
}
handed, end = os.pipe()
os.write(end, b"x")
stray = os.open("/dev/null", os.O_RDONLY)
if wanted.keep is not None:
    wanted = Confinement(
        **{name: getattr(wanted, name) for name in wanted.__slots__} | {"keep": wanted.keep | {handed}}
    )
report = confine(wanted)
out = {}
for name, attempt in ATTEMPTS.items():
    try:
        attempt()
        out[name] = "done"
    except (OSError, MemoryError, AttributeError, RuntimeError) as error:
        out[name] = type(error).__name__
        if isinstance(error, OSError) and error.errno == 9:
            out[name] = "BadDescriptor"
print(json.dumps({"report": report.facts(), "attempts": out}))

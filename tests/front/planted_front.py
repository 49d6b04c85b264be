"""A nursery whose fronts have been taken over: a header `X-Planted: base64` in what a peer says runs code of the test's in the
process that reads it, and `299 JSON` tells the peer what became of each attempt. `free`: the same without confinement."""

import base64
import ctypes
import json
import os
import re
import signal
import socket
from pathlib import Path

from fubako.app import births as served
from fubako.confine import Report
from fubako.front import loop
from fubako.protocol.smtp_server import SmtpServer
from fubako.scan import births

PLANTED = re.compile(rb"X-Planted: ([A-Za-z0-9+/=]+)\r\n")
PTRACE_ATTACH, PTRACE_DETACH = 16, 17
honest = SmtpServer.receive


def connect(port):
    with socket.create_connection(("127.0.0.1", port), 5):
        pass


def trace(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(PTRACE_ATTACH, pid, 0, 0):
        raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(pid, 0)
    libc.ptrace(PTRACE_DETACH, pid, 0, 0)


def run(program):
    pid = os.fork()
    if not pid:
        os.execv(program, [program])
    if os.waitpid(pid, 0)[1]:
        raise PermissionError


def attempts(told):
    owner = told["owner"]
    yield from ((f"read {name}", lambda path=path: Path(path).read_bytes()) for name, path in told["files"].items())
    yield "list", lambda: os.listdir(told["folder"])
    yield "write", lambda: Path(told["folder"], "planted").write_bytes(b"x")
    yield "connect", lambda: connect(told["port"])
    yield "run", lambda: run(told["program"])
    yield "exec", lambda: os.execv("/nowhere/none", ["none"])
    yield "signal", lambda: os.kill(owner, 0)
    yield "stop", lambda: os.kill(owner, signal.SIGCONT)
    yield "trace", lambda: trace(owner)
    yield "memory", lambda: open(f"/proc/{owner}/mem", "rb").close()
    yield "environment", lambda: Path(f"/proc/{owner}/environ").read_bytes()


def receive(self, octets):
    honest(self, octets)
    planted = PLANTED.search(octets)
    if planted is None:
        return
    found = {}
    for name, attempt in attempts(json.loads(base64.b64decode(planted.group(1)))):
        try:
            attempt()
            found[name] = ""
        except Exception as error:
            found[name] = type(error).__name__
    self._output.append(b"299 " + json.dumps(found).encode() + b"\r\n")


SmtpServer.receive = receive


def main():
    births.main({served.TlsLimits: served.tls_process.serve}, new_code=True)


def free():
    loop.confine = births.confine = lambda _wanted: Report((), ("all of it",), 0)
    main()


if __name__ == "__main__":
    main()

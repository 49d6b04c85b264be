"""A real server for tests: the installed program, in a folder of its own, on ports of its own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

STANDARD = {"smtp": 25, "submissions": 465, "submission": 587, "pop3": 110, "pop3s": 995, "imap": 143, "imaps": 993,
            "ssh": 22}  # fmt: skip
FUBAKO = str(Path(sys.executable).parent / "fubako")


def without(reason: str) -> None:
    """A test that cannot run here: skipped loudly; under CI that is a failure."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


def free_offset() -> int:
    """An offset at which every standard port is free on both families."""
    side = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])  # tests that run side by side look in different places
    places = range(10_000, 31_000, 1000)
    start = (os.getppid() + side * 7) % len(places)
    for offset in (*places[start:], *places[:start]):
        probes = []
        try:
            for port in STANDARD.values():
                probe = socket.socket()
                probes.append(probe)
                probe.bind(("127.0.0.1", port + offset))
            return offset
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
    raise RuntimeError("no free ports")


@dataclass
class Server:
    """`fubako up` as a process."""

    root: Path
    offset: int = 0
    process: subprocess.Popen | None = None
    facts: dict = field(default_factory=dict)

    def start(self, *arguments: str) -> "Server":
        self.offset = self.offset or free_offset()
        self.process = subprocess.Popen(
            [FUBAKO, "up", str(self.root), "--offset", str(self.offset), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        end = time.monotonic() + 60
        lines = []
        while time.monotonic() < end:
            line = self.process.stdout.readline()
            lines.append(line)
            if line.startswith("Serving."):
                self.facts = json.loads((self.root / "quickstart.json").read_text())
                return self
            if not line and self.process.poll() is not None:
                break
        raise RuntimeError("the server did not start: " + "".join(lines))

    def port(self, service: str) -> int:
        return STANDARD[service] + self.offset

    @property
    def ca(self) -> str:
        return self.facts["ca_file"]

    def account(self, name: str) -> tuple[str, str, str]:
        """(address, password, device password)."""
        for account in self.facts["accounts"]:
            if account["address"].startswith(name + "@"):
                return account["address"], account["password"], account["device_password"]
        raise KeyError(name)

    def fubako(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess:
        """The program on this server's configuration."""
        return subprocess.run(
            [FUBAKO, *arguments, "--config", str(self.root / "fubako.toml")],
            capture_output=True, text=True, input=stdin, timeout=60, check=False,
        )  # fmt: skip

    def new_user(self, name: str) -> tuple[str, str]:
        address = f"{name}@fubako.test"
        done = self.fubako("user", "add", address, "--json")
        assert done.returncode == 0, done.stderr
        return address, json.loads(done.stdout)["password"]

    def stop(self) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(30)
        self.process.stdout.close()
        self.process = None
        return code

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)
        self.process.stdout.close()
        self.process = None


def have(program: str) -> bool:
    return shutil.which(program) is not None

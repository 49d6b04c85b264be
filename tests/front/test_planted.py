"""Code injected into the process that reads strangers' octets reaches no mailbox, no key, no file, no network and no other process.

Its world: `serve` with one worker and a nursery of the test's, whose engine runs what a header says; the planted code is Python in
the front, as root where the tests are root, so that no file mode stands in the way. Left out: faults of the kernel, and what a
front may do in any case: lie about what its own peers say (tests/front/test_distrust.py).
"""

import base64
import imaplib
import json
import os
import poplib
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from server import Server, without

from fubako.confine import landlock

HERE = Path(__file__).parent
STORED = re.compile(rb"argon2id\$[!-~]{40,}")
LETTER = "Subject: kept\r\n\r\nwords\r\n"


class Planted:
    """`serve` with planted fronts. `owner`: the worker that owns the store."""

    def __init__(self, root: Path, module: str) -> None:
        self.server = Server(root).start()
        assert self.server.stop() == 0
        config = root / "fubako.toml"
        config.write_text(f'apart = "auto"\n{config.read_text()}')
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(root / "notify"))
        self.notify.settimeout(60)
        self.events = (root / "events").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "planted_serve.py"), module, "serve", "--config", str(config), "--workers", "1"],
            stderr=self.events, env={**os.environ, "NOTIFY_SOCKET": str(root / "notify")},
        )  # fmt: skip
        while self.notify.recv(4096).decode() != "READY=1":
            pass
        (self.owner,) = (pid for pid in self.children() if b"planted_serve.py" in cmdline(pid))

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def told(self, name: str) -> list[dict]:
        lines = Path(self.events.name).read_text().splitlines()
        return [
            one for one in map(json.loads, filter(lambda line: line.startswith("{"), lines)) if one["event"] == name
        ]

    def part(self, name: str) -> int:
        """A thread writes the events, a moment later."""
        for _ in range(400):
            found = [one["pid"] for one in self.told("sandbox.applied") if one["part"] == name]
            if found:
                return found[0]
            time.sleep(0.05)
        raise AssertionError(f"nothing was told of {name}")

    def attempt(self) -> dict[str, str]:
        """A message whose header runs code; what became of each attempt."""
        root = self.server.root
        with socket.create_server(("127.0.0.1", 0)) as free:
            told = {
                "owner": self.owner, "folder": str(root / "store"), "port": free.getsockname()[1], "program": "/bin/true",
                "files": {
                    "mailbox": str(next((root / "store").rglob("*.seg*"))), "rows": str(root / "store/mail.sqlite"),
                    "key": str(root / "server.key"), "passwd": "/etc/passwd", "configuration": str(root / "fubako.toml"),
                },
            }  # fmt: skip
            planted = base64.b64encode(json.dumps(told).encode()).decode()
            with socket.create_connection(("127.0.0.1", self.server.port("smtp"))) as client:
                client.settimeout(60)
                file = client.makefile("rb")
                for words in ("EHLO x", "MAIL FROM:<a@elsewhere.test>", "RCPT TO:<bob@fubako.test>", "DATA"):
                    client.sendall(words.encode() + b"\r\n")
                client.sendall(f"X-Planted: {planted}\r\n{LETTER}.\r\n".encode())
                return next(json.loads(line[4:]) for line in file if line.startswith(b"299 "))

    def deliver(self) -> None:
        """An ordinary message, over TLS."""
        with smtplib.SMTP("localhost", self.server.port("smtp"), timeout=60) as sender:
            sender.starttls(context=ssl.create_default_context(cafile=self.server.ca))
            sender.sendmail("a@elsewhere.test", ["bob@fubako.test"], LETTER)

    def read(self) -> None:
        """By IMAP and POP3, each with TLS from the start and begun later."""
        address, password, _ = self.server.account("bob")
        context, port = ssl.create_default_context(cafile=self.server.ca), self.server.port
        with imaplib.IMAP4("localhost", port("imap")) as imap:
            imap.starttls(context)
            imap.login(address, password)
        with imaplib.IMAP4_SSL("localhost", port("imaps"), ssl_context=context) as imap:
            imap.login(address, password)
            assert imap.select()[0] == "OK"
            assert len(imap.fetch("1", "(BODY[])")[1][0][1]) > len(LETTER)
        later = poplib.POP3("localhost", port("pop3"))
        later.stls(context)
        for pop3 in (later, poplib.POP3_SSL("localhost", port("pop3s"), context=context)):
            pop3.user(address)
            pop3.pass_(password)
            assert pop3.stat()[0]
            pop3.quit()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0
        self.events.close()
        self.notify.close()


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@contextmanager
def planted(root: Path, module: str):
    running = Planted(root, module)
    try:
        yield running
    finally:
        running.stop()


def test_planted_code_in_the_front_reaches_nothing(tmp_path):
    if not landlock.version():
        without("the kernel has no Landlock")
    with planted(tmp_path / "d", "planted_front") as running:
        found = running.attempt()
        assert {name for name, error in found.items() if not error} == set()
        running.deliver()
        running.read()
        assert {one["part"] for one in running.told("sandbox.applied")} >= {"front", "tls"}


def test_without_confinement_the_attempts_succeed(tmp_path):
    """Else the test above would prove nothing."""
    with planted(tmp_path / "d", "planted_free") as running:
        reached = {name for name, error in running.attempt().items() if not error}
    assert reached >= {
        "read mailbox",
        "read rows",
        "read key",
        "read passwd",
        "list",
        "write",
        "connect",
        "run",
        "signal",
    }


def holds(pid: int, needle: bytes) -> bool:
    """Whether a process has these octets anywhere in its memory."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if place is None or line.endswith(("[vvar]", "[vsyscall]", "[vdso]", "[vvar_vclock]")):
                continue
            first, last = (int(one, 16) for one in place.groups())
            try:
                memory.seek(first)
                if needle in memory.read(last - first):
                    return True
            except OSError:
                continue
    return False


def test_the_front_has_neither_key_nor_password_in_its_memory(tmp_path):
    """What is looked for: a line of the key's file, and the stored form of a password, which the process for TLS has not either."""
    if os.getuid() != 0:
        without("only root can look into the memory of others")
    with planted(tmp_path / "d", "planted_front") as running:
        running.deliver()
        key = (running.server.root / "server.key").read_bytes().splitlines()[1]
        parts = {name: running.part(name) for name in ("front", "tls")}
        try:
            assert holds(parts["tls"], key), "the process that has the key must be seen to have it"
        except PermissionError:
            without("the kernel does not let root look into others")
        assert not holds(parts["front"], key)
        stored = STORED.search(
            b"".join(one.read_bytes() for one in (running.server.root / "store").glob("mail.sqlite*"))
        )
        assert not any(holds(pid, stored.group(0)) for pid in parts.values())


@pytest.mark.parametrize("part", ["front", "tls"])
def test_a_part_that_dies_is_replaced(tmp_path, part):
    with planted(tmp_path / "d", "planted_front") as running:
        running.deliver()
        first = running.part(part)
        os.kill(first, signal.SIGKILL)
        end = time.monotonic() + 60
        while True:
            try:
                running.deliver()
                if len([one for one in running.told("sandbox.applied") if one["part"] == part]) > 1:
                    break
            except (OSError, smtplib.SMTPException):
                assert time.monotonic() < end
        assert running.told("part.ended")[0]["part"] == part

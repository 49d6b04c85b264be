"""What holds across workers, with two real ones: a change of an account ends its sessions on both; guesses and unknown
recipients are counted together; the owner comes in while strangers guess.

Which worker a connection meets is decided here: the other one is stopped (SIGSTOP) meanwhile. Left out: more than one machine, and
networks beyond this one, for which a proxy speaks (PROXY).
"""

import asyncio
import base64
import imaplib
import json
import os
import poplib
import re
import signal
import smtplib
import socket
import sqlite3
import ssl
import subprocess
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from server import FUBAKO, Server
from test_ssh import Door

from fubako.accounts.guessing import FREE_NETWORK
from fubako.accounts.presence import ENDS_SECONDS_MAX

WAIT_SECONDS = 60.0  # until something is there; what is promised is read from the server's own clock
OWNER_SECONDS_MAX = 2.0
GUESSES = int(os.environ.get("FUBAKO_GUESSES", "200"))
GUESSERS = 30  # each from a network of its own


def until(condition):
    end = time.monotonic() + WAIT_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


class Serving:
    """`serve` with two workers. Whoever comes to IMAPS and to port 25 comes through a proxy."""

    def __init__(self, root: Path) -> None:
        self.server = Server(root).start()
        assert self.server.stop() == 0
        config = root / "fubako.toml"
        head, first, rest = config.read_text().partition("\n[")
        text = f'{head}\nconfine = "auto"\n[limits]\nunknown_recipients = 10\n{first}{rest}'
        for service in ("imaps", "smtp"):
            text = text.replace(f'service = "{service}"', f'service = "{service}"\nproxy_networks = ["127.0.0.0/8"]')
        config.write_text(text)
        self.root, self.events = root, []
        self.process = subprocess.Popen(
            [FUBAKO, "serve", "--config", str(config), "--workers", "2"], stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.workers = until(lambda: self.of("serve.started"))[0]["pids"]
        self.context = ssl.create_default_context(cafile=self.server.ca)

    def _read(self) -> None:
        for line in self.process.stderr:
            if line.startswith("{"):
                self.events.append(json.loads(line))

    def of(self, *names: str) -> list[dict]:
        return [one for one in list(self.events) if one["event"] in names]

    @contextmanager
    def only(self, number: int):
        """Who connects meanwhile meets this worker."""
        other = self.workers[1 - number]
        os.kill(other, signal.SIGSTOP)
        try:
            until(lambda: Path(f"/proc/{other}/stat").read_text().rpartition(")")[2].split()[0] == "T")
            yield
        finally:
            os.kill(other, signal.SIGCONT)

    def through_proxy(self, service: str, network: str) -> socket.socket:
        raw = socket.create_connection(("localhost", self.server.port(service)), WAIT_SECONDS)
        raw.sendall(f"PROXY TCP4 {network} 127.0.0.1 4000 1\r\n".encode())
        return self.context.wrap_socket(raw, server_hostname="localhost") if service == "imaps" else raw

    def imap(self, network: str) -> imaplib.IMAP4:
        serving = self

        class Client(imaplib.IMAP4):
            def _create_socket(self, timeout):
                return serving.through_proxy("imaps", network)

        return Client()

    def count(self, subject: str) -> int:
        """What the rows that all workers share say."""
        with closing(sqlite3.connect(f"file:{self.root}/store/mail.sqlite?mode=ro", uri=True)) as rows:
            found = rows.execute("SELECT failures FROM guess WHERE subject=?", (subject,)).fetchone()
        return found[0] if found else 0

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0
        self._reader.join(WAIT_SECONDS)
        self.process.stderr.close()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    running = Serving(tmp_path_factory.mktemp("both") / "d")
    yield running
    running.stop()


@pytest.fixture
def serving(both):
    both.events.clear()
    return both


# -- a change of an account


def idling(serving, user) -> "Open":
    client = serving.imap("192.0.2.1")
    client.login(*user)
    client.select()
    client.send(b"x1 IDLE\r\n")
    assert client.readline().startswith(b"+ ")
    return Open(client.sock, client.readline, b"* BYE the ")  # account was changed, or selected mailbox was removed


def popping(serving, user) -> "Open":
    client = poplib.POP3_SSL("localhost", serving.server.port("pop3s"), context=serving.context, timeout=WAIT_SECONDS)
    client.user(user[0])
    client.pass_(user[1])
    return Open(client.sock, client.file.readline, b"-ERR [AUTH] the account was changed")


def submitting(serving, user) -> "Open":
    """Amid a message: its recipients are said, its content is not."""
    client = smtplib.SMTP_SSL(
        "localhost", serving.server.port("submissions"), context=serving.context, timeout=WAIT_SECONDS
    )
    client.login(*user)
    assert client.mail(user[0])[0] == 250 and client.rcpt(user[0])[0] == 250
    return Open(client.sock, client.file.readline, b"421 4.7.0 the account was changed")


def by_ssh(door) -> subprocess.Popen:
    words, environment = [str(door.home / "bin" / "ssh"), "door", "imapd"], {"PATH": door.path, "HOME": str(door.home)}
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)


class Open:
    def __init__(self, sock, readline, farewell: bytes) -> None:
        self._sock, self._readline, self.expected = sock, readline, farewell

    def farewell(self) -> bytes:
        """What was said until it ended."""
        said = b"".join(iter(self._readline, b""))
        self._sock.close()
        return said


CHANGES = {
    "password": lambda door: ("user", "passwd", door.user[0]),
    "off": lambda door: ("user", "disable", door.user[0]),
    "key": lambda door: ("user", "key", "remove", door.user[0], re.search(r"SHA256:\S+", door.enrolled.stdout)[0]),
    "removal": lambda door: ("user", "remove", door.user[0], "--yes"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_ends_every_session_on_both_workers(serving, home, needs, what):
    """By the command that an administrator calls, which is a third process. A maildrop is one session's at a time."""
    needs("ssh", "ssh-keygen")
    address = f"{what}@fubako.test"
    made = serving.server.fubako("user", "add", address, "--json")
    user = (address, json.loads(made.stdout)["password"])
    door = Door(serving.server, user, home)
    sessions, programs = [], []
    with ExitStack() as stack:
        for number in (0, 1):
            with serving.only(number):
                sessions += [begin(serving, user) for begin in (idling, submitting)]
                if number == list(CHANGES).index(what) % 2:
                    sessions.append(popping(serving, user))
                ssh = stack.enter_context(by_ssh(door))
                assert ssh.stdout.readline().startswith(b"* PREAUTH")
                programs.append(ssh)
        bob = serving.imap("192.0.2.1")
        bob.login(*serving.server.account("bob")[:2])
        done = serving.server.fubako(*CHANGES[what](door))
        changed = time.time()
        assert done.returncode == 0, done.stderr
        told = [(one.expected, one.farewell()) for one in sessions]
        assert all(expected in said for expected, said in told), told
        assert [one.wait(WAIT_SECONDS) for one in programs] == [255, 255]  # ssh: the connection was ended
    revoked = until(lambda: len(found := serving.of("session.revoked")) >= 5 and found)
    assert max(one["at"] for one in revoked) < changed + ENDS_SECONDS_MAX
    assert bob.noop()[0] == "OK"


# -- guesses


def guess(serving, network: str, name: str) -> str:
    """What is said to one wrong password."""
    client = serving.imap(network)
    try:
        client.login(name, "wrong")
    except imaplib.IMAP4.error as error:
        return str(error)
    finally:
        client.sock.close()
    raise AssertionError("it held")


def test_guesses_on_both_workers_are_one_count(serving):
    """What the first worker was asked makes the line at the second one, which has looked at nothing yet."""
    network, name = "198.51.100.7", serving.server.account("bob")[0]
    with serving.only(0):
        first = [guess(serving, network, name) for _ in range(FREE_NETWORK)]
        until(lambda: serving.count(f"network {network}") == FREE_NETWORK)
    said: list[str] = []
    with serving.only(1):
        threads = [
            threading.Thread(target=lambda: said.append(guess(serving, network, name))) for _ in range(FREE_NETWORK)
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join(WAIT_SECONDS)
    assert all("AUTHENTICATIONFAILED" in one for one in first)
    assert sum("UNAVAILABLE" in one for one in said) >= 1 and len(said) == FREE_NETWORK
    looked_at = sum("AUTHENTICATIONFAILED" in one for one in said)
    assert until(lambda: serving.count(f"network {network}") == FREE_NETWORK + looked_at)


# -- unknown recipients


def named(serving, network: str, *recipients: str) -> list[bytes]:
    """The code of each reply to RCPT."""
    with serving.through_proxy("smtp", network) as raw, raw.makefile("rb") as file:
        raw.sendall(b"HELO x\r\nMAIL FROM:<a@b.test>\r\n")
        assert [file.readline()[:3] for _ in range(3)] == [b"220", b"250", b"250"]
        codes = []
        for one in recipients:
            raw.sendall(f"RCPT TO:<{one}>\r\n".encode())
            codes.append(file.readline()[:3])
            if codes[-1] == b"421":
                break
        return codes


def test_unknown_recipients_on_both_workers_are_one_count(serving):
    network, elsewhere = "198.51.100.8", "203.0.113.8"
    subject = f"recipients {network}"
    with serving.only(0):
        assert named(serving, network, *(f"nobody{n}@fubako.test" for n in range(6))) == [b"550"] * 6
        until(lambda: serving.count(subject) == 6)
    with serving.only(1):
        said = named(serving, network, *(f"nobody{n}@fubako.test" for n in range(6, 20)))
        assert said == [b"550"] * 4 + [b"421"]
        until(lambda: serving.count(subject) == 10)
    for number in (0, 1):
        with serving.only(number):
            assert named(serving, network, "bob@fubako.test") == [b"421"]  # also one who exists
            assert named(serving, elsewhere, "bob@fubako.test") == [b"250"]


# -- the owner


async def guesser(serving, number: int, name: str, left: list[int]) -> None:
    """One network; each guess is a connection of its own, with real argon2 behind it where it is looked at."""
    words = base64.b64encode(f"\0{name}\0wrong".encode()).decode()
    while left[0] > 0:
        left[0] -= 1
        reader, writer = await asyncio.open_connection("localhost", serving.server.port("imaps"))
        writer.write(f"PROXY TCP4 203.0.113.{number} 127.0.0.1 4000 1\r\n".encode())
        try:
            await writer.drain()
            await writer.start_tls(serving.context, server_hostname="localhost")
            writer.write(f"a AUTHENTICATE PLAIN {words}\r\n".encode())
            while not (line := await reader.readline()).startswith(b"a "):
                assert line
        finally:
            writer.close()


def test_the_owner_comes_in_while_strangers_guess(serving):
    """From a network that the account is known from. Measured by the server: from the greeting's end to `login.held`."""
    name, password, _ = serving.server.account("alice")
    home = "192.0.2.77"
    first = serving.imap(home)
    first.login(name, password)
    first.logout()
    left = [GUESSES]

    async def guessing() -> None:
        await asyncio.gather(*(guesser(serving, number, name, left) for number in range(GUESSERS)))

    strangers = threading.Thread(target=lambda: asyncio.run(guessing()))
    strangers.start()
    until(lambda: len(serving.of("login.failed")) >= 10)
    took = []
    while strangers.is_alive() and len(took) < 20:
        client = serving.imap(home)
        began = time.time()
        client.login(name, password)
        held = until(lambda began=began: [one for one in serving.of("login.held") if one["at"] >= round(began, 3)])
        took.append(held[0]["at"] - began)
        client.logout()
        time.sleep(0.25)
    strangers.join(WAIT_SECONDS + GUESSES)
    assert len(took) >= 3 and max(took) < OWNER_SECONDS_MAX, took
    failed = until(lambda: told if len(told := serving.of("login.failed")) >= GUESSES else None)  # written by a thread
    assert len(failed) == GUESSES and any("too many" in one["reason"] for one in failed)

"""`fubako serve`: workers, SIGHUP, a worker that dies, sockets from outside, a clean end."""

import imaplib
import json
import os
import shlex
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from reach import in_reach
from server import FUBAKO, STANDARD, Server, free_offset, without

from fubako.clock import Env
from fubako.trust.authority import ensure_authority, ensure_server


class Serving:
    """A quickstart's folder, served by workers."""

    def __init__(
        self, root: Path, prepare: Callable[[Path], None] | None = None, within: Sequence[str] = (), **environment: str
    ) -> None:
        self.server = Server(root).start()
        assert self.server.stop() == 0
        if prepare is not None:
            prepare(root)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(root / "notify"))
        (root / "notify").chmod(0o777)  # whoever serves tells
        self.notify.settimeout(20)
        self.process = subprocess.Popen(
            [*within, FUBAKO, "serve", "--config", str(root / "fubako.toml"), "--workers", "2"],
            stderr=subprocess.PIPE, text=True, env={**os.environ, "NOTIFY_SOCKET": str(root / "notify"), **environment},
        )  # fmt: skip
        try:
            self.told("READY=1")
        except TimeoutError:
            self.process.kill()
            raise AssertionError(self.process.stderr.read()) from None

    def told(self, wanted: str) -> None:
        while self.notify.recv(4096).decode() != wanted:
            pass

    def children(self, what: bytes = b"serve") -> list[int]:
        """Workers; with another word of their command line, others."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in pids if what in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def imap(self, name: str = "bob") -> imaplib.IMAP4_SSL:
        address, password, _ = self.server.account(name)
        for _ in range(100):
            try:
                client = imaplib.IMAP4_SSL(
                    "localhost",
                    self.server.port("imaps"),
                    ssl_context=ssl.create_default_context(cafile=self.server.ca),
                )
                break
            except (ConnectionRefusedError, ConnectionResetError):
                time.sleep(0.05)
        client.login(address, password)
        return client

    def stop(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0
        events = self.process.stderr.read()
        self.process.stderr.close()
        self.notify.close()
        return events


@pytest.fixture
def serving(tmp_path):
    running = Serving(tmp_path / "d")
    yield running
    if running.process.poll() is None:
        running.stop()


def leaf(serving) -> str:
    context = ssl.create_default_context(cafile=serving.server.ca)
    with (
        socket.create_connection(("localhost", serving.server.port("imaps"))) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        return tls.getpeercert()["serialNumber"]


def test_workers_tell_each_other_and_reload_drops_no_session(serving):
    assert len(serving.children()) == 2
    clients = [serving.imap() for _ in range(6)]  # the kernel spreads them over the workers
    for client in clients:
        client.select()
        client.send(b"x1 IDLE\r\n")
        assert client.readline().startswith(b"+ ")
    before = leaf(serving)
    root = serving.server.root
    (root / "server.pem").unlink()
    ensure_server(
        root / "server.pem", root / "server.key", (root / "ca.pem", root / "ca.key"), ["localhost"], Env().clock.now()
    )
    serving.process.send_signal(signal.SIGHUP)
    serving.told("RELOADING=1")
    serving.told("READY=1")
    end = time.monotonic() + 20
    while leaf(serving) == before:
        assert time.monotonic() < end
    with smtplib.SMTP("localhost", serving.server.port("smtp")) as sender:
        sender.sendmail("a@elsewhere.test", ["bob@fubako.test"], "Subject: told\r\n\r\nto all\r\n")
    for client in clients:
        client.sock.settimeout(20)
        while b"EXISTS" not in client.readline():
            pass
    events = serving.stop()
    assert '"event": "serve.stopped"' in events
    assert events.count('"event": "config.reloaded"') == 2
    for client in clients:  # a graceful end says BYE
        assert any(line.startswith(b"* BYE") for line in iter(client.readline, b""))
    assert not (serving.server.root / "lmtp.sock").exists()


def test_a_broken_configuration_is_refused_at_sighup_and_the_old_one_goes_on(serving):
    config = serving.server.root / "fubako.toml"
    config.write_text(config.read_text() + "\nnonsense = [\n")
    serving.process.send_signal(signal.SIGHUP)
    serving.told("RELOADING=1")
    serving.told("READY=1")
    serving.imap().logout()
    assert "config.refused" in serving.stop()


def own_certificate(serving, folder: Path) -> None:
    """A certificate of the server's own authority, in a folder beside its own."""
    folder.mkdir()
    root = serving.server.root
    pair = (root / "ca.pem", root / "ca.key")
    ensure_server(folder / "server.pem", folder / "server.key", pair, ["localhost"], Env().clock.now())


def test_certificates_that_lie_in_a_new_folder_are_taken_at_sighup_and_sessions_go_on(serving, tmp_path):
    """A renewal puts its files into a folder of its own, to which a link leads: out of reach of workers that are confined already.
    A worker that dies afterwards has what was read last, too."""
    root = serving.server.root
    client = serving.imap()
    client.select()
    before, first = leaf(serving), serving.children()
    own_certificate(serving, tmp_path / "renewed")
    for name in ("server.pem", "server.key"):
        (root / name).unlink()
        (root / name).symlink_to(tmp_path / "renewed" / name)
    serving.process.send_signal(signal.SIGHUP)
    serving.told("RELOADING=1")
    serving.told("READY=1")
    fresh = [pid for pid in serving.children() if pid not in first]
    assert len(fresh) == 2
    end = time.monotonic() + 20
    while (after := leaf(serving)) == before:  # those before may take one more, as long as they have not heard
        assert time.monotonic() < end
    with smtplib.SMTP("localhost", serving.server.port("smtp")) as sender:
        sender.sendmail("a@elsewhere.test", ["bob@fubako.test"], "Subject: told\r\n\r\nto those before\r\n")
    assert client.noop()[0] == "OK"
    client.logout()
    end = time.monotonic() + 20
    while set(serving.children()) != set(fresh):  # who has no session left is gone
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(fresh[0], signal.SIGKILL)
    while len(serving.children()) < 2 or fresh[0] in serving.children():
        assert time.monotonic() < end + 20
        time.sleep(0.05)
    assert leaf(serving) == after
    events = serving.stop()
    assert "workers.replaced" in events and "config.refused" not in events and "bug" not in events


def test_search_goes_on_when_those_who_read_messages_are_gone(serving):
    """One nursery for all workers; when it is killed a worker starts one of its own."""
    client = serving.imap()
    client.select()
    client.append("INBOX", None, None, b"Subject: x\r\n\r\na needle\r\n")
    found = client.search(None, "BODY", "needle")
    assert found == ("OK", [b"2"])  # behind the welcome
    (nursery,) = serving.children(b"fubako.app.births")
    os.kill(nursery, signal.SIGKILL)
    for _ in range(2):
        assert client.search(None, "BODY", "needle") == found
    client.logout()
    assert '"event": "sandbox.applied"' in serving.stop()


def test_workers_are_confined_and_say_so(serving):
    for pid in serving.children():
        status = Path(f"/proc/{pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        assert "CapEff:\t0000000000000000" in status
    serving.imap().logout()
    events = [json.loads(line) for line in serving.stop().splitlines() if line.startswith("{")]
    confined = [one for one in events if one["event"] == "worker.confined"]
    assert len(confined) == 2
    assert all("system calls" in one["held"] for one in confined)


def open_to_others(folder: Path) -> Path:
    """A folder where programs of other users can write."""
    folder.mkdir()
    folder.chmod(0o777)
    for parent in folder.parents:
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    return folder


def handed(serving, address: str, target: str) -> None:
    """An alias to a program or a file, as an administrator makes it; a message to it."""
    user = ["--user", "nobody"] if os.geteuid() == 0 else []
    made = serving.server.fubako("alias", "add", address, target, *user)
    assert made.returncode == 0, made.stderr
    with smtplib.SMTP("localhost", serving.server.port("smtp")) as sender:
        sender.sendmail("a@elsewhere.test", [address], f"Subject: {address}\r\n\r\nto a program\r\n")


def written(path: Path, mark: str) -> None:
    end = time.monotonic() + 30
    while not path.exists() or mark not in path.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_programs_and_files_of_aliases_made_later_are_served_by_confined_workers(serving, tmp_path):
    """The workers were confined before there was any; the process that starts them is killed meanwhile, and nothing is lost."""
    folder = open_to_others(tmp_path / "open")
    handed(serving, "one@fubako.test", f"|/bin/sh -c 'cat > {folder}/one'")
    written(folder / "one", "to a program")
    (spawner,) = serving.children(b"fubako.app.spawner")
    os.kill(spawner, signal.SIGKILL)
    handed(serving, "two@fubako.test", f"|/bin/sh -c 'cat > {folder}/two'")
    handed(serving, "three@fubako.test", f"{folder}/three")
    written(folder / "two", "to a program")
    written(folder / "three", "to a program")
    assert '"event": "spawner.died"' in serving.stop()


def test_a_worker_that_dies_is_replaced(serving):
    first = serving.children()
    os.kill(first[0], signal.SIGKILL)
    end = time.monotonic() + 20
    while len(serving.children()) < 2 or set(serving.children()) == set(first):
        assert time.monotonic() < end
        time.sleep(0.05)
    for _ in range(4):
        serving.imap().logout()
    assert "worker.died" in serving.stop()


def test_socket_activation_and_dropped_privileges(tmp_path):
    """Keys and the configuration are root's, the store is the user's, with a link in it to a file of root's. A socket that was
    handed over has the settings of its [[listen]]. Left out: systemd itself, and a link planted while the server starts."""
    if os.getuid() != 0:
        without("only root can give privileges up")
    root = tmp_path / "d"
    server = Server(root).start()
    assert server.stop() == 0
    for parent in (root, *list(root.parents)[:4]):
        if parent.stat().st_uid == os.getuid() and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    only_root = tmp_path / "only-root"
    only_root.write_text("of root")
    only_root.chmod(0o600)
    for path in (root / "store", *(root / "store").rglob("*")):
        os.lchown(path, 65534, 65534)
    (root / "store" / "planted").symlink_to(only_root)
    os.lchown(root / "store" / "planted", 65534, 65534)
    config = root / "fubako.toml"
    config.chmod(0o644)
    text = config.read_text().replace('service = "imaps"', 'service = "imaps"\nmechanisms = ["LOGIN"]')
    config.write_text('user = "nobody"\n' + text)
    offset = free_offset()
    listener = socket.create_server(("127.0.0.1", STANDARD["imaps"] + offset))
    code = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True);"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='imaps');"
        "os.execv(sys.argv[2], sys.argv[2:])"
    )

    process = subprocess.Popen(
        [sys.executable, "-c", code, str(listener.fileno()), FUBAKO, "serve", "--config", str(config), "--workers", "1"],
        pass_fds=[listener.fileno()], stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    listener.close()
    try:
        address, password, _ = server.account("bob")
        context = ssl.create_default_context(cafile=server.ca)
        client = imaplib.IMAP4_SSL("localhost", STANDARD["imaps"] + offset, ssl_context=context, timeout=20)
        assert [one for one in client.capabilities if one.startswith("AUTH=")] == ["AUTH=LOGIN"]
        client.login(address, password)
        client.logout()
        assert (only_root.stat().st_uid, only_root.stat().st_mode & 0o777) == (0, 0o600)
        assert "NoNewPrivs:\t1" in Path(f"/proc/{process.pid}/status").read_text()
        assert "Uid:\t65534\t65534\t65534\t65534" in Path(f"/proc/{process.pid}/status").read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, process.stderr.read()
        process.stderr.close()


def test_authority_is_not_made_anew(tmp_path):
    assert ensure_authority(tmp_path / "ca.pem", tmp_path / "ca.key", "x", 1e9)
    assert not ensure_authority(tmp_path / "ca.pem", tmp_path / "ca.key", "x", 1e9)
    names = ["localhost", "127.0.0.1"]
    pair = (tmp_path / "ca.pem", tmp_path / "ca.key")
    assert ensure_server(tmp_path / "s.pem", tmp_path / "s.key", pair, names, 1e9)
    assert not ensure_server(tmp_path / "s.pem", tmp_path / "s.key", pair, names, 1e9)
    assert ensure_server(tmp_path / "s.pem", tmp_path / "s.key", pair, names, 1e9 + 61 * 86400)  # 29 days are left
    assert ensure_server(tmp_path / "s.pem", tmp_path / "s.key", pair, [*names, "other"], 1e9 + 61 * 86400)


def test_workers_end_with_their_supervisor(serving):
    workers = serving.children()
    serving.process.kill()
    serving.process.wait(20)
    serving.process.stderr.close()
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < end
        time.sleep(0.05)


FILTER = """/bin/sh -c 'sed "s/needle/found $USER/"'"""
BACKEND = """#!/bin/sh
read -r line
case "$line" in *sesame*) echo '{"result": "held"}' ;; *) echo '{"result": "wrong"}' ;; esac
"""


def test_everything_that_is_a_program_works_for_workers_that_may_start_none(tmp_path):
    """A route's program, the filter program, a password backend, and a milter at a Unix socket. Served by nobody, as programs of
    the server's own user would be root's else. Left out: LDAP and PAM (tests/contracts/test_backends.py asks them by a spawner)."""
    if os.geteuid() != 0:
        without("only root can serve as nobody")
    folder = open_to_others(tmp_path / "open")
    (folder / "backend").write_text(BACKEND)
    (folder / "backend").chmod(0o755)
    milter = socket.socket(socket.AF_UNIX)
    milter.bind(str(folder / "milter"))
    (folder / "milter").chmod(0o777)
    milter.listen()
    milter.settimeout(20)

    def prepare(root: Path) -> None:
        config = root / "fubako.toml"
        config.write_text(
            f'user = "nobody"\n{config.read_text()}\n[filter]\nprogram = {json.dumps(shlex.split(FILTER))}\n'
            f'[[milter]]\naddress = "{folder}/milter"\nfallback = "accept"\nservices = ["smtp"]\n'
            f'[[password_backend]]\nkind = "program"\nprogram = ["{folder}/backend"]\n'
            f'[[route]]\nto = "program"\nprogram = ["/bin/sh", "-c", "cat > {folder}/routed"]\n'
        )
        for path in (root, *root.rglob("*")):
            os.lchown(path, 65534, 65534)

    serving = Serving(tmp_path / "d", prepare, in_reach(tmp_path / "stage"))
    try:
        address = serving.server.account("bob")[0]
        asked = threading.Thread(target=lambda: milter.accept()[0].close())  # what follows goes on without it
        asked.start()
        with smtplib.SMTP("localhost", serving.server.port("smtp")) as sender:
            sender.sendmail("a@elsewhere.test", [address], "Subject: x\r\n\r\na needle\r\n")
        asked.join(20)
        assert not asked.is_alive()
        context = ssl.create_default_context(cafile=serving.server.ca)
        client = imaplib.IMAP4_SSL("localhost", serving.server.port("imaps"), ssl_context=context, timeout=20)
        with pytest.raises(imaplib.IMAP4.error):
            client.login(address, "wrong")
        client.login(address, "sesame")  # the backend's, not the store's
        client.select()
        assert b"found" in client.fetch("2", "(BODY[TEXT])")[1][0][1]
        client.logout()
        with smtplib.SMTP_SSL("localhost", serving.server.port("submissions"), context=context) as sender:
            sender.login(address, "sesame")
            sender.sendmail(address, ["far@away.test"], f"From: {address}\r\nSubject: x\r\n\r\nneedle\r\n")
        written(folder / "routed", f"found {address}")
    finally:
        events = serving.stop()
        milter.close()
    assert events.count('"event": "worker.confined"') == 2 and "bug" not in events, events

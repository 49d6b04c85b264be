"""`fubako fetch`: servers, tunnels, places, configurations of fetchmail; nothing lost, nothing twice, nothing in the clear."""

import imaplib
import json
import os
import random
import re
import secrets
import signal
import socket
import ssl
import subprocess
import threading
import time
from contextlib import suppress

import pytest
from checkers import until
from peers import free_port
from server import FUBAKO
from test_programs import deliver, kept
from test_ssh import Door

from fubako.client import fetchmailrc


class User:
    """A home with an accounts.toml."""

    def __init__(self, server, user, home) -> None:
        self.server, self.user, self.home = server, user, home
        self.folder = home / "fubako"
        self.folder.mkdir(mode=0o700)
        secret = home / "secret"
        secret.write_text(user[1] + "\n")
        secret.chmod(0o600)
        self.maildir = home / "Mail"
        self.extra: dict[str, str] = {}

    def account(self, **more) -> None:
        given = {
            "name": "one", "host": "localhost", "port": self.server.port("imaps"), "user": self.user[0],
            "password_file": str(self.home / "secret"), "trust": [self.server.ca], "deliver": f"maildir:{self.maildir}",
        } | more  # fmt: skip
        given = {name: value for name, value in given.items() if value is not None}
        lines = [f"{name} = {json.dumps(value)}" for name, value in given.items()]
        (self.folder / "accounts.toml").write_text("[[account]]\n" + "\n".join(lines) + "\n")

    def run(self, *words: str):
        path = f"{self.home / 'bin'}:/usr/bin:/bin:/usr/sbin"
        env = {"PATH": path, "HOME": str(self.home), "FUBAKO_HOME": str(self.folder), **self.extra}
        done = subprocess.run(
            [FUBAKO, *words],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
            check=False,
            env=env,
        )
        return done.returncode, done.stdout, done.stderr

    def letters(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted((self.maildir / "new").iterdir())] if self.maildir.exists() else []


@pytest.fixture
def me(server, user, home) -> User:
    return User(server, user, home)


@pytest.mark.parametrize(
    ("protocol", "tls", "service"),
    [
        ("imap", "implicit", "imaps"),
        ("imap", "starttls", "imap"),
        ("pop3", "implicit", "pop3s"),
        ("pop3", "starttls", "pop3"),
    ],
)
def test_every_way_in_brings_each_letter_once(me, letter, protocol, tls, service):
    for number in range(3):
        deliver(me.server, me.user, letter.replace(b"Subject: ", b"X-Number: %d\r\nSubject: " % number))
    me.account(protocol=protocol, tls=tls, port=me.server.port(service))
    code, said, error = me.run("fetch", "--json")
    assert code == 0, error
    facts = json.loads(said)
    assert (facts["there"], facts["fetched"], facts["deleted"]) == (3, 3, 0) and "SCRAM-SHA-256-PLUS" in facts["hop"]
    assert len(me.letters()) == 3 and all(letter.replace(b"\r\n", b"\n")[-500:] in one for one in me.letters())
    assert me.run("fetch")[0] == 1  # nothing new
    deliver(me.server, me.user, b"Subject: four\r\n\r\nx\r\n")
    assert me.run("fetch")[0] == 0 and len(me.letters()) == 4 and len(kept(me.server, me.user)) == 4
    me.account(protocol=protocol, tls=tls, port=me.server.port(service), keep=False)
    code, said, _ = me.run("fetch", "--json")
    assert code == 1 and json.loads(said)["deleted"] == 4 and kept(me.server, me.user) == [] and len(me.letters()) == 4


def test_places(me, letter):
    deliver(me.server, me.user, letter)
    deliver(me.server, me.user, b"Subject: from lines\r\n\r\nFrom here\r\n>From there\r\n")
    me.account(deliver=f"mbox:{me.home}/box")
    assert me.run("fetch")[0] == 0
    box = (me.home / "box").read_bytes()
    assert (
        box.count(b"\nFrom fubako ") + box.startswith(b"From fubako ") == 2 and b"\n>From here\n>>From there\n" in box
    )
    target = me.server.new_user("target" + os.urandom(3).hex())
    me.account(deliver=f"lmtp:{me.server.facts['lmtp_socket']}", recipient=target[0])
    assert me.run("fetch")[0] == 0 and len(kept(me.server, target)) == 2
    me.account(
        deliver="mda",
        mda=["/bin/sh", "-c", f"cat > {me.home}/out.$$; echo %T %F >> {me.home}/who"],
        recipient="a'b; touch x@y.test",
    )
    assert me.run("fetch")[0] == 0 and len(list(me.home.glob("out.*"))) == 2
    assert (me.home / "who").read_text().startswith("a_b__touch_x@y.test ") and not (me.home / "x@y.test").exists()


def test_a_program_that_fails_keeps_the_letter_there(me):
    deliver(me.server, me.user, b"Subject: x\r\n\r\nx\r\n")
    me.account(deliver="mda", mda=["/bin/sh", "-c", "cat > /dev/null; exit 75"], keep=False)
    code, _, error = me.run("fetch")
    assert code == 69 and "ended with 75" in error and len(kept(me.server, me.user)) == 1


@pytest.mark.parametrize(("protocol", "service"), [("imap", "imaps"), ("pop3", "pop3s")])
def test_a_refused_login_has_its_own_exit_code(me, protocol, service):
    (me.home / "secret").write_text("wrong\n")
    me.account(protocol=protocol, port=me.server.port(service))
    code, _, error = me.run("fetch")
    assert code == 77 and "refused the login" in error


def test_a_fetchmailrc_without_a_password_asks_netrc(me):
    deliver(me.server, me.user, b"Subject: x\r\n\r\nx\r\n")
    me.account()
    rc = me.home / "rc"
    rc.write_text(
        f"poll work via localhost proto imap port {me.server.port('imaps')} user {me.user[0]} ssl sslcertfile {me.server.ca}"
        f' sslcommonname localhost mda "/bin/cat" keep\n'
    )
    rc.chmod(0o600)
    netrc = me.home / ".netrc"
    netrc.write_text(f"machine other login x password y\nmachine work login {me.user[0]} password {me.user[1]}\n")
    netrc.chmod(0o600)
    code, _, error = me.run("fetch", "--fetchmailrc", str(rc))
    assert code == 0, error
    netrc.chmod(0o644)
    code, _, error = me.run("fetch", "--fetchmailrc", str(rc))
    assert code == 78 and "chmod 600" in error


@pytest.mark.parametrize(("protocol", "service"), [("imap", "imap"), ("pop3", "pop3")])
def test_a_transcript(me, protocol, service):
    """Clear until STARTTLS, encrypted then; no secret, no letter."""
    deliver(me.server, me.user, b"Subject: private\r\n\r\nx\r\n")
    me.account(protocol=protocol, tls="starttls", port=me.server.port(service), mechanisms=["PLAIN"])
    code, _, error = me.run("fetch", "--transcript", str(me.home / "transcript"))
    assert code == 0, error
    path = me.home / "transcript"
    text = path.read_text()
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("== TLSv1.3"))
    assert all(line.startswith(("->", "<-", "==")) for line in lines[:at]) and all(
        line.startswith(("~>", "<~")) for line in lines[at + 1 :]
    )
    assert "PLAIN ***" in text and me.user[1] not in text and me.user[0] not in text and "private" not in text
    assert path.stat().st_mode & 0o777 == 0o600


def test_certificates_new_changed_and_pinned(me):
    deliver(me.server, me.user, b"Subject: x\r\n\r\nx\r\n")
    me.account(trust=["public"])
    code, _, error = me.run("fetch")
    assert code == 80 and "authority" in error and me.letters() == []
    me.account(trust=["first-use"])
    assert me.run("fetch")[0] == 0
    code, said, _ = me.run("trust", "list", "--json")
    (known,) = json.loads(said)
    assert (known["accepted"], known["tls"], known["mechanism"]) == ("first-use", "TLSv1.3", "SCRAM-SHA-256-PLUS")
    path = me.folder / "known.json"
    assert path.stat().st_mode & 0o777 == 0o600
    kept_text = path.read_text()
    facts = json.loads(kept_text)
    facts["peers"][0] |= {"sha256": "0" * 64, "spki_sha256": "1" * 64}
    path.write_text(json.dumps(facts))
    code, _, error = me.run("fetch")
    assert code == 81 and "ANOTHER key" in error and "fubako trust forget" in error
    assert me.run("trust", "forget", "localhost", str(me.server.port("imaps")))[0] == 0
    assert me.run("fetch")[0] == 1
    sha256 = json.loads(me.run("trust", "show", "localhost", str(me.server.port("imaps")), "--json")[1])["sha256"]
    me.account(trust=[f"sha256:{sha256}"])
    assert me.run("fetch")[0] == 1
    me.account(trust=["sha256:" + "ab" * 32])
    assert me.run("fetch")[0] == 80
    path.write_text("{")
    code, _, error = me.run("fetch")
    assert code == 78 and "not taken for empty" in error


def test_what_a_server_could_do_before_is_demanded(me):
    me.account()
    assert me.run("fetch")[0] == 1
    path = me.folder / "known.json"
    facts = json.loads(path.read_text())
    me.account(mechanisms=["PLAIN"])
    assert me.run("fetch")[0] == 1  # the server still offers SCRAM
    facts["peers"][0]["tls"] = "TLSv1.9"
    path.write_text(json.dumps(facts))
    assert me.run("fetch")[0] == 1  # a version that we do not know tells nothing


class Liar(threading.Thread):
    """Says what it is told to; keeps what it hears."""

    def __init__(self, *answers: bytes) -> None:
        super().__init__(daemon=True)
        self.answers, self.heard = answers, b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self) -> None:
        peer, _ = self.listener.accept()
        peer.settimeout(5)
        with peer:
            for answer in self.answers:
                tag = self.heard.rstrip().rpartition(b"\n")[2].partition(b" ")[0]
                peer.sendall(answer.replace(b"%s", tag))
                try:
                    octets = peer.recv(4096)
                except OSError:
                    return
                self.heard += octets
                if not octets:
                    return


IMAP = b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] x\r\n"


@pytest.mark.parametrize(
    ("protocol", "answers"),
    [
        ("imap", (IMAP, b"%s BAD no\r\n")), ("imap", (b"* PREAUTH [CAPABILITY IMAP4rev1] x\r\n", b"x\r\n")),
        ("imap", (b"* FOO x\r\n", b"")),
        ("imap", (IMAP, b"%s OK go\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n")), ("imap", (IMAP, b"%s OK go\r\nnot TLS at all\r\n")),
        ("imap", (IMAP, b"%s NO [REFERRAL imap://;AUTH=*@evil.test/] x\r\n")), ("imap", (IMAP, b"+ go on\r\n")),
        ("pop3", (b"+OK x\r\n", b"-ERR no\r\n")), ("pop3", (b"+OK x\r\n", b"+OK go\r\n+OK\r\nPLAIN\r\n.\r\n")),
        ("pop3", (b"-ERR x\r\n", b"")),
        ("pop3", (b"+OK x\r\n", b"+OK go\r\nnot TLS\r\n")),
    ],
)  # fmt: skip
def test_no_password_is_said_to_who_hides_tls(me, protocol, answers):
    """C-STRIP, C-REFUSE, C-PREAUTH, C-BADGREET, C-INJ, C-REFERRAL, C-TLSFAIL of a man in the middle."""
    liar = Liar(*answers)
    me.account(protocol=protocol, tls="starttls", port=liar.port)
    code, _, error = me.run("fetch")
    assert code in (69, 76, 83), error
    time.sleep(0.1)
    said = liar.heard.upper()
    assert not re.search(rb"LOGIN|AUTH|USER|PASS|SELECT|EXAMINE|APOP", said.replace(b"STARTTLS", b"")), liar.heard


def test_tls_refused_is_told_apart_and_hidden_tls_is_an_alarm(me):
    """No TLS is no failed connection; and where TLS was before, somebody hides it."""
    refusing = Liar(IMAP, b"%s BAD no\r\n")
    me.account(tls="starttls", port=refusing.port)
    code, _, error = me.run("fetch")
    assert code == 83 and "STARTTLS" in error
    me.account(tls="starttls", port=free_port())
    assert me.run("fetch")[0] == 69
    me.account(tls="starttls", port=me.server.port("imap"))
    assert me.run("fetch")[0] == 1
    hiding = Liar(IMAP, b"%s BAD no\r\n")
    path = me.folder / "known.json"
    path.write_text(path.read_text().replace(str(me.server.port("imap")), str(hiding.port)))
    me.account(tls="starttls", port=hiding.port)
    code, _, error = me.run("fetch")
    assert code == 82 and "spoke TLSv1.3 before" in error and "fubako trust forget" in error


def test_settings_that_would_leak(me):
    me.account(host="imap.example.org", tls="none")
    code, _, error = me.run("fetch")
    assert code == 78 and "everybody could read the password" in error
    (me.home / "secret").chmod(0o644)
    me.account()
    code, _, error = me.run("fetch")
    assert code == 78 and "chmod 600" in error
    me.account(unknown=1)
    assert me.run("fetch")[0] == 78


class Meter(threading.Thread):
    """In front of a server: passes so many octets to the client, tells, and holds the rest back."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.to, self.left, self.reached = port, 0, threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self) -> None:
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.to))
            threading.Thread(target=self.passed, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self.passed, args=(server, client, True), daemon=True).start()

    def passed(self, source: socket.socket, target: socket.socket, metered: bool) -> None:
        with suppress(OSError):
            while octets := source.recv(65536):
                if metered:
                    octets, whole = octets[: self.left], len(octets)
                    self.left -= len(octets)
                    target.sendall(octets)
                    if len(octets) < whole:
                        self.reached.set()
                        return
                else:
                    target.sendall(octets)
            target.shutdown(socket.SHUT_WR)


@pytest.mark.timeout(300)
def test_killed_again_and_again_each_letter_comes_once(me):
    """10,000 letters; the program is killed at octets and moments that nobody chose, until all are here."""
    box = imaplib.IMAP4_SSL(
        "localhost", me.server.port("imaps"), ssl_context=ssl.create_default_context(cafile=me.server.ca)
    )
    box.login(*me.user)
    for start in range(0, 10_000, 500):  # MULTIAPPEND by hand: imaplib has none
        letters = [f"Subject: {number}\r\n\r\n{'x' * 200}\r\n".encode() for number in range(start, start + 500)]
        box.send(b"m%d APPEND INBOX" % start + b"".join(b" {%d+}\r\n%b" % (len(one), one) for one in letters) + b"\r\n")
        while not (line := box.readline()).startswith(b"m%d " % start):
            assert line
        assert b" OK " in line, line
    box.logout()
    meter = Meter(me.server.port("imaps"))
    me.account(port=meter.port)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(me.home), "FUBAKO_HOME": str(me.folder)}
    kills, chosen = 0, random.Random(7)
    for number in range(20):
        by_octet = number % 2 == 0
        meter.left = chosen.randrange(600_000) if by_octet else 1 << 40
        meter.reached.clear()
        running = subprocess.Popen([FUBAKO, "fetch"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if by_octet:
            until(lambda one=running: meter.reached.is_set() or one.poll() is not None)
        try:
            running.wait(chosen.uniform(0.0, 0.05) if by_octet else chosen.uniform(0.5, 1.1))
            break
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
            kills += 1
    meter.left = 1 << 40
    code, _, error = me.run("fetch")
    assert code in (0, 1), error
    assert kills >= 5
    subjects = sorted(int(re.search(rb"Subject: (\d+)", one)[1]) for one in me.letters())
    assert subjects == list(range(10_000))


def test_watching_brings_letters_at_once(me):
    """By IDLE: a letter is here long before the next look would be due; the connection is one and the same."""
    me.account()
    env = {"PATH": "/usr/bin:/bin", "HOME": str(me.home), "FUBAKO_HOME": str(me.folder)}
    running = subprocess.Popen(
        [FUBAKO, "fetch", "--watch", "--every", "600", "--json"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: (me.folder / "known.json").exists())
        for number in range(3):
            deliver(me.server, me.user, f"Subject: {number}\r\n\r\nx\r\n".encode())
            until(lambda count=number + 1: len(me.letters()) == count)
        said = json.loads(running.stdout.readline())
        assert said["fetched"] == 1 and said["exit"] == 0
    finally:
        running.terminate()
        _, error = running.communicate(timeout=20)
    assert running.returncode in (0, -signal.SIGTERM, 143) and "Traceback" not in error


def test_watching_outlives_a_restart_and_leaves_who_is_not_believed(me):
    me.account()
    env = {"PATH": "/usr/bin:/bin", "HOME": str(me.home), "FUBAKO_HOME": str(me.folder)}
    running = subprocess.Popen(
        [FUBAKO, "fetch", "--watch"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        until(lambda: (me.folder / "known.json").exists())
        assert me.server.stop() == 0
        me.server.start()
        deliver(me.server, me.user, b"Subject: after\r\n\r\nx\r\n")
        until(lambda: len(me.letters()) == 1, 60)
    finally:
        running.terminate()
        running.communicate(timeout=20)
    me.account(trust=["public"])
    assert me.run("fetch", "--watch")[0] == 80


def test_deleted_there_after_some_days(me):
    for number in range(2):
        deliver(me.server, me.user, f"Subject: {number}\r\n\r\nx\r\n".encode())
    me.account(delete_after_days=7)
    assert me.run("fetch")[0] == 0
    assert me.run("fetch")[0] == 1 and len(kept(me.server, me.user)) == 2
    (file,) = (me.folder / "fetched").iterdir()
    first, second = file.read_text().splitlines()
    old = int(first.partition("\t")[2]) - 8 * 86400
    file.write_text(f"{first.partition(chr(9))[0]}\t{old}\n{second}\n")
    code, said, _ = me.run("fetch", "--json")
    assert code == 1 and json.loads(said)["deleted"] == 1
    assert len(kept(me.server, me.user)) == 1


def test_a_mailbox_of_several_people(me, server):
    """By LMTP into our own server: whom the envelope field names gets it, never whom To names."""
    people = [server.new_user("p" + secrets.token_hex(4)) for _ in range(2)]
    for number in range(2):
        deliver(
            me.server,
            me.user,
            f"Delivered-To: p{number}@shared.test\r\nTo: p0@shared.test\r\nSubject: {number}\r\n\r\nx\r\n".encode(),
        )
    deliver(me.server, me.user, b"To: p0@shared.test\r\nSubject: nobody's\r\n\r\nx\r\n")
    me.account(deliver=f"lmtp:{me.server.facts['lmtp_socket']}", envelope=["Delivered-To"], recipient=people[1][0])
    path = me.folder / "accounts.toml"
    table = "\n".join(f'"p{number}@shared.test" = "{address}"' for number, (address, _) in enumerate(people))
    path.write_text(path.read_text() + f"[account.multidrop]\n{table}\n")
    code, _, error = me.run("fetch")
    assert code == 0, error
    assert len(kept(me.server, people[0])) == 1 and len(kept(me.server, people[1])) == 2


def test_into_a_store_of_this_machine(me, tmp_path):
    """A configuration of its own, without a server that runs."""
    (tmp_path / "fubako.toml").write_text('hostname = "mx.own.test"\ndirectory = "data"\n')
    own = ["--config", str(tmp_path / "fubako.toml")]
    for words in (["domain", "add", "own.test"], ["user", "add", "ann@own.test"]):
        code, _, error = me.run(*words, *own)
        assert code == 0, error
    deliver(me.server, me.user, b"Subject: mine\r\n\r\nx\r\n")
    me.account(deliver=f"store:{tmp_path}/fubako.toml", recipient="ann@own.test")
    code, _, error = me.run("fetch")
    assert code == 0, error
    code, _, _ = me.run("store", "export", str(tmp_path / "out"), "ann@own.test", *own)
    found = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert any(b"Subject: mine" in one for one in found)
    deliver(me.server, me.user, b"Subject: for bob\r\n\r\nx\r\n")
    me.account(deliver=f"store:{tmp_path}/fubako.toml", recipient="bob@own.test", name="two")
    code, _, error = me.run("fetch")
    assert code == 69 and "bob@own.test" in error


# -- roads


def test_after_preconnect_the_road_is_the_same(me):
    """A socket that is not there yet is waited for; nothing goes to the host and port instead, least of all without TLS."""
    liar = Liar(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\r\n", b"%s OK x\r\n", b"%s OK x\r\n")
    path = me.home / "socket"
    script = me.home / "forward"
    script.write_text(
        f"#!/bin/sh\nsetsid socat UNIX-LISTEN:{path},fork 'EXEC:{FUBAKO} imapd --user {me.user[0]} --config"
        f" {me.server.root}/fubako.toml' > /dev/null 2>&1 < /dev/null &\n"
    )
    script.chmod(0o755)
    me.account(socket=str(path), host="127.0.0.1", port=liar.port, preconnect=str(script))
    code, _, error = me.run("fetch")
    assert liar.heard == b"" and code == 1, error


def test_what_preconnect_started_is_ended(me):
    """A forward that goes on in the background, a session of its own, is gone when the program is."""
    port = free_port()
    script = me.home / "forward"
    script.write_text(
        f"#!/bin/sh\nsetsid sh -c 'echo $$ > {me.home}/pid; exec socat TCP-LISTEN:{port},fork,bind=127.0.0.1,reuseaddr"
        f" TCP:127.0.0.1:{me.server.port('imaps')}' > /dev/null 2>&1 < /dev/null &\n"
    )
    script.chmod(0o755)
    me.account(port=port, preconnect=str(script))
    code, _, error = me.run("fetch")
    assert code == 1, error
    pid = int((me.home / "pid").read_text())
    until(lambda: not os.path.exists(f"/proc/{pid}"))


def test_through_tunnels_and_preconnect(server, user, home, needs, letter):
    needs("ssh")
    Door(server, user, home)
    me = User(server, user, home)
    deliver(server, user, letter)
    for protocol, program in (("imap", "imapd"), ("pop3", "pop3d")):
        me.maildir = home / program
        me.account(protocol=protocol, tunnel=f"ssh -q door {program}", port=None)
        code, said, error = me.run("fetch", "--json")
        assert code == 0, error
        assert (
            json.loads(said)["hop"].startswith(f"{protocol} -> ssh -q door {program}; local") and len(me.letters()) == 1
        )
    # TLS inside a tunnel that does not end at the server
    me.maildir = home / "inside"
    me.account(tunnel=f"ssh -q -W localhost:{server.port('imaps')} door", tunnel_ends_there=False, port=None)
    code, said, error = me.run("fetch", "--json")
    assert code == 0 and "TLSv1.3" in json.loads(said)["hop"], error
    me.maildir, port = home / "pre", free_port()
    me.account(port=port, tls="starttls", preconnect=f"ssh -f -q -L {port}:localhost:143 door sleep 20 > /dev/null")
    code, _, error = me.run("fetch")
    assert code == 0 and len(me.letters()) == 1, error
    me.account(port=free_port(), preconnect="exit 3")
    code, _, error = me.run("fetch")
    assert code == 69 and "preconnect of one ended with 3" in error


def test_lists_8_and_9_of_the_seeds(server, user, home, needs, letter):
    """With only names, ports and fingerprints changed (and the password, which fetchmail would ask for)."""
    needs("ssh", "openssl")
    Door(server, user, home)
    me = User(server, user, home)
    filter_ = home / "maildrop"
    filter_.write_text(f"#!/bin/sh\ncat >> {home}/dropped\n")
    filter_.chmod(0o755)
    deliver(server, user, letter)
    rc, port = home / "fetchmailrc", free_port()
    asked = ("openssl", "x509", "-noout", "-md5", "-fingerprint", "-in", str(server.root / "server.pem"))
    pem = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    me.extra = {"SSL_CERT_FILE": server.ca}
    rc.write_text(
        f'poll mail.fubako.test via localhost port {port} with proto pop3 user "{user[0]}" password "{user[1]}" preconnect'
        f' "ssh -f -L {port}:localhost:110 pop.example.org sleep 20 >/dev/null"; mda "{filter_} {home}/.mailfilter/foo" keep\n'
    )
    rc.chmod(0o600)
    code, said, error = me.run("fetch", "--fetchmailrc", str(rc), "--json")
    assert code == 0 and "TLSv1.3" in json.loads(said)["hop"], error
    rc.write_text(
        f'poll localhost proto pop3 port {server.port("pop3s")}\n user "{user[0]}"\n password "{user[1]}"\n ssl\n'
        f' sslfingerprint "{pem.partition("=")[2].strip()}"\n mda "{filter_} {home}/.mailfilter/foo"\n'
    )
    deliver(server, user, b"Subject: second\r\n\r\nx\r\n")
    code, _, error = me.run("fetch", "--fetchmailrc", str(rc))
    assert code == 0 and "sslfingerprint is MD5" in error, error
    # another port is another server, from which the first message was never fetched
    assert (home / "dropped").read_bytes().count(b"Subject: ") == 3 and kept(server, user) == []
    rc.chmod(0o644)
    assert me.run("fetch", "--fetchmailrc", str(rc))[0] == 78


def test_the_seed_form_of_a_fetchmailrc():
    text = (
        'poll foo via localhost port 11110 with proto pop3 user "joe" there with password "p" preconnect'
        ' "ssh -f -q -C u@h -L 11110:h:110 sleep 20 < /dev/null > /dev/null" is joe here ssl sslfingerprint "AA:BB"'
        ' sslcertck sslcertpath /etc/ssl/certs mda "/usr/bin/procmail -d %T"'
    )
    (poll,) = fetchmailrc.parse(text)
    account = poll.account
    assert (account.host, account.port, account.protocol, account.tls, account.server_name) == (
        "localhost",
        11110,
        "pop3",
        "implicit",
        "foo",
    )
    assert (account.user, poll.password, account.recipient, account.trust) == ("joe", "p", "joe", ("sha256:aabb",))
    assert (
        account.mda == ("/bin/sh", "-c", "/usr/bin/procmail -d '%T'")
        and account.preconnect.startswith("ssh -f")
        and not account.keep
    )


@pytest.mark.parametrize(
    "text",
    [
        "user x",
        "poll",
        'poll a "b',
        "poll a user",
        "poll a frobnicate",
        "poll a preconnect x user y",
        "poll a proto gopher user x",
    ],
)
def test_a_fetchmailrc_that_cannot_be_meant(text):
    with pytest.raises(fetchmailrc.FetchmailFault):
        fetchmailrc.parse(text)


def test_defaults_and_several_users():
    polls = fetchmailrc.parse(
        "set daemon 60\ndefaults proto imap keep\n# a comment\nskip old user z\n"
        "poll a.test user x pass 'p 1' folder INBOX Lists user y no keep\n"
    )
    assert [(one.account.user, one.account.protocol, one.account.keep, one.account.folders) for one in polls] == [
        ("x", "imap", True, ("INBOX", "Lists")), ("y", "imap", False, ("INBOX",)),
    ]  # fmt: skip
    assert polls[0].password == "p 1" and polls[0].account.tls == "starttls"

"""Text from the wire, or from a command line, is an address and nothing else: the doors that tests/delivery/test_doors.py leaves
out, as processes of their own. An audit hook is in each of them from its start, and in the workers that it forks.

Left out: what C libraries do themselves; the workers for long work (`births`), which are handed octets and no address;
`fubako send --direct`, whose queue is the server's.
"""

import base64
import json
import os
import shlex
import signal
import smtplib
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hostile import hostile
from server import FUBAKO, Server
from test_ssh import Door

from fubako.message.address import AddressError, parse_address

WATCHED = Path(__file__).parents[1] / "delivery" / "watched_program.py"
HARD = [0, 9, 26, 31, 32]  # of hostile.LOCALS: those that have a process of their own each
BODY = "Subject: x\r\n\r\nx\r\n"


class Relay(socketserver.ThreadingTCPServer):
    """Where everything goes that is not for here: takes it."""

    daemon_threads, allow_reuse_address, request_queue_size = True, True, 128

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"220 relay.test\r\n")
            while line := self.rfile.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    self.wfile.write(b"250-relay.test\r\n250-SMTPUTF8\r\n250-8BITMIME\r\n250 PIPELINING\r\n")
                elif verb == b"RCPT":
                    self.server.recipients.append(line.decode().partition("<")[2].rpartition(">")[0])
                    self.wfile.write(b"250 2.1.5 ok\r\n")
                elif verb == b"DATA":
                    self.wfile.write(b"354 go\r\n")
                    while self.rfile.readline() not in (b".\r\n", b""):
                        pass
                    self.wfile.write(b"250 2.0.0 ok\r\n")
                else:
                    self.wfile.write(b"250 2.0.0 ok\r\n")

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.recipients: list[str] = []


class House:
    """A server with alice@here.test and a catch-all, whose every process is watched."""

    def __init__(self, root: Path, relay: int) -> None:
        self.root, self.here = root, root / "house"
        self.seen_file = root / "seen"
        self.server = Server(self.here).start()
        assert self.server.stop() == 0
        config = self.here / "fubako.toml"
        head, first, rest = config.read_text().partition("\n[")
        config.write_text(
            f'{head}\nconfine = "off"\n[limits]\nunknown_recipients = 0\n[[route]]\ndomain = "*"\nto = "smtp://127.0.0.1:{relay}"\n'
            f"{first}{rest}"
        )
        for words in (("domain", "add", "here.test"), ("alias", "add", "@here.test", "alice@here.test")):
            done = self.server.fubako(*words)
            assert done.returncode == 0, done.stderr
        made = self.server.fubako("user", "add", "alice@here.test", "--json")
        self.user = ("alice@here.test", json.loads(made.stdout)["password"])
        self.names = root / "bin"
        assert self.server.fubako("compat", "install", str(self.names)).returncode == 0

    def start(self, *words: str, root: Path | None = None, **more) -> subprocess.Popen:
        with self.seen_file.open("ab") as seen:
            return subprocess.Popen(
                [sys.executable, str(WATCHED), str(seen.fileno()), str(root or self.here), *words], pass_fds=[seen.fileno()], **more
            )  # fmt: skip

    def run(self, *words: str, given: str = "", **more) -> int:
        """The program's exit code; it never shows a traceback."""
        process = self.start(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
        said, wrong = process.communicate(given.encode("utf-8", "surrogateescape"), timeout=100)
        assert b"Traceback" not in wrong + said, wrong.decode()
        return process.returncode

    def fubako(self, *words: str, given: str = "") -> int:
        return self.run(FUBAKO, *words, "--config", str(self.here / "fubako.toml"), given=given)

    @contextmanager
    def served(self):
        process = self.start(
            FUBAKO,
            "serve",
            "--config",
            str(self.here / "fubako.toml"),
            "--workers",
            "1",
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            for line in process.stderr:
                if "serve.started" in line:
                    break
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield process
            self._until_carried()
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0

    def _until_carried(self) -> None:
        end = time.monotonic() + 60
        while not all(
            row["attempts"] for row in json.loads(self.server.fubako("queue", "list", "--json").stdout or "[]")
        ):
            assert time.monotonic() < end
            time.sleep(0.2)

    def seen(self) -> list[str]:
        """What was started or changed outside of the house, but for forks and the workers for long work."""
        lines = self.seen_file.read_text("utf-8", "surrogateescape").splitlines() if self.seen_file.exists() else []
        return [line for line in lines if not line.startswith("os.fork ") and ".births'" not in line]


@pytest.fixture(scope="module")
def only_relay():
    with Relay() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def only_house(tmp_path_factory, only_relay):
    root = tmp_path_factory.mktemp("doors")
    made = House(root, only_relay.server_address[1])
    made.texts = [text.replace("\r", "").replace("\n", "") for text in hostile(root)]
    made.good = []
    for text in made.texts:
        try:
            made.good.append(str(parse_address(text)))
        except AddressError:
            continue
    return made


@pytest.fixture
def relay(only_relay):
    only_relay.recipients.clear()
    return only_relay


@pytest.fixture
def house(only_house):
    only_house.seen_file.unlink(missing_ok=True)
    yield only_house
    assert only_house.seen() == []
    assert not list(only_house.root.glob("pwned*"))


def dialogue(texts, sender: str = "alice@here.test") -> str:
    """A batch of SMTP commands: the content is read where its recipient was refused, too."""
    return "".join(
        f"MAIL FROM:<{sender}> SMTPUTF8\r\nRCPT TO:<{text}>\r\nBDAT {len(BODY)} LAST\r\n{BODY}RSET\r\n"
        for text in texts
    )


def header(texts) -> str:
    return (
        "".join(f"{name}: {text}, <{text}>\n" for text in texts for name in ("To", "Cc", "Bcc")) + "Subject: -t\n\nx\n"
    )


# -- TLS and SSH


def by_tls(house, service: str, log_in: bool) -> int:
    """How many messages were taken."""
    context, port = ssl.create_default_context(cafile=house.server.ca), house.server.port(service)

    def connected():
        if service == "submissions":
            client = smtplib.SMTP_SSL("localhost", port, context=context, timeout=60)
        else:
            client = smtplib.SMTP("localhost", port, timeout=60)
            client.starttls(context=context)
        client.ehlo()
        if log_in:
            client.login(*house.user)
        return client

    def said(octets: bytes) -> int:
        client.send(octets + b"\r\n")
        return client.getreply()[0]

    client, taken = connected(), 0
    for text in house.texts:
        try:
            for line in ("MAIL FROM:<alice@here.test> SMTPUTF8", f"RCPT TO:<{text}>", "DATA"):
                if said(line.encode("utf-8", "surrogateescape")) >= 400:
                    said(b"RSET")
                    break
            else:
                taken += said(b"Subject: x\r\n\r\nx\r\n.") == 250
        except smtplib.SMTPServerDisconnected:
            client = connected()
    client.close()
    return taken


@pytest.mark.parametrize(("service", "log_in"), [("smtp", False), ("submission", True), ("submissions", True)])
def test_over_tls(house, relay, service, log_in):
    with house.served():
        assert by_tls(house, service, log_in) > 50
    assert bool(relay.recipients) is log_in


def test_over_ssh(house, relay, home, needs):
    needs("ssh", "ssh-keygen")
    with house.served():
        door = Door(house.server, house.user, home)
        code, said, _ = door.ssh("door", "smtpd", stdin=b"EHLO x\r\n" + dialogue(house.good).encode() + b"QUIT\r\n")
        assert code == 0 and said.count(b"250 2.0.0 ok") > 50
        for command in ("sendmail -i -t", "rmail"):
            words = (
                [] if command.endswith("-t") else [shlex.quote(one) for one in house.good if not one.startswith("-")]
            )
            code, _, error = door.ssh("door", f"{command} {' '.join(words)}", stdin=header(house.good).encode())
            assert code in (0, 67), error
        for number in HARD:
            text = house.texts[number * 11]
            if text.isprintable():
                door.ssh("door", f"sendmail -i {shlex.quote(text)}", stdin=b"Subject: x\n\nx\n")
    assert len(set(relay.recipients)) > 50


# -- command lines


def test_command_lines(house, relay):
    words = [one for one in house.good if not one.startswith("-")]
    names = {name: str(house.names / name) for name in ("sendmail", "rmail", "rsmtp", "qmail-inject", "mailq")}
    letter = "Subject: x\n\nx\n"
    assert house.run(names["sendmail"], "-i", "-f", "alice@here.test", "--", *words, given=letter) == 0
    assert (
        house.run(names["rmail"], *words, given=f"From alice Thu Nov 26 15:00:00 2026 remote from here.test\n{letter}")
        == 0
    )
    assert house.run(names["qmail-inject"], "-falice@here.test", "--", *words, given=letter) == 0
    for field in ("", "Resent-To: ", "Resent-Bcc: "):
        more = "".join(f"{field}{one}\n" for one in words) if field else ""
        assert house.run(names["sendmail"], "-i", "-t", given=more + header(house.texts)) == 0
    assert house.run(names["qmail-inject"], "-h", given=header(house.texts)) == 0
    for number in HARD:
        text = house.texts[number * 11].replace("\0", "")
        house.run(names["sendmail"], "-i", text, given=letter)
        house.run(names["sendmail"], "-i", "-f", text, "alice@here.test", given=letter)
        house.run(names["rmail"], text, given=f"From {text} Thu Nov 26 15:00:00 2026\n{letter}")
        house.run(names["qmail-inject"], f"-f{text}", text, given=letter)
    assert house.run(names["mailq"]) == 0
    with house.served():
        pass
    assert len(set(relay.recipients)) > 50


def test_sessions_on_standard_input(house, relay):
    names = {name: str(house.names / name) for name in ("sendmail", "rsmtp")}
    for words in ((names["sendmail"], "-bs"), (names["sendmail"], "-bS"), (names["rsmtp"],)):
        greeting = "EHLO x\r\n" if words[-1] == "-bs" else ""
        house.run(*words, given=greeting + dialogue(house.good) + ("QUIT\r\n" if greeting else ""))
    assert house.fubako("smtpd", "--user", "alice@here.test", given=f"EHLO x\r\n{dialogue(house.good)}QUIT\r\n") == 0
    login = base64.b64encode("\0".join(("", *house.user)).encode()).decode()
    said = f"EHLO x\r\nAUTH PLAIN {login}\r\n{dialogue(house.good)}QUIT\r\n"
    assert house.fubako("smtpd", "--trusted-pipe", given=said) == 0
    assert house.fubako("lmtpd", given=f"LHLO x\r\n{dialogue(house.good, 'eve@evil.test')}QUIT\r\n") == 0
    with house.served():
        pass
    assert len(set(relay.recipients)) > 50


# -- the client: a program that its user named is started, and nothing else


def test_send_by_a_program(house, tmp_path):
    heard, script, home = tmp_path / "heard", tmp_path / "program", tmp_path / "home"
    script.write_text(
        f"#!{sys.executable}\nimport json, sys\nsys.stdin.read()\n"
        f"open({str(heard)!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n"
    )
    script.chmod(0o755)
    home.mkdir(mode=0o700)
    accounts = home / "accounts.toml"
    program = json.dumps([str(script), "-f", "%F", "--", "%T"])
    accounts.write_text(
        f'[[account]]\nname = "out"\nprotocol = "smtp"\nuser = "alice@here.test"\nprogram = {program}\n'
    )
    accounts.chmod(0o600)
    words = [one for one in house.good if not one.startswith("-")]
    env = {**os.environ, "FUBAKO_HOME": str(home)}
    letter = "Subject: x\n\nx\n"
    sending = (FUBAKO, "send", "--accounts", str(accounts))
    assert house.run(*sending, "--", *words, given=letter, root=home, env=env) == 0
    assert house.run(*sending, "-t", given=header(words), root=home, env=env) == 0
    for names in ("Resent-To", "Resent-Bcc"):
        more = "".join(f"{names}: {one}\n" for one in words)
        assert house.run(*sending, "-t", given=more + header([]), root=home, env=env) == 0
    for text in ("-X@x.test", '"-oQ/tmp"@x.test', "-oQ/tmp"):
        assert house.run(*sending, "--", text, given=letter, root=home, env=env) != 0
    for sender in ("-X@x.test", '"a b%T"@here.test', '"$(id)"@here.test'):
        house.run(*sending, "-f", sender, "--", *words[:9], given=letter, root=home, env=env)
    said = [json.loads(line) for line in heard.read_text().splitlines()]
    assert len(said) == 6
    for first, sender, separator, *people in said:
        assert (first, separator) == ("-f", "--") and not sender.startswith("-")
        assert people and all(str(parse_address(one)) == one and not one.startswith("-") for one in people)
    assert said[0][3:] == list(dict.fromkeys(words))
    started = house.seen()
    assert len(started) == 6 and all(line.startswith(f"subprocess.Popen ({str(script)!r}") for line in started)
    house.seen_file.unlink()


def test_the_hook_is_in_every_process(house, tmp_path):
    """A program that an administrator's alias names is seen to start, in the worker that was forked."""
    if os.geteuid() == 0:
        assert house.server.fubako("alias", "add", "list@here.test", "|/bin/cat", "--user", "nobody").returncode == 0
    else:
        assert house.server.fubako("alias", "add", "list@here.test", "|/bin/cat").returncode == 0
    with house.served(), smtplib.SMTP("localhost", house.server.port("smtp"), timeout=60) as client:
        client.sendmail("eve@evil.test", ["list@here.test"], "Subject: x\r\n\r\nx\r\n")
    assert any("/bin/cat" in line and line.startswith("subprocess.Popen") for line in house.seen())
    house.seen_file.unlink()

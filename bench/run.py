"""Every claim of speed, beside Postfix and Dovecot in the same run: one line each, a ratio is the result.

python bench/run.py [NAME …] [--rounds 3]
"""

import argparse
import asyncio
import base64
import functools
import hashlib
import imaplib
import multiprocessing
import os
import random
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from ours import FUBAKO, MECHANISMS, Fubako, certificate
from peers import USERS, Dovecot, Postfix, free_port, wait_port

from fubako.accounts.secrets import SCRAM_ITERATIONS
from fubako.protocol.sasl import offer, scram
from fubako.protocol.sasl.mechanism import Binding

hashlib.pbkdf2_hmac = functools.lru_cache(100)(hashlib.pbkdf2_hmac)  # a client derives the keys of a password once

MAILBOX = 10_000
QUEUED = 100_000
LOGINS = 400


def letter(number: int = 0, words: str = "") -> bytes:
    """5 KiB of text, as people write it."""
    rng = random.Random(number)
    vocabulary = [
        "meeting",
        "report",
        "letter",
        "budget",
        "travel",
        "question",
        "answer",
        "garden",
        "mountain",
        "会議",
        "監査",
        "資料",
    ]
    lines = []
    while sum(len(line.encode()) + 2 for line in lines) < 4700:
        lines.append(" ".join(rng.choice(vocabulary) + str(rng.randint(0, 999)) for _ in range(7)))
    return (
        f"From: Sender {number} <sender{number}@elsewhere.test>\r\nTo: User <user@fubako.test>\r\nCc: a@b.test, C D <c@d.test>\r\n"
        f"Subject: letter {number} about {rng.choice(vocabulary[:9])}\r\nDate: Sun, 22 Nov 2026 12:{number % 60:02d}:00 +0900\r\n"
        f"Message-ID: <{number}.bench@elsewhere.test>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Transfer-Encoding: 8bit\r\n\r\n" + words + "\r\n".join(lines) + "\r\n"
    ).encode()


class Sink:
    """Postfix's smtp-sink, and how many letters it has taken."""

    def __init__(self, log: Path) -> None:
        self.port, self.log = free_port(), log

    def __enter__(self) -> "Sink":
        self.file = self.log.open("wb")
        command = ["smtp-sink", "-u", "nobody", "-c", f"127.0.0.1:{self.port}", "200"]
        self.process = subprocess.Popen(command, stdout=self.file, stderr=subprocess.DEVNULL)
        wait_port(self.port)
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.terminate()
        self.process.wait(10)
        self.file.close()

    def wait(self, count: int, seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = re.findall(rb"mesg=(\d+)", self.log.read_bytes()[-200:])
            if found and int(found[-1]) >= count:
                return
            time.sleep(0.005)
        raise RuntimeError(f"the sink did not get {count} letters: {self.log.read_bytes()[-200:]!r}")


class Bench:
    def __init__(self, root: Path, rounds: int) -> None:
        self.root, self.rounds = root, rounds
        self.driver = root / "driver"
        source = Path(__file__).with_name("driver.c")
        subprocess.run(["cc", "-O2", "-o", str(self.driver), str(source), "-lssl", "-lcrypto"], check=True)
        self.ca, self.chain, self.key = certificate(root)
        content = letter()
        (root / "letter").write_bytes((b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n")
        self.count = 0

    def folder(self, name: str) -> Path:
        self.count += 1
        return self.root / f"{name}{self.count}"

    def ours(self, workers: int = 2) -> Fubako:
        return Fubako(self.folder("fubako"), self.chain, self.key, workers=workers).start()

    def dovecot(self, kept: str = "") -> Dovecot:
        return Dovecot(self.folder("dovecot"), self.chain, self.key, kept=kept).start()

    def postfix(self, dovecot: Dovecot | None = None) -> Postfix:
        return Postfix(self.folder("postfix"), self.chain, self.key, dovecot).start()

    def drive(self, port: int, script: str, count: int, concurrent: int, tls: bool) -> float:
        """Conversations a second."""
        path = self.root / "script"
        path.write_text(script)
        done = subprocess.run(
            [str(self.driver), "127.0.0.1", str(port), str(count), str(concurrent), str(int(tls)), str(path)],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr[-500:])
        return float(done.stdout.split()[0])

    def smtp(self, auth: str = "") -> str:
        login = f"> AUTH PLAIN {auth}\n< 235\n" if auth else ""
        sender = "user1@fubako.test" if auth else "sender@elsewhere.test"
        return (
            f"mod {USERS}\n< 220\n> EHLO bench.test\n< 250\n{login}> MAIL FROM:<{sender}>\n< 250\n> RCPT TO:<user%d@fubako.test>\n"
            f"< 250\n> DATA\n< 354\n@ {self.root}/letter\n< 250\n> QUIT\n< 221\n"
        )

    def report(
        self, name: str, unit: str, ours: list[float], peer: list[float], who: str, more_is_better: bool = True
    ) -> None:
        """Medians, and the ratio: of rounds that ran side by side each round has its own, because the machine's speed moves."""
        a, b = statistics.median(ours), statistics.median(peer)
        pairs = list(zip(ours, peer, strict=True)) if len(ours) == len(peer) else [(a, b)]
        ratios = sorted(x / y if more_is_better else y / x for x, y in pairs)
        spread = f" ({ratios[0]:.2f} to {ratios[-1]:.2f})" if len(ratios) > 2 else ""
        ratio = statistics.median(ratios)
        print(
            f"{name:<14} fubako {a:>9.1f} {unit:<10} {who} {b:>9.1f} {unit:<10} ratio {ratio:.2f}{spread}", flush=True
        )

    # -- claims

    def accept(self) -> None:
        """5 KiB letters over plain SMTP, a session a letter, 20 at once."""
        ours, postfix = self.ours(), self.postfix()
        try:
            for port in (ours.ports["smtp"], postfix.ports["smtp"]):
                self.drive(port, self.smtp(), 300, 20, tls=False)
            a, b = [], []
            for _ in range(self.rounds):
                a.append(self.drive(ours.ports["smtp"], self.smtp(), 2000, 20, tls=False))
                time.sleep(0.5)
                b.append(self.drive(postfix.ports["smtp"], self.smtp(), 700, 20, tls=False))
                time.sleep(3)  # let Postfix's queue run empty
            self.report("accept", "letters/s", a, b, "postfix")
        finally:
            ours.stop()
            postfix.stop()

    def relay(self) -> None:
        """5 KiB letters in by plain SMTP and on to a sink, until the sink has the last one."""
        a, b = [], []
        for number in range(self.rounds):
            for rates, kind, count in ((a, "fubako", 2000), (b, "postfix", 1000)):
                with Sink(self.root / f"sink-{kind}-{number}") as sink:
                    folder = self.folder(kind)
                    make = Fubako if kind == "fubako" else Postfix
                    server = make(folder, self.chain, self.key, sink=sink.port).start()
                    try:
                        script = self.smtp().replace("user%d@fubako.test", "user%d@far.test")
                        self.drive(server.ports["smtp"], script, 100, 20, tls=False)
                        sink.wait(100)
                        start = time.monotonic()
                        self.drive(server.ports["smtp"], script, count, 20, tls=False)
                        sink.wait(100 + count)
                        rates.append(count / (time.monotonic() - start))
                    finally:
                        server.stop()
        self.report("relay", "letters/s", a, b, "postfix")

    def queue(self) -> None:
        """With 100,000 letters in the queue: from the start to the first one that is due, and each command of an administrator."""
        seconds = {}
        for count in (0, QUEUED):
            with Sink(self.root / f"sink-queue-{count}") as sink:
                server = Fubako(self.folder("fubako"), self.chain, self.key, sink=sink.port).prepare()
                asyncio.run(server.fill(count))
                start = time.monotonic()
                server.start()
                try:
                    sink.wait(1)
                    seconds[count] = time.monotonic() - start
                    if count:
                        self.queue_commands(
                            server, ("list", "show 0-1", "why 0-1", "summary", "hold --all", "retry --all")
                        )
                finally:
                    server.stop()
        print(
            f"queue          first letter out {seconds[0]:.2f} s after the start, with {QUEUED} that wait {seconds[QUEUED]:.2f} s"
        )
        self.queue_commands(server, ("drop --domain d7.test", "release --all", "requeue --all", "drop --all"))

    def queue_commands(self, server: Fubako, commands: Sequence[str]) -> None:
        for command in commands:
            words = [FUBAKO, "queue", *command.split(), "--config", str(server.config)]
            start = time.monotonic()
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            print(f"queue          {command:<22} {time.monotonic() - start:.2f} s", flush=True)

    def mailboxes(self) -> None:
        """Into 100 mailboxes until IMAP shows them: the clock stops when the last mailbox has its last letter."""
        ours, dovecot = self.ours(), self.dovecot()
        postfix = self.postfix(dovecot)
        count = 2000
        try:
            a, b = [], []
            shown_a = shown_b = 0
            for _ in range(self.rounds):
                shown_a += count // USERS
                a.append(
                    self.until_shown(
                        ours.ports["smtp"], ours.ports["imap"], ours, count, shown_a, tls_port=ours.ports["imaps"]
                    )
                )
                shown_b += count // USERS
                b.append(
                    self.until_shown(
                        postfix.ports["smtp"],
                        dovecot.ports["imap"],
                        dovecot,
                        count,
                        shown_b,
                        tls_port=dovecot.ports["imaps"],
                    )
                )
            self.report("mailboxes", "letters/s", a, b, "postfix+dovecot")
        finally:
            ours.stop()
            postfix.stop()
            dovecot.stop()

    def until_shown(self, smtp: int, _imap: int, server, count: int, wanted: int, tls_port: int) -> float:
        clients = [self.imap(tls_port, f"user{i}", server.password) for i in range(0, USERS, 10)]
        start = time.monotonic()
        self.drive(smtp, self.smtp(), count, 20, tls=False)
        waiting = set(range(len(clients)))
        while waiting:
            for i in list(waiting):
                if int(clients[i].select("INBOX", readonly=True)[1][0]) >= wanted:
                    waiting.discard(i)
        seconds = time.monotonic() - start
        for client in clients:
            client.logout()
        return count / seconds

    def imap(self, port: int, user: str, password: str) -> imaplib.IMAP4_SSL:
        context = ssl.create_default_context(cafile=str(self.ca))
        client = imaplib.IMAP4_SSL("localhost", port, ssl_context=context)
        client.login(f"{user}@fubako.test", password)
        return client

    def auth(self) -> None:
        """AUTH PLAIN over TLS on 465, a connection a letter."""
        ours, dovecot = self.ours(), self.dovecot()
        postfix = self.postfix(dovecot)
        secret = base64.b64encode(f"\0user1@fubako.test\0{ours.password}".encode()).decode()
        try:
            a, b = [], []
            self.drive(ours.ports["submissions"], self.smtp(secret), 100, 4, tls=True)
            self.drive(postfix.ports["submissions"], self.smtp(secret), 50, 4, tls=True)
            for _ in range(self.rounds):
                a.append(self.drive(ours.ports["submissions"], self.smtp(secret), 900, 20, tls=True))
                time.sleep(0.5)
                b.append(self.drive(postfix.ports["submissions"], self.smtp(secret), 300, 20, tls=True))
                time.sleep(3)
            self.report("auth", "letters/s", a, b, "postfix+dovecot")
        finally:
            ours.stop()
            postfix.stop()
            dovecot.stop()

    def login(self) -> None:
        """Login, SELECT, LOGOUT over TLS, 20 at once."""
        ours, dovecot = self.ours(), self.dovecot()
        script = (
            "mod 100\n<< * OK\n> a LOGIN user%d@fubako.test \"benchmark password\"\n<< a OK\n> b SELECT INBOX\n<< b OK\n"
            "> c LOGOUT\n<< c OK\n"
        )  # fmt: skip
        try:
            for server in (ours, dovecot):
                self.drive(server.ports["imaps"], script, 400, 4, tls=True)
            a, b = [], []
            for _ in range(self.rounds):
                a.append(self.drive(ours.ports["imaps"], script, 2000, 20, tls=True))
                b.append(self.drive(dovecot.ports["imaps"], script, 2000, 20, tls=True))
            self.report("login", "logins/s", a, b, "dovecot")
        finally:
            ours.stop()
            dovecot.stop()

    def mechanisms(self) -> None:
        """Logins over TLS by mechanism, a connection each, 8 at once; and the processor time of the server for one."""
        ours = self.ours()
        try:
            for name in MECHANISMS:
                # Dovecot too has SCRAM's keys at hand
                dovecot = self.dovecot(scram_kept(name, ours.password) if name in offer.SCRAM else "")
                try:
                    self.side_by_side(name, ours, dovecot)
                finally:
                    dovecot.stop()
        finally:
            ours.stop()

    def side_by_side(self, name: str, ours: Fubako, dovecot: Dovecot) -> None:
        for server in (ours, dovecot):
            logins(server.ports["imaps"], self.ca, name, server.password, 40)
        rates, costs = ([], []), ([], [])
        for _ in range(self.rounds):
            for i, server in enumerate((ours, dovecot)):
                before = processor_seconds(server.process.pid)
                rates[i].append(logins(server.ports["imaps"], self.ca, name, server.password, LOGINS))
                costs[i].append((processor_seconds(server.process.pid) - before) / LOGINS * 1000)
        self.report(name.lower(), "logins/s", *rates, "dovecot")
        self.report("  processors", "ms/login", *costs, "dovecot", more_is_better=False)

    def fill(self, server, count: int) -> None:
        """`count` different letters into user1's INBOX."""
        context = ssl.create_default_context(cafile=str(self.ca))
        sock = context.wrap_socket(
            socket.create_connection(("127.0.0.1", server.ports["imaps"])), server_hostname="localhost"
        )
        file = sock.makefile("rb")
        file.readline()
        sock.sendall(b'a LOGIN user1@fubako.test "benchmark password"\r\n')
        while not file.readline().startswith(b"a "):
            pass
        for start in range(0, count, 200):
            block = b"b APPEND INBOX"
            for number in range(start, start + 200):
                content = letter(number, "needleword " if number % 100 == 7 else "")
                block += b" {%d+}\r\n" % len(content) + content
            sock.sendall(block + b"\r\n")
            line = file.readline()
            assert line.startswith(b"b OK"), line
        sock.close()

    def filled(self):
        ours, dovecot = self.ours(), self.dovecot()
        for server in (ours, dovecot):
            self.fill(server, MAILBOX)
        return ours, dovecot

    def timed(self, server, command: str, rounds: int, expect: int) -> list[float]:
        client = self.imap(server.ports["imaps"], "user1", server.password)
        client.select("INBOX", readonly=True)
        seconds = []
        for _ in range(rounds):
            start = time.monotonic()
            client.send(f"x1 {command}\r\n".encode())
            count = 0
            while not (line := client.readline()).startswith(b"x1 "):
                count += (line.startswith(b"* ") and (b"FETCH" in line or 0)) or len(line.split()) - 2
                while line.endswith(b"}\r\n"):
                    client.read(int(line.rpartition(b"{")[2][:-3]))
                    line = client.readline()
            seconds.append((time.monotonic() - start) * 1000)
            assert line.startswith(b"x1 OK"), line
            assert count == expect, (count, expect)
        client.logout()
        return seconds

    def fetch(self) -> None:
        """FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE) of 10,000."""
        ours, dovecot = self.filled()
        command = "FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)"
        try:
            first = self.timed(ours, command, 1, MAILBOX)
            first_peer = self.timed(dovecot, command, 1, MAILBOX)
            a = self.timed(ours, command, 5, MAILBOX)
            b = self.timed(dovecot, command, 5, MAILBOX)
            self.report("fetch warm", "ms", a, b, "dovecot", more_is_better=False)
            self.report("fetch first", "ms", first, first_peer, "dovecot", more_is_better=False)
            for needle, expect in (("needleword", MAILBOX // 100), ("eedlewor", MAILBOX // 100)):
                first = self.timed(ours, f"SEARCH BODY {needle}", 1, expect)
                a = self.timed(ours, f"SEARCH BODY {needle}", 5, expect)
                b = self.timed(dovecot, f"SEARCH BODY {needle}", 3, expect)
                self.report(f"search {needle[:7]}", "ms", a, b, "dovecot", more_is_better=False)
                print(f"               (the first search, which makes the index: {first[0]:.0f} ms)")
            self.pop3(ours, dovecot)
        finally:
            ours.stop()
            dovecot.stop()

    def pop3(self, ours, dovecot) -> None:
        """RETR of 1,000 over TLS, one after the other."""
        script = "<< +OK\n> USER user1@fubako.test\n<< +OK\n> PASS benchmark password\n<< +OK\n"
        script += "".join(f"> RETR {n}\n<< +OK\n<< .\n" for n in range(1, 61)) + "> QUIT\n<< +OK\n"
        # one connection at a time: the maildrop is locked; 60 letters in each
        a, b = [], []
        for _ in range(self.rounds):
            a.append(60 * self.drive(ours.ports["pop3s"], script, 17, 1, tls=True))
            b.append(60 * self.drive(dovecot.ports["pop3s"], script, 17, 1, tls=True))
        self.report("pop3 retr", "letters/s", a, b, "dovecot")

    def pull(self) -> None:
        """10,000 letters of 5 KiB from Dovecot over TLS into a Maildir; mbsync, and fetchmail with an MDA that appends."""
        dovecot = self.dovecot()
        folder = dovecot.root / "mail" / "user1" / "Maildir"
        for part in ("cur", "new", "tmp"):
            (folder / part).mkdir(parents=True)
        body = "\n".join("x" * 70 for _ in range(71))
        for number in range(MAILBOX):
            (folder / "new" / f"{1_700_000_000 + number}.M{number}.bench").write_text(f"Subject: {number}\n\n{body}\n")
        for path in (dovecot.root / "mail" / "user1", *(dovecot.root / "mail" / "user1").rglob("*")):
            os.chown(path, 1000, 1000)
        home = self.root / "pull"
        home.mkdir()
        secret, port = home / "secret", dovecot.ports["imaps"]
        secret.write_text(dovecot.password + "\n")
        secret.chmod(0o600)
        (home / "accounts.toml").write_text(
            f'[[account]]\nname = "a"\nhost = "localhost"\nport = {port}\nuser = "user1@fubako.test"\n'
            f'password_file = "{secret}"\ntrust = ["{self.ca}"]\ndeliver = "maildir:{home}/ours"\n'
        )
        (home / "mbsyncrc").write_text(
            f'IMAPAccount a\nHost localhost\nPort {port}\nUser user1@fubako.test\nPass "{dovecot.password}"\nSSLType IMAPS\n'
            f"CertificateFile {self.ca}\n\nIMAPStore far\nAccount a\n\nMaildirStore near\nInbox {home}/theirs\n"
            "SubFolders Verbatim\n\nChannel all\nFar :far:\nNear :near:\nSync Pull\nCreate Near\nSyncState *\n"
        )
        (home / "fetchmailrc").write_text(
            f'poll localhost proto imap port {port} user "user1@fubako.test" password "{dovecot.password}" ssl'
            f' sslcertfile "{self.ca}" keep fetchall mda "/bin/cat >> {home}/box"\n'
        )
        (home / "fetchmailrc").chmod(0o600)
        environment = {**os.environ, "FUBAKO_HOME": str(home), "FETCHMAILHOME": str(home), "HOME": str(home)}
        fubako = str(Path(sys.executable).parent / "fubako")

        def once(*words: str) -> tuple[float, int]:
            for name in ("ours", "theirs", "fetched"):
                shutil.rmtree(home / name, ignore_errors=True)
            began = time.perf_counter()
            process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0, (words, process.returncode)
            return MAILBOX / (time.perf_counter() - began), used.ru_maxrss // 1024

        try:
            rounds = max(1, self.rounds // 2)
            once(fubako, "fetch")  # the server has seen the mailbox, and every run removes the files of one before it
            mine = [once(fubako, "fetch") for _ in range(rounds)]
            mbsync = [once("mbsync", "-c", str(home / "mbsyncrc"), "-a") for _ in range(rounds)]
            fetchmail = [once("fetchmail", "-f", str(home / "fetchmailrc"))]
            self.report("pull", "letters/s", [a for a, _ in mine], [b for b, _ in mbsync], "mbsync")
            self.report("pull", "letters/s", [mine[0][0]], [fetchmail[0][0]], "fetchmail")
            print(f"  the most that fubako held: {max(held for _, held in mine)} MiB")
        finally:
            dovecot.stop()

    def memory(self) -> None:
        """PSS of the process tree: what 1,000 idle IMAP connections over TLS, logged in and selected, add; and the whole."""
        ours, dovecot = self.ours(), self.dovecot()
        try:
            for server in (ours, dovecot):  # what the first login makes stays
                self.imap(server.ports["imaps"], "user1", server.password).logout()
            time.sleep(3)
            a0, b0 = pss(ours.process.pid) / 1024, pss(dovecot.process.pid) / 1024
            a = self.idle(ours) / 1024
            b = self.idle(dovecot) / 1024
            self.report("memory", "MiB", [a - a0], [b - b0], "dovecot", more_is_better=False)
            self.report("memory, whole", "MiB", [a], [b], "dovecot", more_is_better=False)
        finally:
            ours.stop()
            dovecot.stop()

    def idle(self, server) -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        held = []
        for i in range(1000):
            sock = context.wrap_socket(socket.create_connection(("127.0.0.1", server.ports["imaps"])))
            file = sock.makefile("rb", buffering=0)
            sock.sendall(
                f'a LOGIN user{i % USERS}@fubako.test "benchmark password"\r\nb SELECT INBOX\r\nc IDLE\r\n'.encode()
            )
            data = b""
            while b"\r\n+ " not in data:
                data += sock.recv(65536)
            held.append((sock, file))
        time.sleep(2)
        total = pss(server.process.pid)
        for sock, file in held:
            file.close()
            sock.close()
        return total


def family(root: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def pss(root: int) -> int:
    """KiB of a process and all below it."""
    total = 0
    for pid in family(root):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def processor_seconds(root: int) -> float:
    """What a process and all below it, ended ones too, have used."""
    ticks = 0
    for pid in family(root):
        ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def scram_kept(name: str, password: str) -> str:
    """A password as Dovecot keeps it for one SCRAM mechanism."""
    keys = scram.derive(password, os.urandom(16), SCRAM_ITERATIONS, offer.SCRAM[name])
    parts = (base64.b64encode(part).decode() for part in (keys.salt, keys.stored_key, keys.server_key))
    return f"{{{name}}}{keys.iterations},{','.join(parts)}"


def logins(port: int, ca: Path, name: str, password: str, count: int) -> float:
    """Logins a second over TLS with one mechanism, by 8 processes. A client derives its SCRAM keys once."""
    with ProcessPoolExecutor(8, mp_context=multiprocessing.get_context("fork")) as pool:
        list(
            pool.map(_login, [(port, ca, name, password, 0)] * 16, chunksize=1)
        )  # every process stands, keys are derived
        start = time.monotonic()
        for _ in pool.map(_login, [(port, ca, name, password, i) for i in range(count)]):
            pass
        return count / (time.monotonic() - start)


def _login(task: tuple[int, Path, str, str, int]) -> None:
    port, ca, name, password, number = task
    context = ssl.create_default_context(cafile=str(ca))
    user = f"user{number % 4}@fubako.test"
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost") as sock:
        file = sock.makefile("rb")
        file.readline()
        sock.sendall(f"a AUTHENTICATE {name}\r\n".encode())
        _, dialogue = offer.client([name], offer.Proofs(user, password), os.urandom(12).hex(), Binding())
        response = next(dialogue)
        if name == "CRAM-MD5":  # nothing to say before the challenge
            response = dialogue.send(base64.b64decode(file.readline()[2:]))
        else:
            file.readline()
        while True:
            sock.sendall(base64.b64encode(response) + b"\r\n")
            line = file.readline()
            while line.startswith(b"* "):
                line = file.readline()
            if line[:1] == b"a":
                assert line.startswith(b"a OK"), line
                break
            response = dialogue.send(base64.b64decode(line[2:]))
        sock.sendall(b"b LOGOUT\r\n")
        file.read()


def main() -> int:
    names = ["accept", "relay", "queue", "mailboxes", "auth", "login", "mechanisms", "fetch", "pull", "memory"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names) + "; all when none is named")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    unknown = set(options.names) - set(names)
    if unknown:
        parser.error(f"no such claim: {', '.join(sorted(unknown))}")
    missing = [program for program in ("postfix", "dovecot", "cc") if not shutil.which(program)]
    if missing:
        print(
            f"not installed: {', '.join(missing)}; BENCH_PEERS=1 tests/install-programs installs the peers",
            file=sys.stderr,
        )
        return 69
    root = Path(tempfile.mkdtemp(prefix="fubako-bench-"))
    root.chmod(0o755)
    try:
        bench = Bench(root, options.rounds)
        for name in options.names or names:
            getattr(bench, name)()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

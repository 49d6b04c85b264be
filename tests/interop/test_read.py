"""`fubako read` in a real terminal (tmux): the list, a letter, its way, marks, patterns, a reply, the certificate screen; beside
our own server and Dovecot."""

import imaplib
import json
import os
import re
import ssl
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from memory_server import certificates
from peers import Dovecot
from server import FUBAKO
from test_fetch import User
from test_programs import Terminal, deliver, kept

LETTER = (
    b"From: =?utf-8?q?J=C3=BCrgen?= <j@elsewhere.test>\r\nTo: %s\r\nSubject: %s\r\nMessage-ID: <%s@elsewhere.test>\r\n"
    b"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n%s\r\n"
)


class Reader(User):
    """A home with an account to read and one to send, and the reader under tmux."""

    def __init__(self, server, user, home) -> None:
        super().__init__(server, user, home)
        self.terminal: Terminal | None = None
        self.runs = 0

    def settings(self, **more) -> None:
        self.account(**more)
        path = self.folder / "accounts.toml"
        smtp = {"name": "out", "protocol": "smtp", "host": "localhost", "port": self.server.port("submissions"),
                "user": self.user[0], "password_file": str(self.home / "secret"), "trust": [self.server.ca]}  # fmt: skip
        lines = [f"{name} = {json.dumps(value)}" for name, value in smtp.items()]
        path.write_text(path.read_text() + "[[account]]\n" + "\n".join(lines) + "\n")

    def start(self, *words: str, editor: str = "true", environment: str = "") -> Terminal:
        script = self.home / "start"
        given = " ".join(f"'{word}'" for word in words)
        script.write_text(
            f"#!/bin/sh\nexport FUBAKO_HOME={self.folder} HOME={self.home} EDITOR='{editor}' LC_ALL=C.UTF-8 TZ=UTC\n"
            "export TERM=screen-256color\n"
            f"{environment}\n{FUBAKO} read {given}\necho ended with $?\nsleep 60\n"
        )
        script.chmod(0o755)
        self.runs += 1
        self.terminal = Terminal(self.home, f"reader{self.runs}", str(script))
        return self.terminal


@pytest.fixture
def reader(server, user, home, needs):
    needs("tmux")
    made = Reader(server, user, home)
    yield made
    if made.terminal is not None:
        made.terminal.close()


def letter(user, subject: str, text: str = "hello", number: str = "1") -> bytes:
    return LETTER % (user[0].encode(), subject.encode(), number.encode(), text.encode())


def test_reading_marking_leaving(reader, server, user):
    """What was read, flagged and deleted is told to the server when the user leaves, and not before."""
    for number in range(4):
        deliver(server, user, letter(user, f"letter {number} 手紙", f"body {number}", str(number)))
    reader.settings()
    screen = reader.start().wait("letter 3")
    assert "4 letters, 4 unread" in screen and "Jürgen" in screen and "手紙" in screen
    assert "TLSv1.3" in screen and "SCRAM-SHA-256" in screen and "sealed" in screen  # the road
    assert "○" in screen  # handed in without TLS: open
    t = reader.terminal
    t.keys("=", "Enter")
    screen = t.wait("body 0")
    assert "Subject: letter 0 手紙" in screen and "Seal: ○ open" in screen
    t.keys("J")
    screen = t.wait("way of")
    assert "NOT ENCRYPTED" in screen and "from there to here" in screen
    t.keys("q", "j")
    t.wait("body 1")
    t.keys("q")
    t.wait("2 unread")
    t.keys("F", "d", "d")
    t.wait("2 deleted")
    assert len(kept(server, user)) == 4  # nothing was told yet
    t.keys("q")
    t.wait("Delete 2 for good")
    t.keys("y")
    t.wait("ended with 0")
    assert sorted(re.search(rb"Subject: letter (\d)", one).group(1) for one in kept(server, user)) == [b"0", b"3"]


def test_leaving_without_telling(reader, server, user):
    deliver(server, user, letter(user, "one"))
    reader.settings()
    t = reader.start()
    t.wait("1 letters, 1 unread")
    t.keys("d", "x")
    t.wait("ended with 0")
    t.close()
    t = reader.start()
    t.wait("1 letters, 1 unread")
    assert len(kept(server, user)) == 1


def test_threads_over_letters_that_are_not_here(reader, server, user):
    """What is answered was deleted: References names the letter before it."""
    answers = ((b"c", b"In-Reply-To: <b@x>\r\nReferences: <a@x>\r\n <b@x>\r\n"), (b"d", b"References: <a@x>\r\n"))
    deliver(server, user, b"From: ann@x\r\nSubject: plan\r\nMessage-ID: <a@x>\r\n\r\nx\r\n")
    deliver(server, user, b"From: eve@x\r\nSubject: other\r\nMessage-ID: <e@x>\r\n\r\nx\r\n")
    for name, fields in answers:
        deliver(
            server,
            user,
            b"From: bob@x\r\nSubject: Re: plan %b\r\nMessage-ID: <%b@x>\r\n%b\r\nx\r\n" % (name, name, fields),
        )
    reader.settings()
    t = reader.start()
    assert "└▶" not in t.wait("4 letters")
    t.keys("o")
    rows = [row for row in t.wait("└▶Re: plan d").splitlines() if "plan" in row]
    assert ["└▶" in row for row in rows] == [False, True, True], rows
    assert "└▶Re: plan c" in rows[1]


def test_patterns(reader, server, user):
    for number, (subject, text) in enumerate([("plan A", "alpha"), ("plan B", "beta"), ("other", "手紙 gamma")]):
        deliver(server, user, letter(user, subject, text, str(number)))
    reader.settings()
    t = reader.start()
    t.wait("3 letters")
    t.keys("l", "plan !~b beta", "Enter")
    screen = t.wait("limit: plan !~b beta")
    assert "plan A" in screen and "plan B" not in screen and "other" not in screen
    t.keys("l")
    t.wait("Limit to")
    t.keys("~B 手紙", "Enter")
    screen = t.wait("limit: ~B")
    t.wait("other")
    assert "plan A" not in t.screen()
    t.keys("l")
    t.wait("Limit to")
    t.keys("~z", "Enter")
    t.wait("~z is not known")
    t.keys("l")
    t.wait("Limit to")
    t.keys("Enter")
    t.wait("plan A")
    t.keys("T")
    t.wait("Tag:")
    t.keys("~s plan", "Enter")
    t.wait("2 tagged")
    t.keys("\\;", "d")
    t.wait("2 deleted")
    t.keys("$")
    t.wait("2 deleted, 0 changed")
    assert len(kept(server, user)) == 1


def test_a_reply(reader, server, user):
    """The editor gets the quoted text; the answer goes out by submission, a copy lies in Sent, the letter is marked as answered."""
    deliver(server, user, letter(user, "question", "what is it?").replace(b"j@elsewhere.test", user[0].encode()))
    reader.settings()
    script = reader.home / "editor"
    script.write_text('#!/bin/sh\nsed -i "s/^> what is it.$/&\\nAn answer 手紙/" "$1"\n')
    script.chmod(0o755)
    t = reader.start(editor=str(script))
    t.wait("1 letters")
    t.keys("r")
    screen = t.wait("A letter, not sent yet")
    assert "Re: question" in screen and "> what is it?" in screen and "An answer 手紙" in screen
    t.keys("S")
    t.wait("Sealed: yes")
    t.keys("S")
    t.wait("Sealed: no")
    t.keys("y")
    t.wait("sent, sealed up to localhost")
    t.keys("C-r")
    screen = t.wait("2 letters")
    assert re.search(r"r .*question", screen) is None  # reading anew forgets what was not told
    t.keys("c")
    t.wait("Open folder")
    t.keys("Sent", "Enter")
    t.wait("Sent: 1 letters")
    letters = kept(server, user)
    answer = next(one for one in letters if b"Re: question" in one)
    assert b"In-Reply-To: <1@elsewhere.test>" in answer and b"with ESMTPSA" in answer.replace(b"UTF8SMTPSA", b"ESMTPSA")


def test_an_unknown_certificate(reader, server, user):
    """Reject says nothing to the server; once holds for this run; always is remembered."""
    deliver(server, user, letter(user, "one"))
    reader.settings(trust=["public"])
    t = reader.start()
    screen = t.wait("(r)eject, accept (o)nce, (a)ccept always")
    fingerprint = subprocess.run(
        ["openssl", "x509", "-in", server.ca, "-noout", "-subject"], capture_output=True, text=True, check=True
    ).stdout
    assert "What is wrong with it" in screen and fingerprint
    t.keys("r")
    t.wait("rejected; nothing was said to the server")
    t.keys("C-r")
    t.wait("(r)eject")
    t.keys("o")
    screen = t.wait("1 letters")
    assert "your decision for now" in screen
    t.keys("x")
    t.wait("ended with 0")
    t.close()
    t = reader.start()
    t.wait("(r)eject")
    t.keys("a")
    t.wait("1 letters")
    t.keys("x")
    t.wait("ended with 0")
    t.close()
    screen = reader.start().wait("1 letters")
    assert "your decision" in screen and "reject" not in screen
    known = json.loads((reader.folder / "known.json").read_text())["peers"]
    assert [one["accepted"] for one in known] == ["always"]


def test_a_changed_key_is_refused(reader, server, user):
    reader.settings(trust=["public"])
    t = reader.start()
    t.wait("(r)eject")
    t.keys("a")
    t.wait("there is no letter here")
    t.keys("x")
    t.wait("ended with 0")
    t.close()
    path = reader.folder / "known.json"
    facts = json.loads(path.read_text())
    facts["peers"][0] |= {"sha256": "0" * 64, "spki_sha256": "1" * 64}
    path.write_text(json.dumps(facts))
    t = reader.start()
    screen = t.wait("THE SERVER IS NOT WHAT IT WAS")
    assert "ANOTHER key" in screen and "Nothing was said" in screen and "accept" not in screen.replace("accepted", "")


def test_a_muttrc(reader, server, user):
    """The variables of mutt's transport; and a tunnel whose PREAUTH is believed."""
    deliver(server, user, letter(user, "by muttrc"))
    (reader.home / "muttrc").write_text(
        f'set spoolfile="imaps://localhost:{server.port("imaps")}/INBOX" imap_user="{user[0]}" imap_pass="{user[1]}"\n'
        f"set ssl_ca_certificates_file={server.ca} ssl_usesystemcerts=no from={user[0]} # a remark\n"
    )
    t = reader.start("-F", str(reader.home / "muttrc"))
    t.wait("by muttrc")
    t.keys("x")
    t.wait("ended with 0")
    t.close()
    (reader.home / "muttrc").write_text(
        f'set spoolfile={{localhost}}INBOX tunnel="{FUBAKO} imapd --user {user[0]} --config {server.root}/fubako.toml"\n'
    )
    screen = reader.start("-F", str(reader.home / "muttrc")).wait("by muttrc")
    assert "local" in screen


def test_a_pop3_mailbox(reader, server, user):
    """By mutt's name for it: list, letter, search; deletion ends the session, and the next command begins another."""
    for number in range(3):
        deliver(server, user, letter(user, f"letter {number}", f"body {number}", str(number)))
    (reader.home / "muttrc").write_text(
        f'set spoolfile="pops://localhost:{server.port("pop3s")}/" pop_user="{user[0]}" pop_pass="{user[1]}"\n'
        f"set ssl_ca_certificates_file={server.ca}\n"
    )
    t = reader.start("-F", str(reader.home / "muttrc"))
    screen = t.wait("letter 2")
    assert "3 letters" in screen and "Jürgen" in screen and "SCRAM-SHA-256" in screen and "sealed" in screen
    t.keys("l")
    t.wait("Limit to")
    t.keys("~b 'body 1'", "Enter")
    t.wait("limit:")
    t.keys("Enter")
    t.wait("body 1")
    t.keys("q", "d", "$")
    t.wait("1 deleted")
    assert len(kept(server, user)) == 2
    t.keys("l")
    t.wait("Limit to")
    t.keys("Enter")
    t.wait("2 letters")
    t.keys("=", "Enter")
    t.wait("Seal: · not known")
    t.keys("q", "s")
    t.wait("Move to folder")
    t.keys("Enter")
    t.wait("no other folders")
    t.keys("x")
    t.wait("ended with 0")


def test_a_letter_cannot_write_to_the_terminal(reader, server, user):
    """Escape sequences, direction marks and HTML of a stranger stay text."""
    evil = (
        b"From: a@elsewhere.test\r\nSubject: =?utf-8?q?=1B]0;owned=07=1B[2J_x=E2=80=AEgnp?=\r\nContent-Type: text/html\r\n\r\n"
        b"<script>alert(1)</script><p>Pay \x1b[31mnow\x1b[0m at <a href='https://evil.test/'>your bank</a></p>\r\n"
    )
    deliver(server, user, evil)
    reader.settings()
    t = reader.start()
    t.wait("1 letters")
    t.keys("Enter")
    screen = t.wait("your bank")
    assert (
        "alert" not in screen
        and "<https://evil.test/>" in screen
        and "\\x1b[31mnow" in screen
        and "\\x1b]0;owned" in screen
    )
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in screen


def test_attachments_are_saved_once(reader, server, user):
    mixed = (
        b"From: a@elsewhere.test\r\nSubject: file\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/plain\r\n\r\nlook\r\n--b\r\nContent-Type: application/pdf\r\n"
        b'Content-Disposition: attachment; filename="../../etc/x.pdf"\r\n'
        b"Content-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n--b--\r\n"
    )
    deliver(server, user, mixed)
    reader.settings()
    t = reader.start(environment=f"cd {reader.home}")
    t.wait("1 letters")
    t.keys("v")
    t.wait("application/pdf")
    t.keys("Enter")
    screen = t.wait("Save as")
    assert "etc" not in screen
    t.keys("Enter")
    t.wait("saved as x.pdf")
    assert (reader.home / "x.pdf").read_bytes() == b"hello"
    t.keys("v")
    t.wait("application/pdf")
    t.keys("Enter")
    t.wait("Save as")
    t.keys("Enter")
    t.wait("is there already")


def test_a_broken_connection_is_made_again(reader, server, user):
    """The server restarts; what the user marked is not lost."""
    deliver(server, user, letter(user, "one"))
    deliver(server, user, letter(user, "two", number="2"))
    reader.settings()
    t = reader.start()
    t.wait("2 letters")
    t.keys("d")
    t.wait("1 deleted")
    assert server.stop() == 0
    server.start()
    t.keys("$")
    t.wait("1 deleted, 0 changed", 40)
    assert len(kept(server, user)) == 1


def test_dovecot(reader, needs):
    """Somebody else's server: no seals are known; reading, moving into a folder, deleting and undeleting mean the same."""
    needs("dovecot")
    folder = Path(tempfile.mkdtemp(prefix="dc"))
    with suppress(FileNotFoundError):
        folder.rmdir()
    dovecot = Dovecot(folder, certificates() / "s.pem", certificates() / "s.key").start()
    try:
        context = ssl.create_default_context(cafile=certificates() / "ca.pem")
        box = imaplib.IMAP4_SSL("localhost", dovecot.ports["imaps"], ssl_context=context)
        box.login("user0@fubako.test", dovecot.password)
        box.create("Archive")
        for number in range(3):
            box.append(
                "INBOX", None, None, letter(("user0@fubako.test",), f"letter {number}", f"body {number}", str(number))
            )
        (reader.home / "dovecot-password").write_text(dovecot.password)
        (reader.home / "dovecot-password").chmod(0o600)
        (reader.folder / "accounts.toml").write_text(
            f'[[account]]\nname = "dc"\nprotocol = "imap"\nhost = "localhost"\nport = {dovecot.ports["imaps"]}\n'
            f'user = "user0@fubako.test"\npassword_file = "{reader.home}/dovecot-password"\ntrust = ["{certificates()}/ca.pem"]\n'
        )
        t = reader.start()
        screen = t.wait("3 letters, 3 unread")
        assert "SCRAM-SHA-256" in screen and "·" in screen and "○" not in screen
        t.keys("=", "Enter")
        assert "Seal: · not known" in t.wait("body 0")
        t.keys("q", "s")
        t.wait("Move to folder")
        t.keys("Enter")
        t.wait("1 moved to Archive")
        t.keys("*", "d", "u", "k", "d", "q")
        t.wait("Delete 2 for good")
        t.keys("y")
        t.wait("ended with 0")
        found = {}
        for name in ("INBOX", "Archive"):
            box.select(name, readonly=True)
            numbers = box.search(None, "ALL")[1][0].split()
            found[name] = [box.fetch(one, "(BODY[HEADER.FIELDS (SUBJECT)])")[1][0][1].split()[-1] for one in numbers]
        assert found == {"INBOX": [b"2"], "Archive": [b"0"]}
        box.logout()
    finally:
        dovecot.stop()


def test_without_a_terminal():
    done = subprocess.run(
        [FUBAKO, "read"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, env=dict(os.environ)
    )
    assert done.returncode == 64 and "terminal" in done.stderr

"""`fubako send`: the outbox, its server, and what becomes of letters that cannot go."""

import json
import os
import re
import subprocess

import pytest
from server import FUBAKO
from test_fetch import Liar, User
from test_programs import kept
from test_ssh import Door


class Sender(User):
    def account(self, **more) -> None:
        super().account(
            **{"name": "out", "protocol": "smtp", "port": self.server.port("submissions"), "deliver": None} | more
        )

    def send(self, *words: str, letter: bytes = b"Subject: sent\n\nhello\n"):
        path = f"{self.home / 'bin'}:/usr/bin:/bin:/usr/sbin"
        env = {"PATH": path, "HOME": str(self.home), "FUBAKO_HOME": str(self.folder)}
        done = subprocess.run(
            [FUBAKO, "send", *words], capture_output=True, input=letter, timeout=60, check=False, env=env
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def waiting(self) -> list[dict]:
        return [json.loads(line) for line in self.send("--list", "--json")[1].splitlines()]


@pytest.fixture
def me(server, user, home) -> Sender:
    return Sender(server, user, home)


@pytest.mark.parametrize(("service", "tls"), [("submissions", "implicit"), ("submission", "starttls")])
def test_a_letter_is_sent(me, service, tls):
    me.account(port=me.server.port(service), tls=tls)
    code, _, error = me.send(me.user[0], "-s", "by send", letter="本文\n.\nlast\n".encode())
    assert (code, error) == (0, "")
    (letter,) = kept(me.server, me.user)
    assert (
        b"Subject: by send\r\n" in letter
        and "本文\r\n.\r\nlast".encode() in letter
        and f"From: <{me.user[0]}>".encode() in letter
    )
    assert b"Message-ID: " in letter and me.waiting() == []


def test_to_whom_the_header_names(me):
    me.account()
    other = me.server.new_user("o" + os.urandom(3).hex())
    letter = f"To: {me.user[0]}\nBcc: {other[0].partition('@')[0]}\nSubject: t\n\nx\n".encode()
    assert me.send("-t", letter=letter)[0] == 0
    assert b"Bcc" not in kept(me.server, me.user)[0] and len(kept(me.server, other)) == 1


def test_what_cannot_go_waits(me):
    me.account(port=1)
    code, _, error = me.send(me.user[0])
    assert code == 0 and "1 in the outbox" in error
    assert me.send(me.user[0], "--now")[0] == 75
    assert (
        sorted(one["attempts"] for one in me.waiting()) == [1, 2]
        and (me.folder / "outbox").stat().st_mode & 0o777 == 0o700
    )
    me.account()
    assert me.send("--flush")[0] == 0 and me.waiting() == [] and len(kept(me.server, me.user)) == 2


def test_refused_recipients_and_senders(me):
    me.account()
    code, _, error = me.send(me.user[0], "nobody-here@fubako.test")
    assert (
        code == 65
        and "nobody-here@fubako.test: 550" in error
        and me.waiting() == []
        and len(kept(me.server, me.user)) == 1
    )
    code, _, error = me.send(me.user[0], "-f", "alice@fubako.test")
    assert code == 65 and "may not send as this address" in error and len(me.waiting()) == 1
    assert me.send(me.user[0])[0] == 0 and me.send("--flush")[0] == 65  # it holds up nothing, and is not forgotten
    for words in ((), ("a@b@c..test",), ("x@y.test", "-f", "a b"), ("x@y.test", "-s", "a\nb")):
        assert me.send(*words, letter=b"only a text\n")[0] == 64


def test_no_letter_and_no_password_for_who_hides_starttls(me):
    liar = Liar(b"220 x ESMTP\r\n", b"250-x\r\n250 AUTH PLAIN\r\n", b"")
    me.account(port=liar.port, tls="starttls")
    code, _, error = me.send(me.user[0], "--now")
    assert code == 75 and "does not offer STARTTLS" in error and not re.search(rb"AUTH|MAIL", liar.heard)


def test_sealed_takes_a_promise(me):
    """Our server makes it (RFC 8689)."""
    me.account()
    assert me.send(me.user[0], "--sealed")[0] == 0 and len(kept(me.server, me.user)) == 1


def test_through_ssh(server, user, home, needs):
    needs("ssh")
    Door(server, user, home)
    me = Sender(server, user, home)
    me.account(tunnel="ssh -q door smtpd", port=None)
    code, _, error = me.send(me.user[0])
    assert (code, error) == (0, "") and len(kept(server, user)) == 1


def test_two_at_once_send_each_letter_once(me):
    me.account(port=1)
    for _ in range(5):
        me.send(me.user[0])
    me.account()
    env = {"PATH": "/usr/bin:/bin", "HOME": str(me.home), "FUBAKO_HOME": str(me.folder)}
    running = [subprocess.Popen([FUBAKO, "send", "--flush"], env=env) for _ in range(3)]
    assert [one.wait(60) for one in running] == [0, 0, 0]
    assert len(kept(me.server, me.user)) == 5

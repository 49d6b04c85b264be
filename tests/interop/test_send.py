"""`fubako send`: the outbox, its server, and what becomes of letters that cannot go."""

import hashlib
import imaplib
import json
import os
import re
import ssl
import subprocess

import pytest
from internet import Dns
from server import FUBAKO, have, without
from test_commands import uucp  # noqa: F401 (a fixture)
from test_fetch import Liar, User
from test_programs import kept
from test_ssh import Door

from fubako.net.certificate import public_key_info


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


# -- identities, copies, programs


def two_accounts(me, **more) -> tuple[str, str]:
    """Two senders with an account each."""
    other = me.server.new_user("i" + os.urandom(3).hex())
    me.account(**more)
    path = me.folder / "accounts.toml"
    (me.home / "secret2").write_text(other[1])
    (me.home / "secret2").chmod(0o600)
    facts = {"name": "second", "protocol": "smtp", "host": "localhost", "port": me.server.port("submissions"), "user": other[0],
             "password_file": str(me.home / "secret2"), "trust": [me.server.ca],
             "identities": ["*@second.test", other[0]]}  # fmt: skip
    lines = [f"{name} = {json.dumps(value)}" for name, value in facts.items()]
    path.write_text(path.read_text() + "[[account]]\n" + "\n".join(lines) + "\n")
    return other


def test_each_identity_leaves_by_its_account(me):
    other = two_accounts(me)
    for words, letter, user in (
        ((), f"From: X <{other[0]}>\nSubject: a\n\nx\n", other), (("-f", other[0]), "Subject: b\n\nx\n", other),
        ((), f"From: {me.user[0]}\nSubject: c\n\nx\n", me.user), ((), "Subject: d\n\nx\n", me.user),
        (("-a", "second"), "Subject: e\n\nx\n", other),
    ):  # fmt: skip
        code, _, error = me.send(me.user[0], *words, letter=letter.encode())
        assert code == 0, error
        got = kept(me.server, me.user)[-1]
        assert f"<{user[0]}>".encode() in got.partition(b"\r\n")[0] or f"Return-Path: <{user[0]}>".encode() in got, got[
            :300
        ]


def imap_account(me, **more) -> None:
    facts = {"name": "in", "host": "localhost", "port": me.server.port("imaps"), "user": me.user[0],
             "password_file": str(me.home / "secret"), "trust": [me.server.ca]} | more  # fmt: skip
    path = me.folder / "accounts.toml"
    path.write_text(
        path.read_text()
        + "[[account]]\n"
        + "\n".join(f"{name} = {json.dumps(value)}" for name, value in facts.items())
        + "\n"
    )


def folder_of(me, name: str) -> int:
    context = ssl.create_default_context(cafile=me.server.ca)
    with imaplib.IMAP4_SSL("localhost", me.server.port("imaps"), ssl_context=context) as client:
        client.login(*me.user)
        return int(client.select(name, readonly=True)[1][0])


def test_the_copy_is_a_matter_of_its_own(me):
    """It is kept after the letter was sent; where it cannot be kept the letter is sent once all the same."""
    other = me.server.new_user("c" + os.urandom(3).hex())
    me.account(sent="in/Sent")
    imap_account(me, port=1)
    code, _, error = me.send(other[0])
    assert code == 0 and "its copy could not be kept" in error
    assert len(kept(me.server, other)) == 1
    (waiting,) = me.waiting()
    assert waiting["sent"] and waiting["recipients"] == []
    assert me.send("--flush")[0] == 0 and len(kept(me.server, other)) == 1  # never a second time
    me.account(sent="in/Sent")
    imap_account(me)
    assert me.send("--flush")[0] == 0 and me.waiting() == []
    assert len(kept(me.server, other)) == 1 and folder_of(me, "Sent") == 1
    me.account(sent=f"maildir:{me.home}/Sent")
    assert me.send(other[0])[0] == 0
    (copy,) = (me.home / "Sent" / "new").iterdir()
    assert b"Subject: sent" in copy.read_bytes()


def test_by_a_program(me):
    """Arguments without a shell; sysexits tell now, later and never."""
    script = me.home / "program"
    script.write_text(
        f'#!/bin/sh\necho "$@" > {me.home}/arguments\ncat > {me.home}/letter\nexit $(cat {me.home}/code)\n'
    )
    script.chmod(0o755)
    me.account(program=[str(script), "-f", "%F", "(%T)"], from_line=True)
    (me.home / "code").write_text("75")
    code, _, error = me.send("a`id`b@x.test", "c@x.test")
    assert code == 0 and "ended with 75" in error and not me.waiting()[0]["held"]
    assert (me.home / "arguments").read_text() == f"-f {me.user[0]} (a`id`b@x.test) (c@x.test)\n"
    first, second = (me.home / "letter").read_text().split("\n")[:2]
    assert re.fullmatch(rf"From {re.escape(me.user[0])} .* remote from fubako.test", first) and ":" in second
    (me.home / "code").write_text("67")
    assert me.send("--flush")[0] == 65 and me.waiting()[0]["held"]
    (me.home / "code").write_text("0")
    assert me.send("--flush")[0] == 0 and me.waiting() == []
    code, _, error = me.send("--sealed", "c@x.test")
    assert code == 65 and "promises nothing" in error


def test_by_rmail_and_sendmail_through_ssh(server, user, home, needs):
    """Figure 7 without a helper program: rmail and sendmail on the other machine, by the built-in SSH."""
    needs("ssh-keygen")
    me, door = Sender(server, user, home), Door(server, user, home)
    way = {
        "ssh": f"{user[0]}@localhost:{server.port('ssh')}",
        "ssh_identity": [str(home / "id")],
        "ssh_known_hosts": str(home / "known"),
    }
    assert door.enrolled.returncode == 0
    for number, command in enumerate(("rmail %T", "sendmail -i -f %F -- %T"), 1):
        me.account(ssh_command=command, from_line=command.startswith("rmail"), password_file=None, **way)
        code, _, error = me.send(user[0])
        assert code == 0 and not error, error
        assert len(kept(server, user)) == number
    me.account(ssh_command="rmail %T", from_line=True, password_file=None, **way)
    me.account(ssh_command="rmail %T", from_line=True, password_file=None, **way | {"ssh": "x@localhost:1"})
    code, _, error = me.send(user[0])
    assert code == 0 and "cannot be reached" in error and not me.waiting()[0]["held"]  # the way there, not the letter


def test_by_uucp(me, needs, uucp):  # noqa: F811
    """`uux` queues it for the next call; what the other site runs, and reads, is what rmail wants."""
    needs("uux")
    me.account(program=["uux", "-I", str(uucp / "config"), "-", "-r", "-n", "far!rmail", "(%T)"], from_line=True)
    code, _, error = me.send("bob@far.test", letter=b"Subject: by uucp\n\nx\n")
    assert code == 0 and me.waiting() == [], error
    files = [path.read_bytes() for path in (uucp / "spool").rglob("*") if path.is_file()]
    assert any(
        one.startswith(b"From ") and b"remote from fubako.test" in one and b"Subject: by uucp" in one for one in files
    )
    assert any(b"rmail" in one and b"bob@far.test" in one for one in files)


# -- without an account


@pytest.fixture(scope="module")
def resolver(server, tmp_path_factory):
    """Three domains whose letters our server takes, or refuses: with the right key in DNSSEC, without one, with another one."""
    if not have("unbound"):
        without("not installed: unbound")
    leaf = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("localhost", server.port("imaps"))))
    key = hashlib.sha256(public_key_info(leaf)).hexdigest()
    dns = Dns(tmp_path_factory.mktemp("dns") / "u")
    record = f"_{server.port('smtp')}._tcp.mail IN TLSA 3 1 1"
    dns.zone("fubako.test", f"@ IN MX 10 mail\nmail IN A 127.0.0.1\n{record} {key}\n", signed=True)
    dns.zone("lost.test", "@ IN MX 10 mail\nmail IN A 127.0.0.1\n")
    dns.zone("forged.test", f"@ IN MX 10 mail\nmail IN A 127.0.0.1\n{record} {'00' * 32}\n", signed=True)
    yield dns.start()
    dns.stop()


def test_directly_to_the_servers_of_a_domain(me, resolver):
    """DANE holds, and it is said; what is refused is said, and what cannot be trusted waits."""
    words = (
        "--direct",
        "--dns",
        f"127.0.0.1:{resolver.port}",
        "--port",
        str(me.server.port("smtp")),
        "-f",
        "ann@out.test",
        "--json",
    )
    code, said, error = me.send(me.user[0], *words)
    assert code == 0, error
    (one,) = json.loads(said)
    assert (one["state"], one["seal"]) == ("sent", "sealed") and "DANE" in json.dumps(one["journey"])
    (letter,) = kept(me.server, me.user)
    assert b"Return-Path: <ann@out.test>" in letter and b"Subject: sent" in letter
    code, said, _ = me.send("nobody@lost.test", *words)
    (one,) = json.loads(said)
    assert code == 65 and one["state"] == "failed" and one["reply"].startswith("5")
    code, said, _ = me.send("bob@forged.test", *words, "--now")
    (one,) = json.loads(said)
    assert code == 75 and one["state"] == "queued" and "DANE" in one["reply"]
    done = me.run("queue", "list", "--json", "--config", str(me.folder / "direct" / "fubako.toml"))
    assert done[0] == 0 and "bob@forged.test" in done[1]
    code, said, _ = me.send(*words, "--flush", "--now")
    (one,) = json.loads(said)
    assert code == 75 and one["attempts"] == 2
    assert len(kept(me.server, me.user)) == 1


def test_directly_sealed_only_where_it_is_promised(me, resolver):
    words = (
        "--direct",
        "--dns",
        f"127.0.0.1:{resolver.port}",
        "--port",
        str(me.server.port("smtp")),
        "-f",
        "ann@out.test",
        "--sealed",
    )
    code, _, error = me.send(me.user[0], *words)
    assert code == 0, error
    code, _, error = me.send("bob@lost.test", *words, "--now")
    assert code in (65, 75) and error

"""`fubako sieve` beside Dovecot's ManageSieve: scripts are kept, checked, made active, read, renamed, deleted; one filters."""

import base64
import imaplib
import json
import smtplib
import ssl
import tempfile
from pathlib import Path

import pytest
from checkers import until
from internet import Dns
from memory_server import certificates
from peers import Dovecot
from server import FUBAKO, without
from test_fetch import User
from test_programs import Terminal

SCRIPT = (
    'require ["fileinto", "mailbox"];\r\n'
    'if header :contains "Subject" "文箱" { fileinto :create "Kept"; stop; }\r\n# "}" \\ {5}\r\n'
)
USER = "user0@fubako.test"
CA = [str(certificates() / "ca.pem")]


@pytest.fixture(scope="module")
def dovecot():
    if not Path("/usr/lib/dovecot/managesieve-login").exists():
        without("not installed: dovecot-managesieved")
    folder = Path(tempfile.mkdtemp(prefix="ds"))
    folder.chmod(0o755)  # its processes become other users
    made = Dovecot(folder / "d", certificates() / "s.pem", certificates() / "s.key", sieve=True)
    yield made.start()
    made.stop()


@pytest.fixture
def me(server, user, home, dovecot) -> User:
    made = User(server, user, home)
    (home / "secret").write_text(dovecot.password + "\n")
    made.dovecot = dovecot
    made.filters = {
        "name": "filters",
        "protocol": "sieve",
        "tls": "starttls",
        "port": dovecot.ports["sieve"],
        "user": USER,
    }
    made.account(**made.filters, trust=CA)
    return made


def test_a_script_from_first_to_last(me):
    (me.home / "vacation.sieve").write_bytes(SCRIPT.encode())
    file = str(me.home / "vacation.sieve")
    code, said, error = me.run("sieve", "check", file)
    assert code == 0, error
    assert me.run("sieve", "list")[:2] == (0, "")
    code, said, error = me.run("sieve", "put", file, "--activate")
    assert code == 0 and "vacation is kept and active" in said, error
    assert me.run("sieve", "put", file, "--name", 'zwei "文" \\')[0] == 0
    rows = json.loads(me.run("sieve", "list", "--json")[1])
    assert rows == [{"script": "vacation", "active": True}, {"script": 'zwei "文" \\', "active": False}]
    got = json.loads(me.run("sieve", "get", 'zwei "文" \\', "--json")[1])
    assert got["content"] == SCRIPT
    assert me.run("sieve", "get", "vacation", "-o", str(me.home / "copy"))[0] == 0
    assert (me.home / "copy").read_bytes() == SCRIPT.encode()
    assert me.run("sieve", "get", "vacation", "-o", str(me.home / "copy"))[0] == 74  # never over a file
    assert me.run("sieve", "rename", "vacation", "holidays")[0] == 0
    code, _, error = me.run("sieve", "delete", "holidays")
    assert code == 69 and "active" in error.lower()
    # what was kept filters
    letter = b"From: a@b.test\r\nSubject: =?utf-8?b?5paH566x?=\r\n\r\nx\r\n"
    with smtplib.LMTP("127.0.0.1", me.dovecot.ports["lmtp"]) as lmtp:
        lmtp.sendmail("a@b.test", [USER], letter)
    context = ssl.create_default_context(cafile=certificates() / "ca.pem")
    with imaplib.IMAP4_SSL("localhost", me.dovecot.ports["imaps"], ssl_context=context) as box:
        box.login(USER, me.dovecot.password)
        until(lambda: b"Kept" in b"".join(box.list()[1]))
    assert me.run("sieve", "deactivate")[0] == 0
    assert me.run("sieve", "activate", "holidays")[0] == 0
    assert me.run("sieve", "deactivate")[0] == 0
    for one in ("holidays", 'zwei "文" \\'):
        assert me.run("sieve", "delete", one)[0] == 0
    assert json.loads(me.run("sieve", "list", "--json")[1]) == []


def test_what_is_refused_is_said(me):
    bad = me.home / "bad.sieve"
    bad.write_text("this is no script;\n")
    code, _, error = me.run("sieve", "put", str(bad))
    assert code == 65 and "line 1" in error
    code, _, error = me.run("sieve", "check", str(bad))
    assert code == 65 and "line 1" in error
    assert me.run("sieve", "get", "nobody")[0] == 69
    assert me.run("sieve", "put", str(me.home / "absent.sieve"))[0] == 66
    assert me.run("sieve", "delete", "a\nLOGOUT")[0] == 69
    assert me.run("sieve", "list", "--account", "nobody")[0] == 78
    (me.home / "secret").write_text("wrong\n")
    assert me.run("sieve", "list")[0] == 77


def test_every_mechanism_that_both_know(me):
    for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN"):
        me.account(**me.filters, trust=CA, mechanisms=[mechanism])
        code, said, error = me.run("account", "test", "filters")
        assert code == 0 and f"{USER} by {mechanism}, " in said, (mechanism, said, error)


def test_a_script_steers_no_terminal(me, needs):
    needs("tmux")
    (me.home / "evil.sieve").write_bytes(b"# \x1b[2J\x1b]0;gone\x07 here\r\nkeep;\r\n")
    assert me.run("sieve", "put", str(me.home / "evil.sieve"))[0] == 0
    script = me.home / "start"
    script.write_text(
        f"#!/bin/sh\nexport FUBAKO_HOME={me.folder} LC_ALL=C.UTF-8\n{FUBAKO} sieve get evil\necho ended $?\nsleep 60\n"
    )
    script.chmod(0o755)
    terminal = Terminal(me.home, "sieve", str(script))
    try:
        assert r"# \x1b[2J\x1b]0;gone\x07 here" in terminal.wait("ended 0")
    finally:
        terminal.close()
    assert me.run("sieve", "delete", "evil")[0] == 0


def test_who_is_not_believed_hears_nothing(me):
    me.account(**me.filters)
    code, _, error = me.run("sieve", "list", "--transcript", str(me.home / "said"))
    assert code == 80 and "authority" in error
    said = (me.home / "said").read_text()
    assert "AUTHENTICATE" not in said and "-> STARTTLS" in said
    me.account(**me.filters | {"port": 0, "tls": "implicit"})
    code, _, error = me.run("sieve", "list")
    assert code == 78 and "starttls" in error


def test_secrets_are_masked(me):
    assert me.run("sieve", "list", "--transcript", str(me.home / "said"))[0] == 0
    said = (me.home / "said").read_text()
    assert "~> AUTHENTICATE" in said and "***" in said and "~> LISTSCRIPTS" in said
    for mechanism in ("LOGIN", "PLAIN", "CRAM-MD5"):
        me.account(**me.filters, trust=CA, mechanisms=[mechanism])
        assert me.run("sieve", "list", "--transcript", str(me.home / "said"))[0] == 0
        said = (me.home / "said").read_text()
        words = [line.split(" ", 1)[1] for line in said.splitlines() if line.startswith("~>")]
        answers = 2 if mechanism == "LOGIN" else int(mechanism == "CRAM-MD5")
        assert words[0].startswith(f'AUTHENTICATE "{mechanism}"') and words[1 : 1 + answers] == ["***"] * answers, said
        assert base64.b64encode(me.dovecot.password.encode()).decode().rstrip("=")[:-1] not in said


def test_an_address_is_enough(me, tmp_path, needs):
    """Signed SRV records name the server of filters, too."""
    needs("unbound")
    dns = Dns(tmp_path / "dns")
    ports = me.dovecot.ports
    records = (
        f"_imaps._tcp IN SRV 0 0 {ports['imaps']} localhost.\n_sieve._tcp IN SRV 0 0 {ports['sieve']} localhost.\n"
    )
    dns.zone("signed.test", records, signed=True)
    dns.start()
    try:
        words = (
            "account",
            "add",
            "ann@signed.test",
            "--user",
            USER,
            "--password-file",
            str(me.home / "secret"),
            "--trust",
            *CA,
        )
        more = ("--outgoing", "none", "--dns", f"127.0.0.1:{dns.port}", "--json")
        code, said, error = me.run(*words, *more)
    finally:
        dns.stop()
    assert code == 0, error
    assert [(one["name"], one["protocol"], one["tls"]) for one in json.loads(said)] == [
        ("signed.test", "imap", "implicit"), ("signed.test-filters", "sieve", "starttls"),
    ]  # fmt: skip
    assert me.run("sieve", "list", "-a", "signed.test-filters", "--json")[0] == 0
    assert me.run("fetch", "signed.test")[0] in (0, 1)  # the account of filters is none that is fetched from
    assert me.run("fetch", "signed.test-filters")[0] == 64


def test_probed(me):
    port = me.dovecot.ports["sieve"]
    done = me.run(
        "probe", "localhost", "--service", f"sieve={port}", "--ca-file", str(certificates() / "ca.pem"), "--json"
    )
    facts = json.loads(done[1])
    (seen,) = facts["ports"]
    assert seen["tls"] == "TLSv1.3" and "SCRAM-SHA-256" in seen["sealed"] and not seen["slipped"] and seen["starttls"]
    assert "Dovecot" in seen["greeting"] and seen["versions"] == ["1.2", "1.3"]

"""`fubako account`: found by a real resolver, tried at real servers, written down; passwords by file, command, netrc, keyring."""

import json
import time
import tomllib

import pytest
from internet import Dns, PolicyHost
from server import FUBAKO, have, without
from test_fetch import User
from test_programs import Terminal, deliver

from fubako.trust.authority import ensure_authority, ensure_server

KEYRING = """
import keyring.backend, json, os
class Ring(keyring.backend.KeyringBackend):
    priority = 1
    path = os.environ["RING"]
    def _all(self):
        return json.load(open(self.path)) if os.path.exists(self.path) else {}
    def get_password(self, service, username):
        return self._all().get(service + "/" + username)
    def set_password(self, service, username, password):
        json.dump(self._all() | {service + "/" + username: password}, open(self.path, "w"))
"""


@pytest.fixture(scope="module")
def resolver(server, tmp_path_factory):
    if not have("unbound"):
        without("not installed: unbound")
    dns = Dns(tmp_path_factory.mktemp("dns") / "u")
    records = (
        f"_imaps._tcp IN SRV 0 0 {server.port('imaps')} localhost.\n"
        f"_submissions._tcp IN SRV 0 0 {server.port('submissions')} localhost.\n"
        "_imap._tcp IN SRV 0 0 0 .\n"
    )
    dns.zone("signed.test", records, signed=True)
    dns.zone("described.test", "autoconfig IN A 127.0.0.77\n")
    dns.zone("plain.test", records)
    dns.zone("empty.test", "@ IN MX 10 mx.elsewhere.test.\n")
    yield dns.start()
    dns.stop()


@pytest.fixture
def me(server, user, home) -> User:
    made = User(server, user, home)
    made.trust = ["--trust", server.ca]
    made.urls = [
        "--incoming",
        f"imaps://localhost:{server.port('imaps')}",
        "--outgoing",
        f"smtps://localhost:{server.port('submissions')}",
    ]
    made.secret = ["--password-file", str(home / "secret")]
    return made


def written(me) -> list[dict]:
    path = me.folder / "accounts.toml"
    assert path.stat().st_mode & 0o777 == 0o600
    return tomllib.loads(path.read_text())["account"]


def test_an_address_is_enough(me, resolver):
    """Signed SRV records are the domain's word; the account that comes of it fetches, and another one is appended to it."""
    deliver(me.server, me.user, b"Subject: x\r\n\r\nx\r\n")
    dns = ["--dns", f"127.0.0.1:{resolver.port}"]
    code, said, error = me.run(
        "account", "add", "ann@signed.test", "--user", me.user[0], *me.secret, *me.trust, *dns, "--json"
    )
    assert code == 0, error
    assert "_imaps._tcp.signed.test names localhost" in error and "SCRAM-SHA-256" in error and "sealed" in error
    assert [(one["name"], one["protocol"], one["tls"]) for one in json.loads(said)] == [
        ("signed.test", "imap", "implicit"), ("signed.test-send", "smtp", "implicit"),
    ]  # fmt: skip
    before = (me.folder / "accounts.toml").read_text()
    assert me.user[1] not in before
    assert me.run("account", "add", "bob@signed.test", *me.secret, *me.trust, *dns)[0] == 73
    code, _, error = me.run("account", "add", me.user[0], "--name", "two", *me.urls, *me.secret, *me.trust)
    assert code == 0, error
    assert (me.folder / "accounts.toml").read_text().startswith(before) and len(written(me)) == 4
    (me.folder / "accounts.toml").write_text(
        (me.folder / "accounts.toml").read_text().replace("trust =", 'deliver = "maildir:~/Mail"\ntrust =')
    )
    assert me.run("fetch", "two")[0] == 0
    rows = json.loads(me.run("account", "list", "--json")[1])
    assert [one["name"] for one in rows] == ["signed.test", "signed.test-send", "two", "two-send"]
    code, said, _ = me.run("account", "test")
    assert code == 0 and said.count("sealed") == 4


CONFIG = """<?xml version="1.0"?><clientConfig version="1.1"><emailProvider id="described.test">
<incomingServer type="imap"><hostname>localhost</hostname><port>%d</port><socketType>SSL</socketType>
<username>%%EMAILLOCALPART%%@fubako.test</username></incomingServer>
<incomingServer type="imap"><hostname>localhost</hostname><port>%d</port><socketType>plain</socketType></incomingServer>
<outgoingServer type="smtp"><hostname>localhost</hostname><port>%d</port><socketType>STARTTLS</socketType>
<username>%%EMAILLOCALPART%%@fubako.test</username></outgoingServer></emailProvider></clientConfig>"""


def test_the_domains_own_description_over_https(me, resolver, tmp_path):
    """Asked for at the domain's own host, by a real HTTPS server; only where its certificate is believed."""
    root = tmp_path / "https"
    root.mkdir()
    now = time.time()
    authority = (root / "ca.pem", root / "ca.key")
    ensure_authority(*authority, "test", now)
    ensure_server(root / "s.pem", root / "s.key", authority, ["autoconfig.described.test"], now)
    try:
        host = PolicyHost(root / "s.pem", root / "s.key", ("127.0.0.77", 443))
    except PermissionError:
        without("port 443 of 127.0.0.77 may not be listened on")
    described = CONFIG % (me.server.port("imaps"), me.server.port("imap"), me.server.port("submission"))
    host.pages["autoconfig.described.test", "/mail/config-v1.1.xml"] = (200, "text/xml", described.encode())
    name = me.user[0].partition("@")[0]
    words = [
        "account",
        "add",
        f"{name}@described.test",
        *me.secret,
        *me.trust,
        "--dns",
        f"127.0.0.1:{resolver.port}",
        "--json",
    ]
    try:
        code, _, error = me.run(*words)
        assert code == 68 and "describes it" not in error, error  # nobody vouches for who says so
        me.extra["SSL_CERT_FILE"] = str(root / "ca.pem")
        code, said, error = me.run(*words)
        assert code == 0 and "https://autoconfig.described.test/mail/config-v1.1.xml describes it" in error, error
    finally:
        host.stop()
    assert [(one["protocol"], one["port"], one["tls"], one["user"]) for one in json.loads(said)] == [
        ("imap", me.server.port("imaps"), "implicit", me.user[0]), ("smtp", me.server.port("submission"), "starttls", me.user[0]),
    ]  # fmt: skip


def test_a_server_outside_the_domain_has_to_be_agreed_to(me, resolver):
    """Anybody can write an unsigned record."""
    words = [
        "account",
        "add",
        "ann@plain.test",
        "--user",
        me.user[0],
        *me.secret,
        *me.trust,
        "--dns",
        f"127.0.0.1:{resolver.port}",
    ]
    code, _, error = me.run(*words)
    assert code == 68 and "nobody proves that it speaks for it" in error
    assert not (me.folder / "accounts.toml").exists()
    assert me.run(*words, "--yes")[0] == 0


def test_nothing_is_written_when_it_does_not_work(me, resolver):
    dns = ["--dns", f"127.0.0.1:{resolver.port}"]
    code, _, error = me.run("account", "add", "ann@empty.test", *me.secret, *dns)
    assert code == 68 and "no server" in error
    (me.home / "wrong").write_text("wrong\n")
    (me.home / "wrong").chmod(0o600)
    code, _, error = me.run(
        "account", "add", me.user[0], *me.urls, *me.trust, "--password-file", str(me.home / "wrong")
    )
    assert code == 77 and me.user[0] in error
    code, _, error = me.run("account", "add", me.user[0], *me.urls, *me.secret)
    assert code == 80 and "authority" in error
    assert (
        me.run("account", "add", me.user[0], *me.urls, *me.trust)[0] == 64
    )  # no terminal, and nothing says where the password is
    assert me.run("account", "add", "ann", *me.urls)[0] == 64
    assert me.run("account", "add", me.user[0], "--incoming", "http://x", *me.secret)[0] == 64
    assert not (me.folder / "accounts.toml").exists()


def test_passwords_by_netrc_command_and_keyring(me):
    netrc = me.home / "netrc"
    netrc.write_text(f"machine localhost login {me.user[0]} password {me.user[1]}\n")
    netrc.chmod(0o600)
    code, _, error = me.run("account", "add", me.user[0], "--name", "n", *me.urls, *me.trust, "--netrc", str(netrc))
    assert code == 0, error
    netrc.chmod(0o644)
    code, _, error = me.run("account", "test", "n")
    assert code == 78 and "chmod 600" in error
    code, _, error = me.run(
        "account", "add", me.user[0], "--name", "c", *me.urls, *me.trust, "--password-command", f"cat {me.home}/secret"
    )
    assert code == 0 and written(me)[-1]["password_command"] == ["cat", f"{me.home}/secret"], error
    (me.home / "ring.py").write_text(KEYRING)
    me.extra = {"PYTHONPATH": str(me.home), "PYTHON_KEYRING_BACKEND": "ring.Ring", "RING": str(me.home / "ring.json")}
    code, _, error = me.run("account", "add", me.user[0], "--name", "k", *me.urls, *me.trust, "--keyring")
    assert code == 78 and "keyring set fubako k" in error
    (me.home / "ring.json").write_text(json.dumps({"fubako/k": me.user[1], "fubako/k-send": me.user[1]}))
    code, _, error = me.run("account", "add", me.user[0], "--name", "k", *me.urls, *me.trust, "--keyring")
    assert code == 0, error


@pytest.mark.parametrize("ring", [False, True])
def test_the_password_is_asked_and_kept_apart(me, needs, ring):
    """In the keyring where there is one, else in a file of its owner's."""
    needs("tmux")
    script = me.home / "start"
    (me.home / "ring.py").write_text(KEYRING)
    backend = "ring.Ring" if ring else "keyring.backends.fail.Keyring"
    words = " ".join(["account", "add", me.user[0], "--name", "mine", *me.urls, *me.trust])
    script.write_text(
        f"#!/bin/sh\nexport FUBAKO_HOME={me.folder} PYTHONPATH={me.home} PYTHON_KEYRING_BACKEND={backend}\n"
        f"export RING={me.home}/ring.json\n"
        f"{FUBAKO} {words}\necho ended with $?\nsleep 60\n"
    )
    script.chmod(0o755)
    terminal = Terminal(me.home, f"account{ring}", str(script))
    try:
        terminal.wait("Password of")
        terminal.keys(me.user[1], "Enter")
        screen = terminal.wait("ended with 0")
        assert me.user[1] not in screen and "written to" in screen
    finally:
        terminal.close()
    file = me.folder / "passwords" / "mine"
    assert file.exists() is not ring
    if not ring:
        assert file.stat().st_mode & 0o777 == 0o600 and file.read_text() == me.user[1] + "\n"
    assert me.user[1] not in (me.folder / "accounts.toml").read_text()
    me.extra = {"PYTHONPATH": str(me.home), "PYTHON_KEYRING_BACKEND": backend, "RING": str(me.home / "ring.json")}
    assert me.run("account", "test")[0] == 0

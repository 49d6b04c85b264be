"""Whom we believe: the question at a terminal, pins, signers, and what mutt, fetchmail, msmtp and stunnel were told before."""

import hashlib
import json
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest
from memory_server import certificates as certificate_folder
from peers import Dovecot
from server import FUBAKO
from test_fetch import User
from test_programs import Terminal, deliver

from fubako.trust.foreign import certificates


@pytest.fixture
def me(server, user, home) -> User:
    return User(server, user, home)


def shown(server) -> bytes:
    """The leaf that the server shows, in DER."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"localhost:{server.port('imaps')}", "-showcerts"],
        input=b"", capture_output=True, check=False,
    )  # fmt: skip
    return certificates(done.stdout.decode())[0]


def test_add_with_a_fingerprint(me):
    """Compared, never asked; and a server that is not believed is not met."""
    port = str(me.server.port("imaps"))
    code, _, error = me.run("trust", "add", "localhost", port)
    assert code == 80 and "authority" in error
    assert me.run("trust", "add", "localhost", port, "--fingerprint", "ab" * 32)[0] == 80
    assert me.run("trust", "add", "localhost", port, "--fingerprint", "ab")[0] == 64
    assert json.loads(me.run("trust", "list", "--json")[1]) == []
    code, said, _ = me.run(
        "trust", "add", "localhost", port, "--fingerprint", hashlib.sha256(shown(me.server)).hexdigest()
    )
    assert code == 0 and "your decision" in said
    fingerprint = "spki:" + json.loads(me.run("trust", "show", "localhost", port, "--json")[1])["spki_sha256"]
    told = json.loads(me.run("trust", "pin", "localhost", port, "--json")[1])
    assert told == {"host": "localhost", "port": int(port), "pins": [fingerprint]}
    assert json.loads(me.run("trust", "pin", "localhost", port, "--remove", "--json")[1])["removed"] == [fingerprint]
    assert json.loads(me.run("trust", "add", "localhost", port, "--json")[1])["believed_by"] == "your decision"
    (me.home / "mine.json").write_text(me.run("trust", "export")[1])
    assert json.loads(me.run("trust", "import", str(me.home / "mine.json"), "--json")[1])["new"] == 0
    assert json.loads(me.run("trust", "forget", "localhost", port, "--json")[1])["forgotten"] is True
    assert json.loads(me.run("trust", "import", str(me.home / "mine.json"), "--json")[1])["new"] == 1
    me.account(trust=["public"])
    assert me.run("fetch")[0] == 1


def test_pins_are_the_only_thing_that_counts(me):
    port = str(me.server.port("imaps"))
    me.account()
    assert me.run("fetch")[0] == 1
    assert me.run("trust", "pin", "localhost", port, "spki:" + "ab" * 32)[0] == 0
    code, _, error = me.run("fetch")
    assert code == 80 and "pinned" in error
    code, said, _ = me.run("trust", "pin", "localhost", port)  # the key that it is known by, as a second one of the set
    assert code == 0 and "spki:" in said
    assert me.run("fetch")[0] == 1
    assert len(json.loads(me.run("trust", "show", "localhost", port, "--json")[1])["rules"]) == 2
    assert me.run("trust", "pin", "localhost", port, "--remove")[0] == 0
    assert me.run("trust", "pin", "localhost", port, "ab" * 16)[0] == 64  # MD5
    me.account(trust=["public"])
    assert me.run("fetch")[0] == 80


def test_the_signer_is_asked_for_and_believed(me, needs):
    """As the README of mutt's TLS says: take the signer once, and its servers are believed; here only those around this one."""
    needs("tmux", "dovecot")
    folder = Path(tempfile.mkdtemp(prefix="dc"))
    (me.home / "chain.pem").write_bytes(
        (certificate_folder() / "s.pem").read_bytes() + (certificate_folder() / "ca.pem").read_bytes()
    )
    dovecot = Dovecot(folder / "d", me.home / "chain.pem", certificate_folder() / "s.key").start()
    folder.chmod(0o755)
    (me.home / "secret").write_text(dovecot.password)
    me.account(trust=["public"], port=dovecot.ports["imaps"], user="user0@fubako.test")
    script = me.home / "start"
    script.write_text(f"#!/bin/sh\nexport FUBAKO_HOME={me.folder}\n{FUBAKO} fetch\necho ended with $?\nsleep 60\n")
    script.chmod(0o755)
    terminal = Terminal(me.home, "trust", str(script))
    try:
        screen = terminal.wait("accept the (s)igner")
        assert "Its signer:" in screen and "What is wrong with it" in screen
        terminal.keys("s", "Enter")
        terminal.wait("ended with 1")
        (rule,) = [one for one in json.loads(me.run("trust", "list", "--json")[1]) if "value" in one]
        assert (rule["host"], rule["accepted"]) == ("localhost", "signer")
        assert me.run("fetch")[0] == 1
        me.account(trust=["public"], port=dovecot.ports["pop3s"], protocol="pop3", user="user0@fubako.test")
        assert me.run("fetch")[0] == 1  # another service of the same host, never met
        me.account(trust=["public"])  # signed by somebody else
        assert me.run("fetch")[0] == 80
    finally:
        terminal.close()
        dovecot.stop()


def test_an_md5_pin_is_replaced_at_the_first_good_connection(me):
    md5 = hashlib.md5(shown(me.server), usedforsecurity=False).hexdigest().upper()
    port = str(me.server.port("imaps"))
    pairs = ":".join(md5[at : at + 2] for at in range(0, 32, 2))
    (me.home / "rc").write_text(
        f'poll localhost proto imap port {port} user "u" password "p" ssl sslfingerprint "{pairs}"\n'
    )
    code, said, error = me.run("trust", "import", str(me.home / "rc"))
    assert code == 0 and "1 taken" in said and "MD5" in error
    me.account(trust=["public"])
    assert me.run("fetch")[0] == 1
    (rule,) = json.loads(me.run("trust", "show", "localhost", port, "--json")[1])["rules"]
    assert rule["value"] == "sha256:" + hashlib.sha256(shown(me.server)).hexdigest()


def test_mutts_certificates_there_and_back(me, needs):
    """What mutt was told is believed here; what is believed here, mutt believes."""
    needs("mutt", "tmux")
    deliver(me.server, me.user, b"From: a@b.test\r\nSubject: for mutt\r\n\r\nx\r\n")
    (me.home / "certificates").write_text(ssl_pem(shown(me.server)))
    assert me.run("trust", "import", str(me.home / "certificates"))[0] == 0
    me.account(trust=["public"])
    assert me.run("fetch")[0] == 0

    code, said, _ = me.run("trust", "export", "--form", "mutt")
    assert code == 0 and "#H localhost " in said and "BEGIN CERTIFICATE" in said
    (me.home / "exported").write_text(said)
    (me.home / "muttrc").write_text(
        f"set spoolfile=imaps://localhost:{me.server.port('imaps')}/INBOX imap_user={me.user[0]} imap_pass={me.user[1]}\n"
        f"set certificate_file={me.home}/exported ssl_verify_host=yes\nset header_cache=\n"
    )
    script = me.home / "start"
    script.write_text(f"#!/bin/sh\nHOME={me.home} mutt -n -F {me.home}/muttrc\n")
    script.chmod(0o755)
    terminal = Terminal(me.home, "mutt", str(script))
    try:
        terminal.wait("for mutt")
    finally:
        terminal.close()


def ssl_pem(certificate: bytes) -> str:
    return ssl.DER_cert_to_PEM_cert(certificate)


def test_export_goes_to_another_machine(me, tmp_path):
    me.account(trust=["first-use"])
    assert me.run("fetch")[0] == 1
    _, said, _ = me.run("trust", "export")
    (tmp_path / "known").write_text(said)
    me.extra = {"FUBAKO_HOME": str(tmp_path / "other")}
    code, words, _ = me.run("trust", "import", str(tmp_path / "known"))
    assert code == 0 and "1 of them new" in words
    facts = json.loads(said)
    facts["peers"][0]["sha256"] = "00" * 32
    (tmp_path / "known").write_text(json.dumps(facts))
    code, _, error = me.run("trust", "import", str(tmp_path / "known"))
    assert code == 65 and "ANOTHER key" in error
    for text in ("{", "[]", '{"peers": [1]}', "hello"):
        (tmp_path / "known").write_text(text)
        assert me.run("trust", "import", str(tmp_path / "known"))[0] == 65

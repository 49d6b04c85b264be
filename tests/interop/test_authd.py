"""Other programs ask us whether a login holds: Cyrus SASL's testsaslauthd, and Postfix by Dovecot's protocol."""

import json
import os
import smtplib
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest
from memory_server import certificates
from peers import Postfix
from server import Server, without
from test_programs import run


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("authd") / "data").start()
    assert server.stop() == 0
    place = Path(tempfile.mkdtemp(prefix="fa"))  # a Unix socket's path is short
    place.chmod(0o755)
    path = server.root / "fubako.toml"
    for service in ("saslauthd", "dovecot-auth"):
        folder = place / service
        folder.mkdir()
        text = f'\n[[listen]]\nservice = "{service}"\naddresses = ["{folder}/mux"]\n'
        if service == "dovecot-auth":
            text += 'mechanisms = ["SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"]\n'
        path.write_text(path.read_text() + text)
    server.place = place
    server.start()
    yield server
    assert server.stop() == 0


def test_testsaslauthd(house, home):
    if not os.path.exists("/usr/sbin/testsaslauthd"):
        without("not installed: testsaslauthd")
    address, password, _ = house.account("bob")
    name, _, realm = address.partition("@")
    socket = str(house.place / "saslauthd" / "mux")
    for words, good in ((("-u", name, "-r", realm, "-p", password), True), (("-u", address, "-p", password), True),
                        (("-u", name, "-p", password), True), (("-u", name, "-r", realm, "-p", "wrong"), False),
                        (("-u", "nobody", "-r", realm, "-p", password), False)):  # fmt: skip
        done = run("testsaslauthd", "-f", socket, "-s", "imap", *words, home=home)
        assert (done.returncode == 0) is good and (b'OK "' in done.stdout) is good, (words, done.stdout)


def test_our_own_client_of_saslauthd(house):
    import asyncio

    from fubako.accounts.backends.interface import Verdict
    from fubako.accounts.backends.saslauthd import Saslauthd

    address, password, _ = house.account("bob")
    ours = Saslauthd(house.place / "saslauthd" / "mux")
    assert asyncio.run(ours.check(address, password)) is Verdict.HELD
    assert asyncio.run(ours.check(address, "wrong")) is Verdict.WRONG


@pytest.mark.parametrize(
    "octets", [b"\xff\xff", b"\x00\x01a" * 3 + b"\x00\x01", b"\x00\x02\xff\xfe" + b"\x00\x00" * 3, b"\x00\x00" * 9]
)
def test_what_is_no_question_is_not_answered(house, octets):
    import socket

    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(str(house.place / "saslauthd" / "mux"))
        peer.sendall(octets)
        peer.shutdown(socket.SHUT_WR)
        assert peer.recv(100) == b""


@pytest.fixture(scope="module")
def postfix(house):
    if os.getuid() != 0:
        without("Postfix starts only as root")
    socket = house.place / "dovecot-auth" / "mux"
    (house.place / "dovecot-auth").chmod(0o755)
    socket.chmod(0o666)  # an administrator would give it to Postfix's group
    certificate = certificates()
    more = {
        "smtpd_sasl_type": "dovecot",
        "smtpd_sasl_path": socket,
        "smtpd_sasl_auth_enable": "yes",
        "smtpd_tls_auth_only": "yes",
    }
    server = Postfix(house.place / "postfix", certificate / "s.pem", certificate / "s.key", more=more)
    server.start()
    yield server
    server.stop()


def test_postfix_logs_our_users_in(house, postfix, needs):
    needs("postfix", "swaks")
    address, password, _ = house.account("alice")
    for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
        for words, good in ((password, True), ("wrong", False)):
            client = smtplib.SMTP("127.0.0.1", postfix.ports["smtp"])
            client.starttls()
            client.ehlo()
            assert mechanism in client.esmtp_features["auth"]
            client.user, client.password = address, words
            method = {"PLAIN": client.auth_plain, "LOGIN": client.auth_login, "CRAM-MD5": client.auth_cram_md5}[
                mechanism
            ]
            try:
                code = client.auth(mechanism, method)[0]
            except smtplib.SMTPAuthenticationError as error:
                code = error.smtp_code
            assert (code == 235) is good, (mechanism, words, code)
            client.close()


def test_gsasl_by_scram_through_postfix(house, postfix, needs, home):
    """Many steps in one login; and another one at the same time."""
    import asyncio

    from fubako.client import smtp
    from fubako.client.connection import ClientError, Credentials, Peer
    from fubako.clock import Env
    from fubako.protocol.sasl import SaslFailure

    address, password, _ = house.account("alice")

    async def login(words):
        peer = Peer(
            "127.0.0.1", postfix.ports["smtp"], "localhost", (certificates() / "ca.pem",), False, implicit_tls=False
        )
        async with smtp.connected(peer, Env(), "client.test") as connection:
            await connection.login(Credentials(address, words, ("SCRAM-SHA-256",)))
            return True

    async def many():
        return await asyncio.gather(*(login(words) for words in (password, "wrong") * 4), return_exceptions=True)

    found = asyncio.run(many())
    assert found[::2] == [True] * 4 and all(isinstance(one, ClientError | SaslFailure) for one in found[1::2]), found


def test_a_password_without_tls_is_not_taken(house):
    """Postfix says `secured` when its client is protected; without it PLAIN fails."""
    import base64
    import socket

    address, password, _ = house.account("alice")
    secret = base64.b64encode(f"\0{address}\0{password}".encode()).decode()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(str(house.place / "dovecot-auth" / "mux"))
        said = b""
        while b"DONE\n" not in said:
            said += peer.recv(4096)
        assert b"MECH\tSCRAM-SHA-256" in said and b"MECH\tPLAIN\tplaintext" in said and b"EXTERNAL" not in said
        peer.sendall(b"VERSION\t1\t1\nCPID\t1\n")
        peer.sendall(f"AUTH\t1\tPLAIN\tservice=smtp\tresp={secret}\n".encode())
        assert peer.recv(4096) == b"FAIL\t1\n"
        peer.sendall(f"AUTH\t2\tPLAIN\tservice=smtp\tsecured\tresp={secret}\n".encode())
        assert peer.recv(4096) == f"OK\t2\tuser={address}\n".encode()
        peer.sendall(b"AUTH\t3\tGSSAPI\tservice=smtp\tsecured\n")
        assert peer.recv(4096) == b"FAIL\t3\n"
        peer.sendall(b"NONSENSE\n")
        assert peer.recv(4096) == b""


def test_the_sockets_are_not_for_everybody(house):
    assert (house.place / "saslauthd" / "mux").stat().st_mode & 0o777 == 0o660


def test_sasldb_is_taken_over(house, tmp_path, needs):
    """Passwords that Cyrus SASL kept: SCRAM and CRAM-MD5 work at once."""
    needs("saslpasswd2")
    for name in ("cyrus1", "cyrus2"):
        subprocess.run(
            ["saslpasswd2", "-p", "-c", "-f", str(tmp_path / "db"), "-u", "fubako.test", name],
            input=b"old words",
            check=True,
        )
    rows = json.loads(
        house.fubako("user", "import", str(tmp_path / "db"), "--create", "--keep-secret", "--json").stdout
    )
    assert [(row["address"], row["taken"]) for row in rows] == [
        ("cyrus1@fubako.test", True),
        ("cyrus2@fubako.test", True),
    ]
    listed = house.fubako("user", "list", "fubako.test", "--sasl", "--json").stdout
    (one,) = [row for row in json.loads(listed) if row["user"] == "cyrus1"]
    assert "CRAM-MD5" in one["mechanisms"] and "SCRAM-SHA-256" in one["mechanisms"]
    client = smtplib.SMTP("localhost", house.port("submission"))
    client.starttls(context=ssl.create_default_context(cafile=house.ca))
    client.login("cyrus2@fubako.test", "old words")
    client.quit()
    (tmp_path / "bad").write_bytes((tmp_path / "db").read_bytes()[:5000] + b"\xff" * 4000)
    done = house.fubako("user", "import", str(tmp_path / "bad"))
    assert done.returncode != 0 and "Traceback" not in done.stderr

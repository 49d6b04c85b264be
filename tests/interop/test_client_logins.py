"""Our clients' side of every mechanism against servers that are not ours: Dovecot, Postfix with Cyrus SASL, gsasl."""

import asyncio
import base64
import ctypes
import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from checkers import ALICE, Realm, environment, listens, need, running, until
from memory_server import certificates
from peers import Postfix, free_port
from server import without

from fubako.client import imap, pop3, smtp
from fubako.client.connection import ClientError, Credentials, Peer
from fubako.clock import Env
from fubako.protocol.sasl import Binding, Proofs, SaslFailure, client

USER, WORDS = "alice@HERE.TEST", "main words"
CA = certificates() / "ca.pem"


class Dovecot:
    """All that Debian's Dovecot can: no -PLUS in 2.3."""

    def __init__(self, realm: Realm) -> None:
        from joserfc import jwk

        self.root = Path(tempfile.mkdtemp(prefix="dc"))
        self.root.chmod(0o755)
        self.imap, self.pop3 = free_port(), free_port()
        self.key = jwk.OctKey.import_key(b"k" * 32)
        keys = self.root / "keys" / "default" / "HS256"
        keys.mkdir(parents=True)
        (keys / "one").write_text(base64.b64encode(b"k" * 32).decode())
        chain, key = certificates() / "s.pem", certificates() / "s.key"
        people = (
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "3",
        )
        made = ("-subj", f"/CN={USER}", "-keyout", str(self.root / "own.key"), "-out", str(self.root / "own.pem"))
        subprocess.run([*people, *made], check=True, capture_output=True)
        (self.root / "passwd").write_text(f"{USER}:{{PLAIN}}{WORDS}::::::\n{USER.lower()}:{{PLAIN}}{WORDS}::::::\n")
        (self.root / "oauth").write_text(
            f"introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix={self.root}/keys/\n"
            "username_attribute = email\n"
        )
        (self.root / "conf").write_text(
            f"""
base_dir = {self.root}/run
state_dir = {self.root}/state
log_path = {self.root}/log
protocols = imap pop3
ssl = required
ssl_cert = <{chain}
ssl_key = <{key}
ssl_ca = <{self.root}/own.pem
ssl_verify_client_cert = yes
ssl_require_crl = no
auth_ssl_username_from_cert = yes
auth_mechanisms = plain login cram-md5 digest-md5 scram-sha-1 scram-sha-256 gssapi oauthbearer xoauth2 external anonymous
auth_realms = HERE.TEST localhost
auth_krb5_keytab = {realm.keytab}
auth_gssapi_hostname = localhost
auth_username_format = %u
auth_failure_delay = 0
import_environment = KRB5_CONFIG={realm.env["KRB5_CONFIG"]}
mail_location = maildir:{self.root}/mail/%u
mail_uid = 1000
mail_gid = 1000
first_valid_uid = 100
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service imap-login {{
  inet_listener imap {{
    address = 127.0.0.1
    port = {self.imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    address = 127.0.0.1
    port = {self.pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
passdb {{
  driver = oauth2
  mechanisms = oauthbearer xoauth2
  args = {self.root}/oauth
}}
passdb {{
  driver = passwd-file
  mechanisms = plain login cram-md5 digest-md5 scram-sha-1 scram-sha-256
  args = {self.root}/passwd
}}
passdb {{
  driver = static
  mechanisms = external gssapi
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid=1000 gid=1000 home={self.root}/mail/%u
}}
"""
        )
        (self.root / "mail").mkdir()
        os.chown(self.root / "mail", 1000, 1000)

    def token(self) -> str:
        from joserfc import jwt

        now = int(time.time())
        claims = {"email": USER, "sub": USER, "iss": "x", "exp": now + 600, "iat": now - 5, "nbf": now - 5}
        return jwt.encode({"alg": "HS256", "kid": "one", "typ": "JWT"}, claims, self.key)


@pytest.fixture(scope="module")
def dovecot():
    need("dovecot")
    if os.getuid() != 0:
        without("Dovecot starts only as root")
    folder = Path(tempfile.mkdtemp(prefix="rk"))  # its processes become other users, who cannot enter pytest's folders
    folder.chmod(0o755)
    realm = Realm(folder)
    realm.keytab.chmod(0o644)
    server = Dovecot(realm)
    server.realm = realm
    with realm.kdc(), running("dovecot", "-F", "-c", str(server.root / "conf")):
        realm.started()
        until(lambda: listens(server.imap) and listens(server.pop3))
        with environment(KRB5_CONFIG=realm.env["KRB5_CONFIG"], KRB5CCNAME=f"FILE:{folder}/mine"):
            subprocess.run(["kinit", "alice"], input=ALICE + "\n", text=True, check=True, capture_output=True)
            yield server


def proofs(server, mechanism: str, words: str = WORDS) -> Credentials:
    match mechanism:
        case "GSSAPI":
            return Credentials(USER, mechanisms=(mechanism,), kerberos=True)
        case "OAUTHBEARER" | "XOAUTH2":
            return Credentials(USER, mechanisms=(mechanism,), token=server.token() if words == WORDS else "a.b.c")
        case "EXTERNAL":
            return Credentials(
                USER, mechanisms=(mechanism,), external=True, authzid=USER if words == WORDS else "carol"
            )
    return Credentials(USER, words, (mechanism,))


async def login(server, kind, mechanism: str, words: str = WORDS):
    port = server.imap if kind is imap else server.pop3
    own = (server.root / "own.pem", server.root / "own.key") if mechanism == "EXTERNAL" else None
    peer = Peer("127.0.0.1", port, "localhost", (CA,), False, implicit_tls=False, certificate=own)
    async with kind.connected(peer, Env()) as connection:
        await connection.login(proofs(server, mechanism, words))
        return connection.hop()


MECHANISMS = (
    "PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "GSSAPI", "OAUTHBEARER", "XOAUTH2", "EXTERNAL",
)  # fmt: skip


@pytest.mark.parametrize("kind", [imap, pop3], ids=["imap", "pop3"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_dovecot(dovecot, kind, mechanism):
    hop = asyncio.run(login(dovecot, kind, mechanism))
    assert (hop.user, hop.mechanism) == (USER, mechanism)
    if mechanism != "GSSAPI":
        with pytest.raises((ClientError, SaslFailure)):
            asyncio.run(login(dovecot, kind, mechanism, "other words"))


@pytest.fixture(scope="module")
def cyrus():
    """Postfix whose logins are Cyrus SASL's, from a sasldb2 of its own."""
    need("postfix", "saslpasswd2")
    if os.getuid() != 0:
        without("Postfix starts only as root")
    root = Path(tempfile.mkdtemp(prefix="cy"))
    root.chmod(0o755)
    database = root / "sasldb2"
    subprocess.run(
        ["saslpasswd2", "-p", "-c", "-f", str(database), "-u", "bench.test", "alice"], input=WORDS.encode(), check=True
    )
    database.chmod(0o644)
    more = {
        "smtpd_sasl_type": "cyrus", "smtpd_sasl_path": "smtpd",
        "smtpd_sasl_auth_enable": "yes", "smtpd_sasl_local_domain": "bench.test", "smtpd_sasl_security_options": "noanonymous",
        "smtpd_tls_auth_only": "yes",
    }  # fmt: skip
    server = Postfix(root / "postfix", certificates() / "s.pem", certificates() / "s.key", more=more)
    server.start()
    folder = root / "postfix" / "etc" / "sasl"  # where Debian's Postfix looks
    folder.mkdir(exist_ok=True)
    (folder / "smtpd.conf").write_text(
        f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {database}\n"
        "mech_list: PLAIN LOGIN CRAM-MD5 DIGEST-MD5 SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-512\n"
    )
    yield server
    server.stop()


@pytest.mark.parametrize(
    "mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"]
)
def test_postfix_with_cyrus_sasl(cyrus, mechanism):
    async def login(words: str) -> str:
        peer = Peer("127.0.0.1", cyrus.ports["smtp"], "localhost", (CA,), False, implicit_tls=False)
        async with smtp.connected(peer, Env(), "client.test") as connection:
            await connection.login(
                Credentials("alice@bench.test" if mechanism != "DIGEST-MD5" else "alice", words, (mechanism,))
            )
            return connection.hop().mechanism

    assert asyncio.run(login(WORDS)) == mechanism
    with pytest.raises((ClientError, SaslFailure)):
        asyncio.run(login("other words"))


def test_gsasl_as_a_server(needs):
    """Over a pipe: its challenges and our answers, base64 a line."""
    needs("gsasl")
    for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"):
        for words, good in ((WORDS, True), ("other words", False)):
            assert asyncio.run(against_gsasl(mechanism, words)) is good, mechanism


async def against_gsasl(mechanism: str, words: str) -> bool:
    """It echoes the mechanism's name, asks with an empty line for a first response, and waits for letters when the login held."""
    server = await asyncio.create_subprocess_exec(
        "gsasl", "--server", "--no-starttls", "--mechanism", mechanism, "--authentication-id", "alice", "--password", WORDS,
        "--service", "imap", "--hostname", "localhost", "--realm", "localhost", "--quiet",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    given = Proofs("alice", words, service="imap", host="localhost")
    _, dialogue = client([mechanism], given, "nonce", Binding(), allowed=(mechanism,))
    response = next(dialogue)
    refused = ended = False
    try:
        assert (await server.stdout.readline()).strip() == mechanism.encode()
        waiting = mechanism not in ("CRAM-MD5", "DIGEST-MD5", "LOGIN")
        while not ended:
            try:
                line = (await asyncio.wait_for(server.stdout.readline(), 3)).strip()
            except TimeoutError:
                break
            if b"mechanism error" in line or (not line and server.stdout.at_eof()):
                refused = True
                break
            if b"warning" in line:
                continue
            if waiting and not line:
                waiting = False
            else:
                try:
                    response = dialogue.send(base64.b64decode(line))
                except StopIteration:
                    ended = not line
                    continue
            server.stdin.write(base64.b64encode(response) + b"\n")
    except SaslFailure:
        refused = True
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()
    return not refused


_AUTHID, _PASSWORD, _EXPORTER = 1, 3, 25  # gsasl.h


def step(library, session, given: bytes) -> tuple[int, bytes]:
    """gsasl_step: 0 it is done, 1 it needs more, everything else a failure."""
    out, length = ctypes.c_void_p(), ctypes.c_size_t()
    code = library.gsasl_step(session, given, len(given), ctypes.byref(out), ctypes.byref(length))
    said = ctypes.string_at(out, length.value) if out.value else b""
    return code, said


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS"])
@pytest.mark.parametrize(
    ("words", "bound", "good"), [(WORDS, b"e" * 32, True), ("other words", b"e" * 32, False), (WORDS, b"m" * 32, False)]
)
def test_libgsasl_as_a_server_that_binds_the_channel(mechanism, words, bound, good):
    """Another one's server of SCRAM with tls-exporter (RFC 9266); in the last case somebody stands in the channel."""
    try:
        library = ctypes.CDLL("libgsasl.so.18")
    except OSError:
        without("not installed: libgsasl18")
    context, session = ctypes.c_void_p(), ctypes.c_void_p()
    library.gsasl_property_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
    library.gsasl_step.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p)
    assert library.gsasl_init(ctypes.byref(context)) == 0
    assert library.gsasl_server_start(context, mechanism.encode(), ctypes.byref(session)) == 0
    library.gsasl_property_set(session, _EXPORTER, base64.b64encode(b"e" * 32))
    library.gsasl_property_set(session, _PASSWORD, WORDS.encode())
    _, dialogue = client(
        [mechanism], Proofs("alice", words), "nonce", Binding({"tls-exporter": bound}), allowed=(mechanism,)
    )
    code, challenge = step(library, session, next(dialogue))
    assert code == 1
    code, final = step(library, session, dialogue.send(challenge))
    assert (code in (0, 1)) is good
    if good:
        assert dialogue.send(final) == b""  # and it proved that it knows the password too

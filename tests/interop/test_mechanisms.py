"""Each mechanism by programs that are not ours: gsasl, curl, msmtp, swaks, mutt, Cyrus SASL's imtest; with a Kerberos realm."""

import imaplib
import json
import os
import re
import ssl
import subprocess
import time

import pytest
from checkers import ALICE, Realm
from server import Server
from test_programs import Terminal, deliver, kept, run

ALL = (
    "SCRAM-SHA-512-PLUS", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "DIGEST-MD5",
    "CRAM-MD5", "EXTERNAL", "GS2-KRB5-PLUS", "GS2-KRB5", "GSSAPI", "OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN", "ANONYMOUS",
)  # fmt: skip
PASSWORD = "main words"
ISSUER, AUDIENCE = "https://issuer.here.test", "mail"


class House(Server):
    """A server that offers everything. alice@here.test is in the realm HERE.TEST, has tokens, and a certificate."""

    def prepare(self, tmp) -> "House":
        from joserfc import jwk

        self.realm = Realm(tmp)
        self.key = jwk.ECKey.generate_key("P-256", {"kid": "one", "use": "sig"})
        (self.root / "jwks.json").write_text(json.dumps({"keys": [self.key.as_dict(private=False)]}))
        path = self.root / "fubako.toml"
        text = re.sub(r"mechanisms = \[.*\]", f"mechanisms = {json.dumps(ALL)}", path.read_text())
        text = text.replace("[login]\n", '[login]\nanonymous = "public@fubako.test"\n')
        text = text.replace("[tls]\n", '[tls]\nclient_certificates = true\nclient_ca_files = ["people.pem"]\n')
        text = text.replace('service = "imaps"\n', 'service = "imaps"\ncertificate_login = true\n')
        text += (
            f'\n[kerberos]\nkeytab = "{self.realm.keytab}"\n\n[oauth]\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\n'
            'keys = "jwks.json"\nscope = "mail"\n\n[[login.act_as]]\nuser = "alice@here.test"\naccounts = ["*@here.test"]\n'
        )
        elliptic = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        people = ("openssl", "req", "-x509", *elliptic, "-days", "3")
        self.openssl(*people, "-subj", "/CN=people", "-keyout", "people.key", "-out", "people.pem")
        path.write_text(text)
        self.start()
        for arguments in (("domain", "add", "here.test"), ("user", "add", "alice@here.test", "--password-stdin", "--keep-secret"),
                          ("user", "add", "bob@here.test", "--password-stdin"), ("user", "add", "public@fubako.test")):  # fmt: skip
            done = self.fubako(*arguments, stdin=f"{PASSWORD}\n")
            assert done.returncode == 0, done.stderr
        self.openssl(*people, "-subj", "/CN=alice", "-keyout", "own.key", "-out", "own.pem")  # nobody signed it
        assert self.fubako("user", "cert", "add", "alice@here.test", str(self.root / "own.pem")).returncode == 0
        for name, mail in (("signed", "email:bob@here.test"), ("two", "email:bob@here.test,email:alice@here.test")):
            made = ("-subj", "/CN=x", "-keyout", f"{name}.key", "-out", f"{name}.csr")
            self.openssl("openssl", "req", *elliptic, *made)
            (self.root / "ext").write_text(f"subjectAltName={mail}\n")
            by = ("-CA", "people.pem", "-CAkey", "people.key", "-days", "3", "-extfile", "ext", "-out", f"{name}.pem")
            self.openssl("openssl", "x509", "-req", "-in", f"{name}.csr", *by)
        claim = ("-subj", "/CN=stranger", "-addext", "subjectAltName=email:bob@here.test")
        self.openssl(*people, *claim, "-keyout", "stranger.key", "-out", "stranger.pem")
        return self

    def openssl(self, *words: str) -> None:
        subprocess.run(words, cwd=self.root, check=True, capture_output=True, timeout=60)

    def token(self, **more) -> str:
        from joserfc import jwt

        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "exp": int(time.time()) + 600,
            "scope": "openid mail",
            "email": "alice@here.test",
            "email_verified": True,
        }
        header = {"alg": more.pop("alg", "ES256"), "kid": more.pop("kid", "one")}
        key = more.pop("key", self.key)
        claims |= more
        return jwt.encode(
            header,
            {name: value for name, value in claims.items() if value is not None},
            key,
            algorithms=[header["alg"]],
        )

    def context(self, certificate: str = "") -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if certificate:
            context.load_cert_chain(self.root / f"{certificate}.pem", self.root / f"{certificate}.key")
        return context


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    running = House(tmp_path_factory.mktemp("house") / "data").start()
    assert running.stop() == 0
    running.prepare(tmp_path_factory.mktemp("realm"))
    with running.realm.kdc():
        running.realm.started()
        yield running
    assert running.stop() == 0


@pytest.fixture
def ticket(house, tmp_path):
    """The environment of a program whose user ran kinit."""
    env = {"KRB5_CONFIG": house.realm.env["KRB5_CONFIG"], "KRB5CCNAME": f"FILE:{tmp_path}/cc"}
    subprocess.run(
        ["kinit", "alice"], input=ALICE + "\n", text=True, env={**os.environ, **env}, check=True, capture_output=True
    )
    return env


def gsasl(house, home, mechanism, *words, service="imap", stdin=b"", **env):
    """Without channel binding where the mechanism has none: it would say that it saw no -PLUS, and that is a lie."""
    port = house.port({"imap": "imap", "smtp": "submission"}[service])
    bind = () if mechanism.endswith("-PLUS") else ("--no-cb",)
    return run(
        "gsasl", f"--{service}", "--starttls", "--x509-ca-file", house.ca, "--mechanism", mechanism, *bind, *words, "localhost",
        str(port), home=home, stdin=stdin, **env,
    )  # fmt: skip


PASSWORDS = (
    "PLAIN",
    "LOGIN",
    "CRAM-MD5",
    "DIGEST-MD5",
    "SCRAM-SHA-1",
    "SCRAM-SHA-256",
    "SCRAM-SHA-1-PLUS",
    "SCRAM-SHA-256-PLUS",
)


@pytest.mark.parametrize("mechanism", PASSWORDS)
def test_gsasl_with_a_password(house, home, needs, mechanism):
    needs("gsasl")
    words = ("--authentication-id", "alice@here.test", "--password", PASSWORD, "--authorization-id", "")
    more = ("--hostname", "localhost", "--service", "imap", "--realm", "localhost") if mechanism == "DIGEST-MD5" else ()
    done = gsasl(house, home, mechanism, *words, *more)
    assert done.returncode == 0 and b"welcome" in done.stdout + done.stderr, done.stdout + done.stderr
    wrong = (*words[:3], "other words", *words[4:])
    done = gsasl(house, home, mechanism, *wrong, *more)
    assert done.returncode != 0 and b"welcome" not in done.stdout


def test_gsasl_goes_on_through_the_layer_of_digest_md5(house, home, needs):
    """qop=auth-int inside of TLS: commands and answers are signed and numbered."""
    needs("gsasl")
    words = ("--authentication-id", "alice@here.test", "--password", PASSWORD, "--authorization-id", "", "--hostname", "localhost",
             "--service", "imap", "--realm", "localhost")  # fmt: skip
    done = gsasl(
        house,
        home,
        "DIGEST-MD5",
        *words,
        "--quality-of-protection",
        "qop-int",
        stdin=b"z1 STATUS INBOX (MESSAGES)\nz2 LOGOUT\n",
    )
    assert b"z1 OK counted" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("mechanism", ["GSSAPI", "GS2-KRB5"])
def test_gsasl_with_a_ticket(house, home, needs, ticket, mechanism):
    needs("gsasl")
    words = (
        "--service",
        "imap",
        "--hostname",
        "localhost",
        "--authentication-id",
        "alice@HERE.TEST",
        "--authorization-id",
    )
    done = gsasl(house, home, mechanism, *words, "alice@here.test", **ticket)
    assert done.returncode == 0 and b"welcome" in done.stdout, done.stdout + done.stderr
    done = gsasl(house, home, mechanism, *words, "bob@here.test", **ticket)  # a rule lets her
    assert done.returncode == 0 and b"welcome" in done.stdout, done.stdout + done.stderr
    assert gsasl(house, home, mechanism, *words, "alice@fubako.test", **ticket).returncode != 0
    without = {**ticket, "KRB5CCNAME": f"FILE:{home}/none"}
    assert gsasl(house, home, mechanism, *words, "alice@here.test", **without).returncode != 0


def test_gsasl_without_a_name(house, home, needs):
    needs("gsasl")
    done = gsasl(house, home, "ANONYMOUS", "--anonymous-token", "sirhc")
    assert done.returncode == 0 and b"welcome" in done.stdout, done.stdout + done.stderr


def test_gsasl_with_a_certificate(house, home, needs):
    needs("gsasl")
    shown = ("--x509-cert-file", str(house.root / "own.pem"), "--x509-key-file", str(house.root / "own.key"))
    done = gsasl(house, home, "EXTERNAL", *shown, "--authorization-id", "")
    assert done.returncode == 0 and b"welcome" in done.stdout, done.stdout + done.stderr
    assert gsasl(house, home, "EXTERNAL", "--authorization-id", "alice@here.test").returncode != 0


# -- msmtp, swaks, curl, mutt, Python, Cyrus SASL


def msmtp(house, home, mechanism, *words, sender="alice@here.test", letter=b"Subject: by msmtp\n\nx\n", **env):
    return run(
        "msmtp", "--host=localhost", f"--port={house.port('submission')}", "--tls=on", f"--tls-trust-file={house.ca}",
        f"--auth={mechanism}", f"--user={sender}", f"--from={sender}", *words, "alice@here.test", home=home, stdin=letter, **env,
    )  # fmt: skip


def test_msmtp_with_a_ticket_a_token_and_a_certificate(house, home, needs, ticket):
    needs("msmtp")
    before = len(kept(house, ("alice@here.test", PASSWORD)))
    done = msmtp(house, home, "gssapi", **ticket)
    assert done.returncode == 0, done.stderr
    for mechanism in ("oauthbearer", "xoauth2"):
        done = msmtp(house, home, mechanism, f"--passwordeval=echo {house.token()}")
        assert done.returncode == 0, done.stderr
        assert msmtp(house, home, mechanism, f"--passwordeval=echo {house.token(aud='other')}").returncode != 0
    shown = (f"--tls-cert-file={house.root / 'own.pem'}", f"--tls-key-file={house.root / 'own.key'}")
    done = msmtp(house, home, "external", *shown)
    assert done.returncode == 0, done.stderr
    letters = kept(house, ("alice@here.test", PASSWORD))
    assert len(letters) == before + 4
    for letter, mechanism in zip(letters[before:], ("GSSAPI", "OAUTHBEARER", "XOAUTH2", "EXTERNAL"), strict=True):
        trace = house.fubako("trace", re.search(rb"id ([0-9a-f]{20})", letter)[1].decode()).stdout
        assert f"alice@here.test by {mechanism}" in trace


@pytest.mark.parametrize("mechanism", ["digest-md5", "cram-md5", "scram-sha-1", "scram-sha-256", "plain", "login"])
def test_msmtp_with_a_password(house, home, needs, mechanism):
    needs("msmtp")
    done = msmtp(house, home, mechanism, f"--passwordeval=echo {PASSWORD}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("service", ["imaps", "pop3s", "smtps"])
def test_curl_with_a_token(house, home, needs, service):
    needs("curl")
    port = house.port({"smtps": "submissions"}.get(service, service))
    to = ("--mail-from", "alice@here.test", "--mail-rcpt", "alice@here.test", "-T", "-") if service == "smtps" else ()
    for token, good in ((house.token(), True), (house.token(exp=1), False)):
        done = run(
            "curl", "-sS", "--cacert", house.ca, "--oauth2-bearer", token, "-u", "alice@here.test:", *to, f"{service}://localhost:{port}/",
            home=home, stdin=b"Subject: by curl\r\n\r\nx\r\n",
        )  # fmt: skip
        assert (done.returncode == 0) is good, done.stderr


def test_curl_with_a_certificate_begins_logged_in(house, home, needs):
    """certificate_login: the handshake was the login."""
    needs("curl")
    client = imaplib.IMAP4_SSL("localhost", house.port("imaps"), ssl_context=house.context("own"))
    assert client.state == "AUTH" and client.welcome.startswith(b"* PREAUTH ")
    client.logout()
    shown = ("--cert", str(house.root / "own.pem"), "--key", str(house.root / "own.key"))
    done = run(
        "curl", "-sS", "--cacert", house.ca, *shown, f"imaps://localhost:{house.port('imaps')}/INBOX?ALL", home=home
    )
    assert done.returncode == 0 and b"* SEARCH" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("certificate", "who"), [("own", "alice"), ("signed", "bob"), ("two", ""), ("stranger", ""), ("", "")]
)
def test_whose_a_certificate_is(house, certificate, who):
    """A fingerprint that was enrolled, or the one mail address that our authority wrote into it."""
    client = imaplib.IMAP4("localhost", house.port("imap"))
    client.starttls(house.context(certificate))
    assert ("AUTH=EXTERNAL" in client.capabilities) is bool(certificate)
    if not certificate:
        return
    if not who:
        with pytest.raises(imaplib.IMAP4.error):
            client.authenticate("EXTERNAL", lambda _: b"")
        return
    client.authenticate("EXTERNAL", lambda _: f"{who}@here.test".encode())
    client.logout()


def test_swaks_by_every_mechanism_that_it_knows(house, home, needs):
    needs("swaks")
    for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5"):
        to = (
            "--server",
            f"localhost:{house.port('submission')}",
            "--from",
            "alice@here.test",
            "--to",
            "alice@here.test",
        )
        who = ("--auth-user", "alice@here.test", "--auth-password", PASSWORD, "--auth-extra", "realm=localhost")
        done = run("swaks", *to, "-tls", "--auth", mechanism, *who, home=home)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("mechanism", ["gssapi", "scram-sha-256", "digest-md5", "anonymous", "plain"])
def test_mutt(house, home, needs, ticket, mechanism):
    needs("mutt", "tmux")
    deliver(house, ("alice@here.test", PASSWORD), f"Subject: mutt by {mechanism}\r\n\r\nhello\r\n".encode())
    rc = home / "muttrc"
    rc.write_text(
        f'set imap_user="alice@here.test" imap_pass="{PASSWORD}" imap_authenticators="{mechanism}"\n'
        f"set ssl_ca_certificates_file={house.ca}\n"
        f'set folder="imap://localhost:{house.port("imap")}" spoolfile="imap://localhost:{house.port("imap")}/INBOX"\n'
        "set sleep_time=0 timeout=1 wait_key=no ssl_starttls=yes ssl_verify_host=yes\n"
    )
    terminal = Terminal(home, mechanism, f"env {' '.join(f'{k}={v}' for k, v in ticket.items())} mutt -n -F {rc}")
    try:
        terminal.wait("Msgs:0" if mechanism == "anonymous" else f"mutt by {mechanism}")
    finally:
        terminal.close()


CYRUS = "/usr/lib/cyrus/bin"


@pytest.mark.parametrize(
    "mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI"]
)
def test_imtest(house, home, ticket, mechanism):
    """Cyrus SASL's own client."""
    if not os.path.exists(f"{CYRUS}/imtest"):
        from server import without

        without("not installed: imtest")
    user = () if mechanism == "CRAM-MD5" else ("-u", "")  # it has no name to act as
    done = run(
        f"{CYRUS}/imtest", "-t", "", "-m", mechanism, "-a", "alice@here.test", *user, "-w", PASSWORD, "-p", str(house.port("imap")),
        "localhost", home=home, stdin=b"z LOGOUT\r\n", **ticket,
    )  # fmt: skip
    assert b"Authenticated." in done.stdout and b"welcome" in done.stdout, done.stdout + done.stderr

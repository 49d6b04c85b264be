"""`fubako wrap`: programs without TLS speak to servers with it, and the other way round."""

import imaplib
import json
import poplib
import re
import smtplib
import socket
import ssl
import subprocess
import threading
import time

import pytest
from memory_server import certificates
from peers import free_port
from server import FUBAKO
from test_programs import deliver, kept, run

from fubako.net import proxy


class Wrap:
    def __init__(self, *words: str, listening: str = "stdout") -> None:
        self.port, self.listening = free_port(), listening
        self.process = subprocess.Popen(
            [FUBAKO, "wrap", f"127.0.0.1:{self.port}", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Wrap":
        assert getattr(self.process, self.listening).readline().endswith("Ctrl-C ends it.\n"), (
            self.process.stderr.read()
        )
        return self

    def __exit__(self, *_error) -> None:
        self.process.send_signal(2)
        self.process.wait(10)
        self.said = self.process.stderr.read()


@pytest.mark.parametrize(
    ("service", "starttls"),
    [("imaps", ""), ("imap", "imap"), ("pop3s", ""), ("pop3", "pop3"), ("submissions", ""), ("submission", "smtp")],
)
def test_a_program_without_tls(server, user, letter, service, starttls):
    deliver(server, user, letter)
    words = (
        f"localhost:{server.port(service)}",
        "--ca-file",
        server.ca,
        *(("--starttls", starttls) if starttls else ()),
    )
    with Wrap(*words) as wrap:
        if service.startswith("imap"):
            client = imaplib.IMAP4("127.0.0.1", wrap.port)
            client.login(*user)
            client.select()
            assert letter in client.fetch("1", "(BODY.PEEK[])")[1][0][1]
            client.logout()
        elif service.startswith("pop3"):
            client = poplib.POP3("127.0.0.1", wrap.port)
            client.user(user[0])
            client.pass_(user[1])
            assert len(client.retr(1)[1]) > 10
            client.quit()
        else:
            client = smtplib.SMTP("127.0.0.1", wrap.port)
            client.login(*user)
            client.sendmail(user[0], [user[0]], "Subject: wrapped\r\n\r\n" + "x" * 70_000)
            client.quit()
            assert any(b"Subject: wrapped" in one for one in kept(server, user))


@pytest.mark.parametrize("words", [(), ("--server-name", "other.test"), ("--pin", "ab" * 32)])
def test_a_server_that_nobody_vouches_for_hears_nothing(server, words):
    trust = ("--ca-file", server.ca) if words[:1] == ("--server-name",) else ()
    wrap = Wrap(f"localhost:{server.port('imaps')}", *trust, *words)
    with wrap, socket.create_connection(("127.0.0.1", wrap.port), 10) as peer:
        peer.sendall(b"a LOGIN bob secret\r\n")
        assert peer.recv(100) == b""
    assert re.search("authority|is for|pinned", wrap.said), wrap.said


def test_starttls_that_is_hidden(server):
    listener = socket.create_server(("127.0.0.1", 0))
    heard = []

    def lie() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"220 x ESMTP\r\n")
            heard.append(peer.recv(1000))
            peer.sendall(b"250-x\r\n250 AUTH PLAIN\r\n")
            heard.append(peer.recv(1000))

    threading.Thread(target=lie, daemon=True).start()
    with Wrap(f"localhost:{listener.getsockname()[1]}", "--starttls", "smtp") as wrap:
        with socket.create_connection(("127.0.0.1", wrap.port), 10) as peer:
            peer.sendall(b"EHLO me\r\nAUTH PLAIN AGJvYgBzZWNyZXQ=\r\n")
            assert peer.recv(100) == b""
        time.sleep(0.2)
    assert "does not offer STARTTLS" in wrap.said and not any(b"AUTH" in one for one in heard)


def test_in_front_of_a_server_that_has_none(server, tmp_path):
    listener = socket.create_server(("127.0.0.1", 0))

    def echo() -> None:
        while True:
            peer, _ = listener.accept()
            with peer:
                while octets := peer.recv(65536):
                    peer.sendall(octets)

    threading.Thread(target=echo, daemon=True).start()
    place = f"127.0.0.1:{listener.getsockname()[1]}"
    own = ("--cert", str(server.root / "server.pem"), "--key", str(server.root / "server.key"))
    context = ssl.create_default_context(cafile=server.ca)
    with Wrap(place, *own) as wrap:
        for _ in range(3):
            with (
                socket.create_connection(("127.0.0.1", wrap.port)) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as tls,
            ):
                sent = b"z" * 300_000
                threading.Thread(target=tls.sendall, args=(sent,), daemon=True).start()
                got = b""
                while len(got) < len(sent):
                    got += tls.recv(65536)
                assert got == sent
        with socket.create_connection(("127.0.0.1", wrap.port)) as plain:
            plain.sendall(b"no TLS at all\r\n")
            assert b"no TLS" not in plain.recv(100)


def test_the_side_without_tls_stays_here(server, home):
    for words in (("0.0.0.0:1", "example.org:993"), ("127.0.0.1:1", "192.0.2.1:143", "--cert", "c", "--key", "k")):
        done = run(FUBAKO, "wrap", *words, home=home)
        assert done.returncode == 78 and b"is not encrypted" in done.stderr
    assert run(FUBAKO, "wrap", "127.0.0.1:1", "localhost:1", "--cert", "c", home=home).returncode == 64


# -- more in front, and more towards


def own_certificate(folder, name, *more):
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3"]
    files = ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"]
    subprocess.run([*words, "-subj", f"/CN={name}", *more, *files], check=True, capture_output=True)


@pytest.mark.parametrize("protocol", ["smtp", "pop3", "imap"])
def test_starttls_in_front_of_a_server_that_has_none(server, user, tmp_path, protocol):
    """Real clients log in behind it; nothing but STARTTLS is answered before TLS, and words behind it end the connection."""
    plain = Wrap(
        f"localhost:{server.port('submission' if protocol == 'smtp' else protocol)}",
        "--starttls",
        protocol,
        "--ca-file",
        server.ca,
    )
    files = ("--cert", str(certificates() / "s.pem"), "--key", str(certificates() / "s.key"))
    context = ssl.create_default_context(cafile=certificates() / "ca.pem")
    with plain as inner, Wrap(f"127.0.0.1:{inner.port}", "--starttls", protocol, *files) as outer:
        if protocol == "smtp":
            with smtplib.SMTP("localhost", outer.port) as client:
                assert client.ehlo()[0] == 250 and not client.has_extn("auth")
                assert client.docmd("MAIL FROM:<a@b.test>")[0] == 530
                client.starttls(context=context)
                client.login(*user)
        elif protocol == "pop3":
            client = poplib.POP3("localhost", outer.port)
            with pytest.raises(poplib.error_proto, match="STLS first"):
                client.user(user[0])
            client.stls(context)
            client.user(user[0])
            client.pass_(user[1])
            client.quit()
        else:
            client = imaplib.IMAP4("localhost", outer.port)
            assert "LOGINDISABLED" in client.capabilities
            client.starttls(context)
            client.login(*user)
            client.logout()
        word = {"smtp": b"STARTTLS", "pop3": b"STLS", "imap": b"a STARTTLS"}[protocol]
        with socket.create_connection(("localhost", outer.port)) as raw:
            raw.recv(1000)
            raw.sendall(word + b"\r\nNOOP\r\n")
            raw.settimeout(10)
            assert raw.recv(1000) == b""


def test_only_clients_with_a_certificate(server, user, tmp_path):
    """The client's certificate is shown by `wrap` itself, towards; one of another authority is not admitted."""
    for name in ("one", "two"):
        own_certificate(tmp_path, name)
    files = (
        "--cert",
        str(certificates() / "s.pem"),
        "--key",
        str(certificates() / "s.key"),
        "--client-ca",
        str(tmp_path / "one.pem"),
    )
    plain = Wrap(f"localhost:{server.port('imaps')}", "--ca-file", server.ca)
    with plain as inner, Wrap(f"127.0.0.1:{inner.port}", *files) as outer:
        ca = ("--ca-file", str(certificates() / "ca.pem"))
        for name, admitted in (("one", True), ("two", False), ("", False)):
            own = (
                ("--client-cert", str(tmp_path / f"{name}.pem"), "--client-key", str(tmp_path / f"{name}.key"))
                if name
                else ()
            )
            with Wrap(f"localhost:{outer.port}", *ca, *own) as near:
                if admitted:
                    client = imaplib.IMAP4("127.0.0.1", near.port)
                    client.login(*user)
                    client.logout()
                else:
                    with pytest.raises((imaplib.IMAP4.abort, OSError)):
                        imaplib.IMAP4("127.0.0.1", near.port)
    assert outer.said.count("no certificate that is believed") == 2


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_server_is_told_who_the_client_is(version):
    """Read by our own parser of the PROXY protocol; in front, version 2 tells TLS too."""
    with socket.create_server(("127.0.0.1", 0)) as backend:
        files = ("--cert", str(certificates() / "s.pem"), "--key", str(certificates() / "s.key"))
        with Wrap(f"127.0.0.1:{backend.getsockname()[1]}", *files, "--proxy", version) as wrap:
            context = ssl.create_default_context(cafile=certificates() / "ca.pem")
            with (
                socket.create_connection(("127.0.0.1", wrap.port)) as raw,
                context.wrap_socket(raw, server_hostname="localhost") as client,
            ):
                client.sendall(b"hello")
                peer, _ = backend.accept()
                peer.settimeout(10)
                octets = b""
                while b"hello" not in octets:
                    octets += peer.recv(1000)
                heard = proxy.parse(octets)
                assert heard is not None
                said, length = heard
                assert octets[length:] == b"hello" and said.peer == f"127.0.0.1:{client.getsockname()[1]}"
                assert (said.tls.version if said.tls else "") == ("TLSv1.3" if version == "v2" else "")
                peer.close()


def test_a_proxy_in_front_says_who_the_client_is(tmp_path):
    """Header and ClientHello in one segment, as HAProxy sends them; what the proxy said is passed on; strangers are not let in."""
    with socket.create_server(("127.0.0.1", 0)) as backend:
        files = ("--cert", str(certificates() / "s.pem"), "--key", str(certificates() / "s.key"))
        place = f"127.0.0.1:{backend.getsockname()[1]}"
        context = ssl.create_default_context(cafile=certificates() / "ca.pem")
        with Wrap(place, *files, "--proxy", "v2", "--accept-proxy", "127.0.0.0/8") as wrap:
            coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = context.wrap_bio(coming, going, server_hostname="localhost")
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            with socket.create_connection(("127.0.0.1", wrap.port)) as raw:
                raw.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 993\r\n" + going.read())
                while True:
                    coming.write(raw.recv(65536))
                    try:
                        client.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        pass
                client.write(b"hello")
                raw.sendall(going.read())
                peer, _ = backend.accept()
                with peer:
                    octets = b""
                    while b"hello" not in octets:
                        octets += peer.recv(1000)
                heard = proxy.parse(octets)
                assert heard is not None and heard[0].peer == "192.0.2.7:5000" and heard[0].tls.version == "TLSv1.3"
            with socket.create_connection(("127.0.0.1", wrap.port)) as raw:
                raw.sendall(b"\x16\x03\x01\x00\x05hello")
                assert raw.recv(100) == b""
        assert "the proxy does not introduce its client" in wrap.said
        with (
            Wrap(place, *files, "--accept-proxy", "192.0.2.0/24") as wrap,
            socket.create_connection(("127.0.0.1", wrap.port)) as raw,
        ):
            assert raw.recv(100) == b""
        assert "only proxies may come in here" in wrap.said


def test_json_tells_of_each_connection(server):
    with Wrap(f"localhost:{server.port('imaps')}", "--ca-file", server.ca, "--json", listening="stderr") as wrap:
        with socket.create_connection(("127.0.0.1", wrap.port)) as client:
            assert client.recv(100).startswith(b"* OK")
            client.sendall(b"a LOGOUT\r\n")
            while client.recv(1000):
                pass
        told = json.loads(wrap.process.stdout.readline())
    assert told.pop("client").startswith("127.0.0.1:") and told.pop("octets_back") > 20 and told.pop("cipher")
    assert told == {"tls": "TLSv1.3", "octets_there": 10, "error": ""}


def test_certificates_by_the_name_that_is_asked_for(tmp_path):
    for name in ("a.test", "b.test"):
        own_certificate(tmp_path, name, "-addext", f"subjectAltName=DNS:{name}")
    words = [
        word
        for name in ("a.test", "b.test")
        for word in ("--cert", str(tmp_path / f"{name}.pem"), "--key", str(tmp_path / f"{name}.key"))
    ]
    with Wrap(f"127.0.0.1:{free_port()}", *words) as wrap:
        for name in ("a.test", "b.test"):
            context = ssl.create_default_context(cafile=tmp_path / f"{name}.pem")
            with (
                socket.create_connection(("127.0.0.1", wrap.port)) as raw,
                context.wrap_socket(raw, server_hostname=name) as client,
            ):
                assert client.getpeercert()["subject"][0][0][1] == name


def test_what_the_proxy_protocol_says():
    assert proxy.header(1, "192.0.2.1:5", ("198.51.100.1", 25)) == b"PROXY TCP4 192.0.2.1 198.51.100.1 5 25\r\n"
    assert proxy.header(1, "[2001:db8::1]:5", ("2001:db8::2", 25)) == b"PROXY TCP6 2001:db8::1 2001:db8::2 5 25\r\n"
    assert proxy.header(1, "unix socket", ("198.51.100.1", 25)) == b"PROXY UNKNOWN\r\n"
    for peer in ("192.0.2.1:5", "[2001:db8::1]:5"):
        made = proxy.header(2, peer, ("2001:db8::2" if "[" in peer else "198.51.100.1", 25))
        assert proxy.parse(made) == (proxy.Proxied(peer), len(made))
    assert proxy.parse(proxy.header(2, "x", ("198.51.100.1", 25))) == (proxy.Proxied(), 16)

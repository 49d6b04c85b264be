"""`fubako wrap`: programs without TLS speak to servers with it, and the other way round."""

import imaplib
import poplib
import re
import smtplib
import socket
import ssl
import subprocess
import threading
import time

import pytest
from checkers import free_port
from server import FUBAKO
from test_programs import deliver, kept, run


class Wrap:
    def __init__(self, *words: str) -> None:
        self.port = free_port()
        self.process = subprocess.Popen(
            [FUBAKO, "wrap", f"127.0.0.1:{self.port}", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Wrap":
        assert self.process.stdout.readline().endswith("Ctrl-C ends it.\n"), self.process.stderr.read()
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

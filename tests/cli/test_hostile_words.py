"""Whatever a server says, no octet of it steers a terminal: every field that a peer can fill holds something that would.

Left out: what a terminal makes of a *printable* text (a letter that looks like another one), and the Sieve and SMTP clients,
whose answers go the same way."""

import asyncio
import io
import json
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from server import FUBAKO

from fubako.cli.terminal import guard, harmless
from fubako.cli.trusting import ask
from fubako.net.interface import CertificateFacts
from fubako.net.tls import Certificate, ServerTls
from fubako.reader.text import Text

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\rfubako: believed by everybody\x7f"
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@given(st.text(st.characters(codec=None), max_size=80))
def test_nothing_that_steers_gets_through_and_json_stays_what_it_was(text):
    shown = harmless(text)
    assert not STEERS.search(shown) and all(c in "\n\t" or c.isprintable() for c in shown)
    assert json.loads(harmless(json.dumps(text, ensure_ascii=False))) == text
    assert all(c == "\n" or c == "\t" or c.isprintable() for c in Text(text).append(text).plain)


def test_a_pipe_that_takes_a_part_gets_the_rest(monkeypatch):
    """As it does when a signal comes meanwhile; PYTHONUNBUFFERED leaves no buffer in between."""

    class Pipe(io.RawIOBase):
        said = b""

        def writable(self):
            return True

        def write(self, octets):
            self.said += bytes(octets[:7])
            return min(len(octets), 7)

    pipe = Pipe()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(pipe, "utf-8", write_through=True))
    guard()
    print("a" * 100)
    sys.stdout.buffer.write(b"b" * 100)
    assert pipe.said == b"a" * 100 + b"\n" + b"b" * 100


def test_the_question_about_a_certificate_has_the_lines_that_we_wrote(monkeypatch, capsys):
    facts = CertificateFacts(
        f"CN={EVIL}\nSHA-256 fingerprint: 00", f"CN={EVIL}", (f"a.test{EVIL}", "b.test\nWhat is wrong with it: nothing"), (), 0.0,
        2e9, "a" * 64, "b" * 64,
    )  # fmt: skip
    monkeypatch.setattr("click.prompt", lambda *_a, **_o: "r")
    assert ask(facts, f"no {EVIL}\nreason", f"CN={EVIL}") == "reject"
    shown = capsys.readouterr().err
    assert not STEERS.search(shown)
    assert [line.split(":")[0].strip() for line in shown.splitlines() if line] == [
        "This certificate belongs to", "names", "It was issued by", "It is valid", "SHA-256 fingerprint",
        "What is wrong with it", "Its signer",
    ]  # fmt: skip


def hostile_certificate() -> tuple[ServerTls, str]:
    """Its own signer; names and subject would steer a terminal. With its fingerprint."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, EVIL)])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 7, now - timedelta(days=1), now + timedelta(days=9))
    names = x509.SubjectAlternativeName([x509.DNSName("a.test\x1b[2J\x07\rx")])
    leaf = made.add_extension(names, critical=False).sign(key, hashes.SHA256())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return ServerTls([Certificate(leaf.public_bytes(Encoding.PEM), pem)]), leaf.fingerprint(hashes.SHA256()).hex()


class Liar:
    """An IMAP or POP3 server behind TLS from the first octet whose every answer steers."""

    def __init__(self, protocol: str) -> None:
        self.protocol, self._loop, self.port = protocol, asyncio.new_event_loop(), 0
        self._ready = threading.Event()
        self._tls, self.fingerprint = hostile_certificate()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Liar":
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pump, evil = self._tls.pump(), EVIL.encode("utf-8").replace(b"\r", b"")
        greeted, buffer = False, b""
        try:
            while octets := await reader.read(65536):
                buffer += pump.feed(octets)
                if pump.established and not greeted:
                    greeted = True
                    imap = b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN " + evil + b"] " + evil + b"\r\n"
                    pump.send(imap if self.protocol == "imap" else b"+OK " + evil + b"\r\n")
                while b"\r\n" in buffer:
                    line, _, buffer = buffer.partition(b"\r\n")
                    tag = line.partition(b" ")[0]
                    pump.send(self._answer(tag, line.upper(), evil))
                writer.write(pump.outgoing())
                await writer.drain()
        except Exception:
            pass
        writer.close()

    def _answer(self, tag: bytes, line: bytes, evil: bytes) -> bytes:
        if b"CAPABILITY" in line:
            return b"* CAPABILITY IMAP4rev1 AUTH=PLAIN X-\x07\r\n" + tag + b" OK " + evil + b"\r\n"
        if line == b"CAPA":
            return b"+OK " + evil + b"\r\nSASL PLAIN\r\n" + evil + b"\r\n.\r\n"
        return (tag + b" NO [ALERT] " if self.protocol == "imap" else b"-ERR ") + evil + b"\r\n"


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_the_screens_octets(tmp_path, protocol, as_json):
    with Liar(protocol) as liar:
        secret = tmp_path / "secret"
        secret.write_text("sesame\n")
        secret.chmod(0o600)
        accounts = tmp_path / "accounts.toml"
        accounts.write_text(
            f'[[account]]\nname = "a"\nhost = "127.0.0.1"\nprotocol = "{protocol}"\nport = {liar.port}\nuser = "alice"\n'
            f'password_file = "{secret}"\ntrust = ["first-use"]\ndeliver = "maildir:{tmp_path}/Mail"\n'
        )
        accounts.chmod(0o600)
        commands = [
            ("probe", "127.0.0.1", "--service", f"{protocol}s={liar.port}", *as_json),
            ("trust", "add", "127.0.0.1", str(liar.port), "--protocol", protocol, *as_json),
            ("fetch", "--accounts", str(accounts), "--transcript", "-", *as_json),
            ("trust", "add", "127.0.0.1", str(liar.port), "--protocol", protocol, "--fingerprint", liar.fingerprint),
            ("trust", "list", *as_json),
            ("trust", "show", "127.0.0.1", str(liar.port), *as_json),
        ]
        for command in commands:
            done = subprocess.run(
                [FUBAKO, *command], capture_output=True, timeout=60, check=False, env={"FUBAKO_HOME": str(tmp_path), "PATH": "/bin"}
            )  # fmt: skip
            for octets in (done.stdout, done.stderr):
                assert not STEERS.search(octets.decode()), command
                assert "Traceback" not in octets.decode()
        assert b"owned" in done.stdout  # what the server wrote is shown, and was met

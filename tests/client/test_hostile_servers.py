"""Our clients against servers that lie (attacks C-*): nothing secret is said, and the reason is an error, not a silence."""

import asyncio

import pytest
from memory_server import certificates

from fubako.client.connection import ClientError, Credentials, Peer
from fubako.client.imap import ImapConnection
from fubako.client.managesieve import ManageSieveConnection
from fubako.client.pop3 import Pop3Connection
from fubako.client.smtp import SmtpConnection
from fubako.clock import Env
from fubako.net.interface import StreamClosed, TlsError
from fubako.net.line import Line
from fubako.net.memory import pair
from fubako.net.tls import Certificate, ServerTls
from fubako.protocol.engine import ProtocolError
from fubako.protocol.imap.client import ImapClient
from fubako.protocol.managesieve import ManageSieveClient
from fubako.protocol.pop3 import Pop3Client
from fubako.protocol.sasl import SaslFailure
from fubako.protocol.smtp_client import SmtpClient
from fubako.trust.judge import NotBelieved

REFUSED = (ClientError, ProtocolError, TlsError, StreamClosed, NotBelieved, SaslFailure)
SECRETS = (b"AUTH", b"LOGIN", b"USER", b"PASS", b"APOP", b"alice", b"sesame", b"MAIL", b"SELECT", b"APPEND")

STARTTLS_SEEN = [(None, b"220 x\r\n"), (b"EHLO", b"250-x\r\n250 STARTTLS\r\n")]

# each: protocol, then (what the client must have said last | None, what the server answers)
SCRIPTS = {
    "C-STRIP-S": ("smtp", [(None, b"220 x\r\n"), (b"EHLO", b"250-x\r\n250 AUTH PLAIN LOGIN\r\n")]),
    "C-STRIP-S-HELO": ("smtp", [(None, b"220 x\r\n"), (b"EHLO", b"500 what\r\n")]),
    **{
        f"C-REFUSE-S-{code}": ("smtp", [*STARTTLS_SEEN, (b"STARTTLS", f"{code} x\r\n".encode())])
        for code in (454, 502, 354, 221, 421, 501, 530, 250)
    },
    "C-INJ-S": ("smtp", [*STARTTLS_SEEN, (b"STARTTLS", b"220 go\r\n250-x\r\n250 AUTH LOGIN\r\n")]),
    "C-INJ-S-fragment": ("smtp", [*STARTTLS_SEEN, (b"STARTTLS", b"220 go\r\n250-x")]),
    "C-STRIP-P": ("pop3", [(None, b"+OK x\r\n"), (b"STLS", b"-ERR no\r\n")]),
    "C-INJ-P": ("pop3", [(None, b"+OK x\r\n"), (b"STLS", b"+OK go\r\n+OK\r\nPLAIN\r\n.\r\n")]),
    "C-PREREPLY-P": ("pop3", [(None, b"+OK x\r\n+OK go\r\n")]),
    "C-STRIP-I": ("imap", [(None, b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] x\r\n"), (b"STARTTLS", b"TAG BAD no\r\n")]),
    "C-REFUSE-I": ("imap", [(None, b"* OK x\r\n"), (b"STARTTLS", b"TAG NO no\r\n")]),
    "C-REFUSE-I-plus": ("imap", [(None, b"* OK x\r\n"), (b"STARTTLS", b"+ go on\r\n")]),
    "C-PREAUTH": ("imap", [(None, b"* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS] x\r\n")]),
    "C-BADGREET": ("imap", [(None, b"* FOO bar\r\n")]),
    "C-BADGREET-tag": ("imap", [(None, b"a OK hello\r\n")]),
    "C-BYE": ("imap", [(None, b"* BYE [ALERT] your account expires\r\n")]),
    "C-PREREPLY-I": ("imap", [(None, b"* OK x\r\na1 OK\r\na2 OK\r\n")]),
    "C-INJ-I": ("imap", [(None, b"* OK x\r\n"), (b"STARTTLS", b"TAG OK go\r\n* CAPABILITY X\r\nb OK\r\n* BYE x\r\n")]),
    "C-LITERAL": ("imap", [(None, b"* OK x\r\n"), (b"STARTTLS", b"* X {4294967295}\r\n")]),
    "C-NESTED": ("imap", [(None, b"* OK x\r\n"), (b"STARTTLS", b"* X " + b"(" * 100_000 + b"\r\n")]),
    "C-STRIP-V": ("sieve", [(None, b'"SASL" "PLAIN"\r\nOK\r\n'), (b"STARTTLS", b"NO no\r\n")]),
    "C-REFUSE-V": ("sieve", [(None, b'"STARTTLS"\r\nOK\r\n'), (b"STARTTLS", b"BYE (TRYLATER) later\r\n")]),
    "C-PREREPLY-V": ("sieve", [(None, b'"STARTTLS"\r\nOK\r\nOK\r\n')]),
    "C-INJ-V": ("sieve", [(None, b'"STARTTLS"\r\nOK\r\n'), (b"STARTTLS", b'OK go\r\n"SASL" "PLAIN"\r\nOK\r\n')]),
    "C-INJ-V-fragment": ("sieve", [(None, b'"STARTTLS"\r\nOK\r\n'), (b"STARTTLS", b'OK go\r\n{5}\r\nab')]),
    "C-OWNER-V": ("sieve", [(None, b'"OWNER" "alice"\r\nOK\r\n'), (b"STARTTLS", b"NO you are in\r\n")]),
    "C-LITERAL-V": ("sieve", [(None, b"{4294967295}\r\n")]),
    "C-NESTED-V": ("sieve", [(None, b"OK " + b"(" * 100_000 + b"\r\n")]),
    "C-BADGREET-V": ("sieve", [(None, b"+OK hello\r\n")]),
}  # fmt: skip


def connect(protocol: str, stream, peer: Peer):
    env = Env()
    if protocol == "smtp":
        engine = SmtpClient()
        connection = SmtpConnection(peer, Line(engine, stream), env, engine)
        return connection, lambda: connection.greet("me.test")
    if protocol == "pop3":
        engine = Pop3Client()
        connection = Pop3Connection(peer, Line(engine, stream), env, engine)
    elif protocol == "sieve":
        engine = ManageSieveClient()
        connection = ManageSieveConnection(peer, Line(engine, stream), env, engine)
    else:
        engine = ImapClient("f" + env.random(3).hex() + "x")
        connection = ImapConnection(peer, Line(engine, stream), env, engine)
    return connection, connection.greet


def peer(**options) -> Peer:
    return Peer("localhost", 0, options.pop("server_name", "localhost"), options.pop("ca_files", (certificates() / "ca.pem",)),
                system_authorities=False, implicit_tls=False, **options)  # fmt: skip


async def use(connection, greet) -> None:
    await greet()
    await connection.login(Credentials("alice", "sesame"))


async def serve(stream, script) -> None:
    said = b""
    for wanted, answer in script:
        while wanted is not None and wanted not in said:
            octets = await stream.read()
            if not octets:
                return
            said += octets
        tag = said.rsplit(b"\r\n", 2)[-2].split(b" ")[0] if b"\r\n" in said else b"x"
        stream.write(answer.replace(b"TAG", tag))
    while await stream.read():
        pass


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_lie_ends_the_connection_before_anything_secret(name):
    async def test():
        protocol, script = SCRIPTS[name]
        ours, theirs = pair()
        serving = asyncio.ensure_future(serve(theirs, script))
        connection, greet = connect(protocol, ours, peer())
        with pytest.raises(REFUSED):
            await use(connection, greet)
        for secret in SECRETS:
            assert secret not in bytes(ours.sent), ours.sent
        connection.close()
        await serving

    asyncio.run(asyncio.wait_for(test(), 20))


async def real_handshake(stream, tls: ServerTls) -> None:
    stream.write(b"* OK x\r\n")
    said = b""
    while b"STARTTLS\r\n" not in said:
        said += await stream.read()
    stream.write(said.split(b" ")[0] + b" OK go\r\n")
    try:
        await stream.start_tls(tls.pump())
        while await stream.read():
            pass
    except TlsError:
        return


@pytest.mark.parametrize(("options", "reason"), [
    ({"server_name": "other.test"}, "not for other.test"),
    ({"ca_files": ()}, "not known here"),
    ({"pins": frozenset({"00"})}, "another certificate"),
])  # fmt: skip
def test_a_certificate_that_is_not_believed(options, reason):
    async def test():
        root = certificates()
        ours, theirs = pair()
        serving = asyncio.ensure_future(
            real_handshake(theirs, ServerTls([Certificate.load(root / "s.pem", root / "s.key")]))
        )
        connection, greet = connect("imap", ours, peer(**options))
        with pytest.raises(NotBelieved, match=reason):
            await greet()
        assert b"alice" not in bytes(ours.sent)
        connection.close()
        await serving

    asyncio.run(asyncio.wait_for(test(), 20))


def test_a_password_is_never_said_without_tls():
    async def test():
        ours, _theirs = pair()
        connection, _ = connect("smtp", ours, peer())
        connection.extensions = {"AUTH": "PLAIN"}
        with pytest.raises(ClientError, match="without TLS"):
            await connection.login(Credentials("alice", "sesame"))
        assert not ours.sent
        ours.close()

    asyncio.run(test())


@pytest.mark.parametrize("text", ["NOOP\r\nX1 STORE", "a\nb", "a\x00"])
def test_no_argument_can_smuggle_a_command(text):
    with pytest.raises(ValueError):
        ImapClient("t").command(text)
    with pytest.raises(ValueError):
        SmtpClient().command("RCPT", text)
    with pytest.raises(ValueError):
        Pop3Client().command("USER", text)

"""TLS where a program has none: towards a server (`towards`), or in front of one (`before`), as stunnel and stone did.

Towards a server its certificate is always checked. STARTTLS is spoken for SMTP, POP3 and IMAP, by the same engines as
everywhere, so that what was said before TLS is forgotten; the program behind gets the server's greeting, and goes on inside.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fubako.client import imap, pop3, smtp
from fubako.client.connection import Peer
from fubako.clock import Env
from fubako.net import tcp
from fubako.net.interface import Pump, Stream, StreamClosed, StreamTimeout, TlsError, TlsFacts
from fubako.net.line import Line
from fubako.protocol.imap.client import ImapClient
from fubako.protocol.pop3 import Pop3Client
from fubako.protocol.smtp_client import SmtpClient

IDLE_SECONDS = 12 * 3600.0
HANDSHAKE_SECONDS = 30.0
STARTTLS = ("smtp", "pop3", "imap")
_GREETINGS = {"smtp": b"220 %s ESMTP\r\n", "pop3": b"+OK %s\r\n", "imap": b"* OK %s\r\n"}


@dataclass(slots=True)
class Poured:
    """How many octets went to the server, and came from it."""

    there: int = 0
    back: int = 0
    tls: TlsFacts | None = None  # of the side that has it


async def towards(near: Stream, peer: Peer, env: Env, starttls: str = "", said: bytes = b"") -> Poured:
    """Join a plain connection to a server that is spoken to under TLS; `said` comes before everything (PROXY protocol). Raises
    ClientError, NotBelieved, TlsError, ProtocolError, OSError; then nothing of the near side was said."""
    async with asyncio.timeout(HANDSHAKE_SECONDS):
        far = await tcp.connect(peer.host, peer.port)
        try:
            if said:
                far.write(said)
            await _protected(far, peer, env, starttls)
        except BaseException:
            far.close()
            raise
    if starttls:
        near.write(_GREETINGS[starttls] % peer.server_name.encode())
    return await _joined(near, far, far.tls)


async def _protected(far: Stream, peer: Peer, env: Env, starttls: str) -> None:
    match starttls:
        case "smtp":
            engine = SmtpClient()
            await smtp.SmtpConnection(peer, Line(engine, far), env, engine).secure(peer.server_name)
        case "pop3":
            talker = Pop3Client()
            await pop3.Pop3Connection(peer, Line(talker, far), env, talker).secure()
        case "imap":
            speaker = ImapClient("f" + env.random(3).hex() + "x")
            await imap.ImapConnection(peer, Line(speaker, far), env, speaker).secure()
        case _:
            bare = Pop3Client()
            await pop3.Pop3Connection(peer, Line(bare, far), env, bare).protect()


Admits = Callable[[TlsFacts | None], bool]


async def before(
    near: Stream,
    pump: Pump,
    connect: Callable[[], Awaitable[Stream]],
    *,
    starttls: str = "",
    name: str = "",
    admits: Admits | None = None,
) -> Poured:
    """End TLS of a client, and join it to a server that has none. `starttls`: the client asks for it, and nothing else is done
    before; what the server greets with is then not said, because the client was greeted. `admits`: whether the client's
    certificate is taken. Raises TlsError, StreamClosed, StreamTimeout, OSError."""
    near.idle_seconds = HANDSHAKE_SECONDS
    if starttls:
        async with asyncio.timeout(ASKED_SECONDS):
            await _asked(near, starttls, name)
    near.begin_tls(pump, from_start=not starttls)
    await near.handshake()
    if admits is not None and not admits(near.tls):
        raise TlsError("the client showed no certificate that is believed")
    far = await connect()
    if starttls:
        try:
            await _greeted(far, starttls)
        except BaseException:
            far.close()
            raise
    return await _joined(near, far, near.tls)


ASKED_SECONDS = 60.0
LINE_OCTETS_MAX = 1000
LINES_MAX = 20
_OFFERS = {
    # greeting; the replies to asking what there is; the word that begins TLS, and its reply; a farewell; anything else
    "smtp": (b"220 %s ESMTP\r\n", b"250-%s\r\n250 STARTTLS\r\n", b"STARTTLS", b"220 2.0.0 go ahead\r\n", b"221 2.0.0 bye\r\n",
             b"530 5.7.0 STARTTLS first\r\n"),
    "pop3": (b"+OK %s\r\n", b"+OK\r\nSTLS\r\n.\r\n", b"STLS", b"+OK go ahead\r\n", b"+OK bye\r\n", b"-ERR STLS first\r\n"),
    "imap": (b"* OK %s\r\n", b"* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\n%t OK done\r\n", b"STARTTLS", b"%t OK go ahead\r\n",
             b"* BYE bye\r\n%t OK done\r\n", b"%t NO STARTTLS first\r\n"),
}  # fmt: skip
_ASKS = {b"EHLO", b"CAPA", b"CAPABILITY"}
_LEAVES = {b"QUIT", b"LOGOUT"}
_NOTHING = {b"NOOP": {"smtp": b"250 2.0.0 ok\r\n", "pop3": b"+OK\r\n", "imap": b"%t OK done\r\n"}}


async def _asked(near: Stream, protocol: str, name: str) -> None:
    """Until the client asks for TLS. Raises TlsError where it says anything behind the word (CVE-2011-0411), or does not ask."""
    greeting, offers, word, go, bye, refusal = _OFFERS[protocol]

    def say(octets: bytes, tag: bytes = b"") -> None:
        near.write(octets.replace(b"%s", name.encode()).replace(b"%t", tag))

    say(greeting)
    buffer = b""
    for _ in range(LINES_MAX):
        while b"\n" not in buffer:
            octets = await near.read()
            if not octets:
                raise StreamClosed("the client left before TLS")
            buffer += octets
            if len(buffer) > LINE_OCTETS_MAX:
                raise TlsError("the client's line is too long")
        line, _, buffer = buffer.partition(b"\n")
        tag, _, rest = line.strip().partition(b" ") if protocol == "imap" else (b"", b"", line.strip())
        words = rest.upper().split()
        verb = words[0] if words else b""
        if verb == word:
            if buffer:
                raise TlsError(f"the client says more behind {word.decode()}, before TLS")
            say(go, tag)
            await near.drain()
            return
        reply = offers if verb in _ASKS else bye if verb in _LEAVES else _NOTHING.get(verb, {}).get(protocol, refusal)
        say(reply, tag)
        await near.drain()
        if verb in _LEAVES:
            raise StreamClosed("the client left before TLS")
    raise TlsError("the client does not ask for TLS")


async def _greeted(far: Stream, protocol: str) -> None:
    """The server's greeting is taken away. Raises StreamClosed, StreamTimeout."""
    buffer = b""
    far.idle_seconds = HANDSHAKE_SECONDS
    while len(buffer) < 16 * LINE_OCTETS_MAX:
        octets = await far.read()
        if not octets:
            break
        buffer += octets
        line, newline, rest = buffer.partition(b"\n")
        while newline and protocol == "smtp" and line[3:4] == b"-":
            line, newline, rest = rest.partition(b"\n")
        if newline:
            if rest:
                raise StreamClosed("the server says more than a greeting")
            return
    raise StreamClosed("the server does not greet")


async def _joined(near: Stream, far: Stream, tls: TlsFacts | None) -> Poured:
    """Until one side ends; what was said is still passed on."""
    poured = Poured(tls=tls)
    near.idle_seconds = far.idle_seconds = IDLE_SECONDS

    async def pour(source: Stream, target: Stream, *, there: bool) -> None:
        try:
            while octets := await source.read():
                target.write(octets)
                if there:
                    poured.there += len(octets)
                else:
                    poured.back += len(octets)
                await target.drain()
        except (StreamClosed, StreamTimeout, TlsError):
            pass
        finally:
            target.close()

    await asyncio.gather(pour(near, far, there=True), pour(far, near, there=False))
    return poured

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
from fubako.net.interface import Pump, Stream, StreamClosed, StreamTimeout, TlsError
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


async def towards(near: Stream, peer: Peer, env: Env, starttls: str = "") -> Poured:
    """Join a plain connection to a server that is spoken to under TLS. Raises ClientError, NotBelieved, TlsError,
    ProtocolError, OSError; then nothing of the near side was said."""
    async with asyncio.timeout(HANDSHAKE_SECONDS):
        far = await tcp.connect(peer.host, peer.port)
        try:
            await _protected(far, peer, env, starttls)
        except BaseException:
            far.close()
            raise
    if starttls:
        near.write(_GREETINGS[starttls] % peer.server_name.encode())
    return await _joined(near, far)


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


async def before(near: Stream, pump: Pump, connect: Callable[[], Awaitable[Stream]]) -> Poured:
    """End TLS of a client, and join it to a server that has none. Raises TlsError, StreamTimeout, OSError."""
    near.idle_seconds = HANDSHAKE_SECONDS
    near.begin_tls(pump)
    await near.handshake()
    return await _joined(near, await connect())


async def _joined(near: Stream, far: Stream) -> Poured:
    """Until one side ends; what was said is still passed on."""
    poured = Poured()
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

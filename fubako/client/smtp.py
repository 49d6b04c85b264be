"""Submission as a client: connect, be sure of the server, log in, hand over a letter (RFC 6409, RFC 8314)."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fubako.client.connection import ClientError, Connection, Credentials, LoginRefused, Peer, TlsRefused, open_stream
from fubako.clock import Env
from fubako.message.address import Address
from fubako.message.status import Status
from fubako.net.line import Line
from fubako.protocol.smtp_client import Reply, SmtpClient, extensions


class SmtpConnection(Connection[Reply]):
    """A session with a submission server."""

    protocol = "submission"

    def __init__(self, peer: Peer, line: Line[Reply], env: Env, engine: SmtpClient) -> None:
        super().__init__(peer, line, env)
        self.engine = engine
        self.extensions: dict[str, str] = {}

    async def greet(self, hello: str) -> None:
        """Greeting, EHLO, STARTTLS where TLS is not there from the start, EHLO again. Raises ClientError, NotBelieved."""
        if self.peer.implicit_tls:
            await self.protect()
        await self._expect(220)
        await self._ehlo(hello)
        if not self.peer.implicit_tls and not self.peer.bare:
            await self._starttls()
            await self._ehlo(hello)
        self.preauth = self.peer.bare and self.line.stream.local and "AUTH" not in self.extensions

    async def secure(self, hello: str) -> None:
        """As far as TLS, for somebody else to go on. Raises ClientError, NotBelieved."""
        await self._expect(220)
        await self._ehlo(hello)
        await self._starttls()

    async def _starttls(self) -> None:
        if "STARTTLS" not in self.extensions:
            raise TlsRefused("the server does not offer STARTTLS; nothing was sent")
        with self.beginning_tls():
            self.engine.command("STARTTLS")
            await self._expect(220)
        await self.protect()

    async def _ehlo(self, hello: str) -> None:
        self.engine.command("EHLO", hello)
        self.extensions = extensions(await self._expect(250))

    async def heard(self) -> Status:
        """What the server said to the next command."""
        return (await self.line.event()).status

    async def _expect(self, *codes: int) -> Reply:
        reply = await self.line.event()
        if reply.status.code not in codes:
            raise ClientError(f"{reply.command}: the server said {reply.status}")
        return reply

    @property
    def offered(self) -> list[str]:
        return self.extensions.get("AUTH", "").split()

    async def login(self, credentials: Credentials) -> None:
        async def begin(name: str, initial: bytes | None) -> bytes | None:
            self.engine.command("AUTH", name, *([initial.decode()] if initial is not None else []))
            return await self._challenge()

        async def answer(response: bytes) -> bytes | None:
            self.engine.response(response)
            return await self._challenge()

        await self.authenticate(self.offered, credentials, begin, answer)

    async def _challenge(self) -> bytes | None:
        reply = await self.line.event()
        if reply.status.code not in (235, 334):
            fault = LoginRefused if reply.status.code >= 500 else ClientError
            raise fault(f"the server refused the login: {reply.status}")
        return reply.status.text.encode() if reply.status.code == 334 else None

    async def send(self, sender: Address, recipients: Sequence[Address], content: bytes) -> Status:
        """One letter (CRLF line ends) to all recipients. Raises ClientError when the server refuses any part."""
        parameters = [f"SIZE={len(content)}"] if "SIZE" in self.extensions else []
        if not content.isascii():
            parameters.append("BODY=8BITMIME")
        self.engine.mail(sender, parameters)
        await self._expect(250)
        for recipient in recipients:
            self.engine.rcpt(recipient)
            await self._expect(250, 251)
        self.engine.command("DATA")
        await self._expect(354)
        self.engine.content(content)
        return (await self._expect(250)).status

    async def quit(self) -> None:
        self.engine.command("QUIT")
        await self._expect(221)
        self.close()


@asynccontextmanager
async def connected(peer: Peer, env: Env, hello: str) -> AsyncIterator[SmtpConnection]:
    """A greeted connection, closed at the end whatever happens."""
    engine = SmtpClient()
    connection = SmtpConnection(peer, Line(engine, await open_stream(peer)), env, engine)
    try:
        await connection.greet(hello)
        yield connection
    finally:
        connection.close()

"""POP3 as a client: connect, be sure of the server, log in, retrieve (RFC 1939, RFC 5034)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fubako.client.connection import ClientError, Connection, Credentials, LoginRefused, Peer, open_stream
from fubako.clock import Env
from fubako.net.line import Line
from fubako.protocol.pop3 import Pop3Client, Reply


class Pop3Connection(Connection[Reply]):
    """A session with a POP3 server."""

    protocol = "pop3"

    def __init__(self, peer: Peer, line: Line[Reply], env: Env, engine: Pop3Client) -> None:
        super().__init__(peer, line, env)
        self.engine = engine
        self.mechanisms: list[str] = []

    async def greet(self) -> None:
        if self.peer.implicit_tls:
            await self.protect()
        await self._ok()
        if not self.peer.implicit_tls and not self.peer.bare:
            await self._stls()
        lines = (await self.command("CAPA", multiline=True)).content.decode("ascii", "replace").splitlines()
        self.mechanisms = next((line.split()[1:] for line in lines if line.upper().startswith("SASL ")), [])
        if self.peer.bare and self.line.stream.local and not self.mechanisms:
            self.engine.command("STAT")  # at the end of a tunnel that logged us in
            self.preauth = (await self.line.event()).ok

    @property
    def offered(self) -> list[str]:
        return self.mechanisms

    async def secure(self) -> None:
        """As far as TLS, for somebody else to go on. Raises ClientError, NotBelieved."""
        await self._ok()
        await self._stls()

    async def _stls(self) -> None:
        with self.beginning_tls():
            self.engine.command("STLS")
            await self._ok()
        await self.protect()

    async def _ok(self) -> Reply:
        reply = await self.line.event()
        if not reply.ok:
            raise ClientError(f"{reply.command}: the server said {reply.text}")
        return reply

    async def command(self, keyword: str, *arguments: str, multiline: bool = False) -> Reply:
        self.engine.command(keyword, *arguments, multiline=multiline)
        return await self._ok()

    async def _challenge(self) -> bytes | None:
        """RFC 2449 §8, RFC 3206: what is in brackets tells a refusal from a trouble."""
        reply = await self.line.event()
        if not reply.ok:
            fault = ClientError if reply.text.startswith(("[SYS/TEMP]", "[IN-USE]", "[LOGIN-DELAY]")) else LoginRefused
            raise fault(f"the server refused the login: {reply.text}")
        return reply.challenge

    async def login(self, credentials: Credentials) -> None:
        async def begin(name: str, initial: bytes | None) -> bytes | None:
            self.engine.command("AUTH", name, *([initial.decode()] if initial is not None else []))
            return await self._challenge()

        async def answer(response: bytes) -> bytes | None:
            self.engine.response(response)
            return await self._challenge()

        await self.authenticate(self.mechanisms, credentials, begin, answer)

    async def retrieve(self, number: int) -> bytes:
        return (await self.command("RETR", str(number), multiline=True)).content

    async def count(self) -> int:
        return int((await self.command("STAT")).text.split()[0])

    async def quit(self) -> None:
        await self.command("QUIT")
        self.close()


@asynccontextmanager
async def connected(peer: Peer, env: Env) -> AsyncIterator[Pop3Connection]:
    engine = Pop3Client()
    connection = Pop3Connection(peer, Line(engine, await open_stream(peer)), env, engine)
    try:
        await connection.greet()
        yield connection
    finally:
        connection.close()

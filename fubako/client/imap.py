"""IMAP as a client: connect, be sure of the server, log in, read (RFC 9051)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fubako.client.connection import ClientError, Connection, Credentials, LoginRefused, Peer, TlsRefused, open_stream
from fubako.clock import Env
from fubako.net.interface import StreamTimeout
from fubako.net.line import Line
from fubako.protocol.engine import ProtocolError
from fubako.protocol.imap.client import Completed, Continue, Event, Greeting, ImapClient, Untagged
from fubako.protocol.literals import Value


class ImapConnection(Connection[Event]):
    """A session with an IMAP server."""

    protocol = "imap"

    def __init__(self, peer: Peer, line: Line[Event], env: Env, engine: ImapClient) -> None:
        super().__init__(peer, line, env)
        self.engine = engine
        self.capabilities: list[str] = []
        self.exists = 0  # letters of the selected mailbox

    async def greet(self) -> None:
        if self.peer.implicit_tls:
            await self.protect()
        greeting = await self.line.event()
        if (
            isinstance(greeting, Greeting)
            and greeting.condition == "PREAUTH"
            and self.line.stream.local
            and self.peer.bare
        ):
            self.preauth = True
        elif not isinstance(greeting, Greeting) or greeting.condition != "OK":
            # PREAUTH on a channel that anybody can write to means that nobody proved anything (CVE-2020-14093)
            without = isinstance(greeting, Greeting) and greeting.condition == "PREAUTH" and not self.peer.implicit_tls
            raise (TlsRefused if without else ClientError)("the server's greeting is not one to go on with")
        if not self.peer.implicit_tls and not self.peer.bare:
            await self._starttls()
        await self._ask_capabilities()

    async def secure(self) -> None:
        """As far as TLS, for somebody else to go on. Raises ClientError, NotBelieved."""
        greeting = await self.line.event()
        if not isinstance(greeting, Greeting) or greeting.condition != "OK":
            raise ClientError("the server's greeting is not one to go on with")
        await self._starttls()

    async def _starttls(self) -> None:
        with self.beginning_tls():
            await self.command("STARTTLS")
        await self.protect()

    async def _ask_capabilities(self) -> None:
        done = await self.command("CAPABILITY")
        words = next((line for line in done.untagged if line and line[0] == b"CAPABILITY"), [])
        self.capabilities = [word.decode("ascii", "replace").upper() for word in words[1:] if isinstance(word, bytes)]

    async def command(self, text: str) -> Completed:
        """Raises ClientError on NO and BAD."""
        self.engine.command(text)
        event = await self.line.event()
        if not isinstance(event, Completed):
            raise ProtocolError("the server asks for more")
        if not event.ok:
            raise ClientError(f"{text.split(' ', 1)[0]}: the server said {event.text.decode('utf-8', 'replace')}")
        for values in event.untagged:
            self._count(values)
        return event

    async def login(self, credentials: Credentials) -> None:
        async def begin(name: str, initial: bytes | None) -> bytes | None:
            direct = initial is not None and "SASL-IR" in self.capabilities
            self.engine.command(
                f"AUTHENTICATE {name}" + (f" {initial.decode()}" if initial is not None and direct else "")
            )
            challenge = await self._challenge()
            if challenge == b"" and initial is not None and not direct:
                return await answer(initial)
            return challenge

        async def answer(response: bytes) -> bytes | None:
            self.engine.raw(response + b"\r\n")
            return await self._challenge()

        await self.authenticate(self.offered, credentials, begin, answer)

    @property
    def offered(self) -> list[str]:
        return [name.removeprefix("AUTH=") for name in self.capabilities if name.startswith("AUTH=")]

    async def _challenge(self) -> bytes | None:
        event = await self.line.event()
        if isinstance(event, Continue):
            return event.text
        if not isinstance(event, Completed) or not event.ok:
            text = event.text.decode("utf-8", "replace") if isinstance(event, Completed) else ""
            fault = ClientError if text.startswith("[UNAVAILABLE]") else LoginRefused
            raise fault(f"the server refused the login: {text}")
        return None

    async def wait(self, seconds: float, known: int) -> bool:
        """IDLE until a letter comes (RFC 2177), or for so long; whether something came. `known`: how many letters the mailbox had
        when it was read: one that came since is not waited for. Raises ClientError."""
        if self.exists != known:
            return True
        self.engine.watching, came, idling = True, False, False  # it may be told in front of the answer to IDLE
        self.engine.command("IDLE")
        before, self.line.stream.idle_seconds = self.line.stream.idle_seconds, seconds
        try:
            while True:
                event = await self.line.event()
                if isinstance(event, Untagged):
                    self._count(event.values)
                    came = came or self.exists != known
                elif isinstance(event, Completed):
                    raise ClientError(f"IDLE: the server said {event.text.decode('utf-8', 'replace')}")
                elif isinstance(event, Continue):
                    idling = True
                if came and idling:
                    break
        except StreamTimeout:
            came = False
        finally:
            self.line.stream.idle_seconds, self.engine.watching = before, False
        self.engine.raw(b"DONE\r\n")
        event = await self.line.event()
        if not isinstance(event, Completed) or not event.ok:
            raise ClientError("IDLE: the server does not come back")
        for values in event.untagged:
            self._count(values)
        return came

    def _count(self, values: list[Value]) -> None:
        """EXISTS and EXPUNGE tell how many letters there are."""
        if values[1:2] == [b"EXISTS"] and isinstance(values[0], bytes) and values[0].isdigit():
            self.exists = int(values[0][:10])
        elif values[1:2] == [b"EXPUNGE"]:
            self.exists -= 1

    async def fetch_all(self, mailbox: str) -> list[bytes]:
        """Every message of a mailbox, whole, without marking it as read."""
        await self.command(f'EXAMINE "{mailbox}"')
        done = await self.command("UID FETCH 1:* (UID BODY.PEEK[])")
        found: list[bytes] = []
        for line in done.untagged:
            if len(line) > 2 and line[1] == b"FETCH" and isinstance(line[2], list):
                items = dict(zip(line[2][::2], line[2][1::2], strict=False))
                body = items.get(b"BODY[]")
                if isinstance(body, bytes):
                    found.append(body)
        return found

    async def logout(self) -> None:
        await self.command("LOGOUT")
        self.close()


@asynccontextmanager
async def connected(peer: Peer, env: Env) -> AsyncIterator[ImapConnection]:
    engine = ImapClient("f" + env.random(3).hex() + "x")
    connection = ImapConnection(peer, Line(engine, await open_stream(peer)), env, engine)
    try:
        await connection.greet()
        yield connection
    finally:
        connection.close()

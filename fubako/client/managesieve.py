"""ManageSieve as a client: connect, be sure of the server, log in, keep scripts there (RFC 5804)."""

import unicodedata

from fubako.client.connection import ClientError, Connection, Credentials, LoginRefused, Peer
from fubako.clock import Env
from fubako.net.line import Line
from fubako.protocol.engine import ProtocolError
from fubako.protocol.managesieve import Challenge, ManageSieveClient, Response

NAME_SIGNS_MAX = 128
_FOR_NOW = ("TRYLATER",)
_NAMELESS = "\u2028\u2029"


class ManageSieveConnection(Connection[Response | Challenge]):
    """A session with a ManageSieve server. `said`: what it added to its last OK (warnings about a script, a quota)."""

    protocol = "sieve"

    def __init__(self, peer: Peer, line: Line[Response | Challenge], env: Env, engine: ManageSieveClient) -> None:
        super().__init__(peer, line, env)
        self.engine = engine
        self.capabilities: dict[str, str] = {}
        self.said = ""
        self._last = False  # the server's final word of a login came with its OK (RFC 5804 §2.1)

    async def greet(self) -> None:
        if self.peer.implicit_tls:
            await self.protect()
        await self._announced()
        if self.peer.implicit_tls or self.peer.bare:
            # a server that knows who we are names the owner (§1.7); only at the end of a road that proves it
            self.preauth = self.peer.bare and self.line.stream.local and bool(self.capabilities.get("OWNER"))
            return
        with self.beginning_tls():
            await self.command("STARTTLS")
        await self.protect()
        await self._announced()

    async def _announced(self) -> None:
        """What the server can do; what it said of that before is forgotten."""
        self.capabilities = (await self._completed("greeting")).capabilities

    async def _completed(self, what: str) -> Response:
        """Raises ClientError."""
        event = await self.line.event()
        if not isinstance(event, Response):
            raise ProtocolError("the server asks for more")
        if not event.ok or not event.command:
            reason = event.text or event.code or event.condition
            raise ClientError(f"{what}: the server said {reason}")
        self.said = event.text if event.code.partition("/")[0] in ("WARNINGS", "QUOTA") else ""
        return event

    async def command(self, name: str, *arguments: str | bytes | int) -> Response:
        """Raises ClientError on NO and BYE."""
        self.engine.command(name, *arguments)
        return await self._completed(name)

    @property
    def offered(self) -> list[str]:
        return self.capabilities.get("SASL", "").upper().split()

    async def login(self, credentials: Credentials) -> None:
        async def begin(name: str, initial: bytes | None) -> bytes | None:
            self._last = False
            words = [initial.decode() if initial != b"=" else ""] if initial is not None else []
            self.engine.command("AUTHENTICATE", name, *words)
            return await self._challenge()

        async def answer(response: bytes) -> bytes | None:
            if self._last:
                return None  # it was verified; the server has nothing more to hear
            self.engine.response(response)
            return await self._challenge()

        await self.authenticate(self.offered, credentials, begin, answer)

    async def _challenge(self) -> bytes | None:
        event = await self.line.event()
        if isinstance(event, Challenge):
            return event.text
        if not event.ok or not event.command:
            fault = ClientError if event.code in _FOR_NOW or event.condition == "BYE" else LoginRefused
            raise fault(f"the server refused the login: {event.text or event.code}")
        if event.code == "SASL":
            self._last = True
            return event.argument
        return None

    # -- scripts

    async def scripts(self) -> list[tuple[str, bool]]:
        """Name, and whether it is the active one (§2.7)."""
        lines = (await self.command("LISTSCRIPTS")).lines
        found = []
        for line in lines:
            if not line or not isinstance(line[0], bytes):
                raise ProtocolError("the server's list of scripts is malformed")
            marked = len(line) > 1 and isinstance(line[1], bytes) and line[1].upper() == b"ACTIVE"
            found.append((line[0].decode("utf-8", "replace"), marked))
        return found

    async def script(self, name: str) -> bytes:
        lines = (await self.command("GETSCRIPT", named(name))).lines
        if len(lines) != 1 or len(lines[0]) != 1 or not isinstance(lines[0][0], bytes):
            raise ProtocolError("the server's script is malformed")
        return lines[0][0]

    async def put(self, name: str, content: bytes) -> None:
        """Whether there is room is asked first (§2.5), so that a refused script is not sent in vain."""
        await self.command("HAVESPACE", named(name), len(content))
        await self.command("PUTSCRIPT", named(name), content)

    async def check(self, content: bytes) -> None:
        """Raises ClientError with what the server does not understand (§2.12)."""
        if "VERSION" not in self.capabilities:
            raise ClientError("this server cannot check a script without keeping it")
        await self.command("CHECKSCRIPT", content)

    async def activate(self, name: str) -> None:
        """The one script that filters from now on; with an empty name none does (§2.8)."""
        await self.command("SETACTIVE", named(name) if name else "")

    async def delete(self, name: str) -> None:
        await self.command("DELETESCRIPT", named(name))

    async def rename(self, old: str, new: str) -> None:
        if "VERSION" not in self.capabilities:
            raise ClientError("this server cannot rename scripts")
        await self.command("RENAMESCRIPT", named(old), named(new))

    async def leave(self) -> None:
        await self.command("LOGOUT")
        self.close()


def named(name: str) -> str:
    """A script's name as it may be said (§1.6). Raises ClientError."""
    if not 0 < len(name) <= NAME_SIGNS_MAX or any(unicodedata.category(c) == "Cc" or c in _NAMELESS for c in name):
        raise ClientError(f"a script's name has 1 to {NAME_SIGNS_MAX} signs, and no control characters")
    return unicodedata.normalize("NFC", name)

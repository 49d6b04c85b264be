"""A server's session in memory, with a real store in a temporary folder: no socket, no port."""

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path

from zone import Zone

from fubako import app
from fubako.accounts import directory, secrets
from fubako.clock import Env
from fubako.config import Config, Login
from fubako.net.memory import MemoryStream, pair
from fubako.net.tls import Certificate, ClientTls, ServerTls
from fubako.server.imap import ImapSession
from fubako.server.pop3 import Pop3Session
from fubako.server.session import Arrival
from fubako.server.smtp import SmtpSession
from fubako.telemetry import Telemetry
from fubako.trust.authority import ensure_authority, ensure_server

SERVICES = {"smtp": "submission", "pop3": "pop3", "imap": "imap"}
SESSIONS = {"smtp": SmtpSession, "pop3": Pop3Session, "imap": ImapSession}


class FixedClock:
    def now(self) -> float:
        return 1007276777.0

    def monotonic(self) -> float:
        return 1000.0


class FixedRandom:
    """Challenges of the seeds' dialogues: <4874.1007276777@asao.gcd.org>."""

    def __call__(self, octets: int) -> bytes:
        return (4874).to_bytes(octets, "big")


_CERTIFICATES: dict[str, Path] = {}


def certificates() -> Path:
    if "root" not in _CERTIFICATES:
        root = Path(tempfile.mkdtemp())
        ensure_authority(root / "ca.pem", root / "ca.key", "test", Env().clock.now())
        ensure_server(
            root / "s.pem", root / "s.key", (root / "ca.pem", root / "ca.key"), ["localhost"], Env().clock.now()
        )
        _CERTIFICATES["root"] = root
    return _CERTIFICATES["root"]


class Client:
    """The other end of the memory stream, as a test speaks."""

    def __init__(self, stream: MemoryStream, tls: ClientTls) -> None:
        self.stream, self._tls, self._buffer = stream, tls, b""

    def send(self, octets: bytes) -> None:
        self.stream.write(octets)

    async def line(self) -> str | None:
        while b"\r\n" not in self._buffer:
            octets = await self.stream.read()
            if not octets:
                return None
            self._buffer += octets
        line, self._buffer = self._buffer.split(b"\r\n", 1)
        return line.decode()

    async def rest(self) -> bytes:
        while octets := await self.stream.read():
            self._buffer += octets
        return self._buffer

    async def quiet(self) -> None:
        for _ in range(2000):
            await asyncio.sleep(0)
        assert not self._buffer, self._buffer
        assert not self.stream.pending

    async def start_tls(self) -> None:
        assert not self._buffer, self._buffer
        await self.stream.start_tls(self._tls.pump("localhost"))


class MemoryServer:
    """`given`: channel (tls, plain, local), service, user settings; users sengoku@gcd.org with `secret phrase`, bob with `pw`."""

    def __init__(self, protocol: str, given: dict[str, str]) -> None:
        self.protocol, self.given = protocol, given
        self._folder = tempfile.TemporaryDirectory()
        self._tasks: list[asyncio.Task] = []

    async def __aenter__(self) -> "MemoryServer":
        root = certificates()
        self.store = app.open_store(Path(self._folder.name) / "store", shared=False)
        config = Config(
            hostname="asao.gcd.org", login=Login(mechanisms=("LOGIN", "CRAM-MD5", "PLAIN", "SCRAM-SHA-256")), quiet=True
        )
        env = Env(FixedClock(), FixedRandom())
        self.app = app.Application(config, root, self.store, Telemetry(quiet=True), env, resolver=Zone())
        limits = self.app.resources.limits
        if "message" in self.given:
            smtp = replace(limits.smtp, message=int(self.given["message"]))
            self.app.resources = replace(
                self.app.resources, limits=replace(limits, smtp=smtp, append_octets_max=int(self.given["message"]))
            )

        def unit(tx):
            directory.add_domain(tx, "gcd.org", 1)
            for name, password in (("sengoku", "secret phrase"), ("bob", "pw")):
                account = directory.add_account(tx, f"{name}@gcd.org", 1)
                made = secrets.make(password, "password", "", 1, lambda n: b"s" * n, keep_secret=True)
                secrets.keep(tx, account.account_id, made)

        await self.store.database.write(unit)
        self.server_tls = ServerTls([Certificate.load(root / "s.pem", root / "s.key")])
        return self

    def sit_down(self, stream: MemoryStream, **limits: float) -> asyncio.Future:
        """A session on a stream that the test made, with other limits; done when the session is."""
        resources = replace(self.app.resources, limits=replace(self.app.resources.limits, **limits))
        service = self.given.get("service", SERVICES[self.protocol])
        session = SESSIONS[self.protocol](resources, Arrival(stream, service, self.server_tls.pump))
        self._tasks.append(asyncio.ensure_future(session.run()))
        return self._tasks[-1]

    async def connect(self, fragment: int = 0) -> Client:
        channel = self.given.get("channel", "plain")
        ours, theirs = pair(local=channel == "local")
        ours.fragment = theirs.fragment = fragment
        service = self.given.get("service", SERVICES[self.protocol])
        session = SESSIONS[self.protocol](
            self.app.resources, Arrival(ours, service, self.server_tls.pump, channel == "tls")
        )
        self.session = session
        self._tasks.append(asyncio.ensure_future(session.run()))
        client = Client(theirs, ClientTls(ca_files=[certificates() / "ca.pem"], system_authorities=False))
        if channel == "tls":
            await client.start_tls()
        return client

    async def __aexit__(self, *_error) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.app.close()
        bugs = self.app.telemetry.counters["session.bug"]
        self._folder.cleanup()
        assert not bugs, "a session failed by a fault of ours"

"""SSH as a road of our own clients: a command on another machine, or a connection that it makes for us (RFC 4254 §5, §7.2).

Keys come from an agent or from files, hosts are proved by known_hosts, `~/.ssh/config` is read as ssh reads it; several hosts are
passed one through the other. One connection to a way is shared, and made again when it broke.
"""

import asyncio
import base64
import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fubako.net import libraries
from fubako.net.interface import SshFacts, TlsError
from fubako.net.ssh_channel import CIPHERS, MACS, SIGNATURES, ChannelStream, available_kex

with libraries.found_without_programs():
    import asyncssh

CONNECT_SECONDS = 30.0
KEEPALIVE_SECONDS = 60
HOSTS_MAX = 8
_HOST = re.compile(
    r"(?:(?P<user>[^\s,]+)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^:@\s,\[\]-][^:@\s,\[\]]*)(?::(?P<port>[0-9]{1,5}))?"
)


class SshRefused(TlsError):
    """The other machine could not be reached, or did not let us in; the message says which and why."""


class HostUnknown(SshRefused):
    """Nobody vouches for the machine's key."""


class HostChanged(HostUnknown):
    """known_hosts has another key for it."""


class WayFault(ValueError):
    """What was written is no list of hosts."""


@dataclass(frozen=True, slots=True)
class Host:
    """Empty user and port 0: what ~/.ssh/config says, else the user's own name, and 22."""

    user: str
    host: str
    port: int


def hosts(way: str) -> tuple[Host, ...]:
    """`user@host:port, …`, the nearest one first. Raises WayFault."""
    found = []
    for word in way.split(","):
        read = _HOST.fullmatch(word.strip())
        if read is None or int(read["port"] or 0) > 65535:
            raise WayFault(f"{word.strip()[:80]} is no host: user@host:port is meant")
        found.append(Host(read["user"] or "", read["host"].strip("[]"), int(read["port"] or 0)))
    if len(found) > HOSTS_MAX:
        raise WayFault(f"more than {HOSTS_MAX} hosts one after the other")
    return tuple(found)


class _Client(asyncssh.SSHClient):
    """Keeps the key of a machine that nobody vouches for, to name it."""

    def __init__(self) -> None:
        self.unknown = ""

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        digest = hashlib.sha256(base64.b64decode(key.export_public_key().split()[1])).digest()
        self.unknown = f"{key.get_algorithm()} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
        return False


class _Session(asyncssh.SSHClientSession[bytes], asyncssh.SSHTCPSession[bytes]):
    """asyncssh's callbacks move bytes of the stream."""

    def __init__(self, peer: str, facts: SshFacts) -> None:
        self._peer, self._facts = peer, facts
        self.errors = b""

    def connection_made(self, chan: Any) -> None:
        self.stream = ChannelStream(chan, self._peer, self._facts)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype is None:
            self.stream._arrived(data)
        else:
            self.errors = (self.errors + data)[-1000:]

    def eof_received(self) -> bool:
        self.stream._ended()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.stream._lost()

    def pause_writing(self) -> None:
        self.stream._writing_paused()

    def resume_writing(self) -> None:
        self.stream._writing_resumed()


class SshWays:
    """Connections to other machines, one for each way, as long as they hold."""

    def __init__(
        self, known_hosts: Sequence[str] = (), identities: Sequence[str] = (), config: Path | None = None
    ) -> None:
        self._more: dict[str, Any] = {}
        if known_hosts:
            self._more["known_hosts"] = list(known_hosts)
        if identities:
            self._more["client_keys"] = list(identities)
        if config is not None:
            self._more["config"] = str(config)
        self._ways: dict[str, list[asyncssh.SSHClientConnection]] = {}
        self._alone = asyncio.Lock()

    async def command(self, way: str, command: str) -> ChannelStream:
        """Standard input and output of a command there. Raises SshRefused, WayFault."""
        connection, facts, name = await self._to(way)
        try:
            _, session = await connection.create_session(lambda: _Session(name, facts), command, encoding=None)
        except (asyncssh.Error, OSError) as error:
            raise SshRefused(f"{name} does not run {command}: {_said(error)}") from None
        return cast(_Session, session).stream

    async def run(self, way: str, command: str, given: bytes, seconds: float) -> tuple[int, bytes]:
        """A command there that reads `given`: its exit code, and the end of its standard error. Raises SshRefused, WayFault."""
        connection, _, name = await self._to(way)
        try:
            async with asyncio.timeout(seconds):
                done = await connection.run(command, input=given, encoding=None)
        except TimeoutError:
            raise SshRefused(f"{name}: {command} took longer than {seconds:.0f} seconds") from None
        except (asyncssh.Error, OSError) as error:
            raise SshRefused(f"{name} does not run {command}: {_said(error)}") from None
        wrong = done.stderr if isinstance(done.stderr, bytes) else b""
        return (done.exit_status if done.exit_status is not None else 255), wrong[-1000:]

    async def forward(self, way: str, host: str, port: int) -> ChannelStream:
        """A connection that the last machine of the way makes. Raises SshRefused, WayFault."""
        connection, facts, name = await self._to(way)
        try:
            _, session = await connection.create_connection(
                lambda: _Session(f"{host}:{port} from {name}", facts), host, port, encoding=None
            )
        except (asyncssh.Error, OSError) as error:
            raise SshRefused(f"{name} does not connect to {host}:{port}: {_said(error)}") from None
        return cast(_Session, session).stream

    async def _to(self, way: str) -> tuple[asyncssh.SSHClientConnection, SshFacts, str]:
        through = hosts(way)
        async with self._alone:
            line = self._ways.get(way, [])
            if not line or any(one.is_closed() for one in line):
                await self._leave(way)
                line = self._ways[way] = []
                try:
                    for host in through:
                        line.append(await self._one(host, line[-1] if line else None))
                except BaseException:
                    await self._leave(way)
                    raise
        last = line[-1]
        user = last.get_extra_info("username") or ""
        name = through[-1].host
        key = last.get_server_host_key()
        shown = key.get_fingerprint() if key is not None else ""
        return last, SshFacts(user, f"{user} at {name}", shown, str(last.get_extra_info("send_cipher") or "")), name

    async def _one(self, host: Host, before: asyncssh.SSHClientConnection | None) -> asyncssh.SSHClientConnection:
        made: list[_Client] = []

        def client() -> _Client:
            made.append(_Client())
            return made[-1]

        more = dict(self._more)
        if host.user:
            more["username"] = host.user
        try:
            options = await asyncio.to_thread(
                asyncssh.SSHClientConnectionOptions, host=host.host, port=host.port or (), client_factory=client,
                keepalive_interval=KEEPALIVE_SECONDS, login_timeout=CONNECT_SECONDS, password_auth=False, kbdint_auth=False,
                kex_algs=available_kex(), encryption_algs=list(CIPHERS), mac_algs=list(MACS), signature_algs=list(SIGNATURES),
                compression_algs=None,
                **more,
            )  # fmt: skip
            async with asyncio.timeout(2 * CONNECT_SECONDS):
                tunnel: Any = {"tunnel": before} if before is not None else {}
                return await asyncssh.connect(host.host, host.port or (), options=options, **tunnel)
        except asyncssh.HostKeyNotVerifiable as error:
            key = made[-1].unknown if made else ""
            self._unknown(options, host, key, str(error))
            raise AssertionError from None
        except asyncssh.PermissionDenied:
            raise SshRefused(f"{host.host} did not let {host.user or 'us'} in: none of the keys was taken") from None
        except TimeoutError:
            raise SshRefused(f"{host.host} did not answer in time") from None
        except (asyncssh.Error, OSError, ValueError) as error:
            raise SshRefused(f"{host.host} cannot be reached by SSH: {_said(error)}") from None

    @staticmethod
    def _unknown(options: Any, host: Host, key: str, reason: str) -> None:
        """Raises HostUnknown, or HostChanged where another key is known."""
        known: Sequence[Any] = ()
        with suppress(asyncssh.Error, OSError, ValueError, TypeError):
            found = asyncssh.match_known_hosts(options.known_hosts, options.host or host.host, "", options.port)
            known = [*found[0], *found[1]]
        if known and key:
            raise HostChanged(
                f"{host.host} shows ANOTHER SSH key than the one in known_hosts: {key}. Nothing was said to it"
            )
        raise HostUnknown(
            f"the SSH key of {host.host} is not in known_hosts: {key or reason}. Compare it, then: ssh {host.host} exit"
        )

    async def _leave(self, way: str) -> None:
        for one in reversed(self._ways.pop(way, [])):
            one.close()
            with suppress(Exception):
                async with asyncio.timeout(3):
                    await one.wait_closed()

    async def close(self) -> None:
        for way in list(self._ways):
            await self._leave(way)


def _said(error: Exception) -> str:
    return getattr(error, "reason", "") or str(error) or type(error).__name__

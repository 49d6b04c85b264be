"""The SSH door of an `Application`: asyncssh and the commands behind it are loaded only where ssh is listened for."""

import asyncio
import socket
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol

from fubako.accounts.identity import Identity
from fubako.config import SERVICES, Config, ConfigError, split_address
from fubako.net.interface import Stream
from fubako.net.tls import ServerTls
from fubako.policy.limits import Connections
from fubako.server.session import Arrival, Resources
from fubako.server.sessions import PROTOCOL, SESSIONS
from fubako.server.ssh import Rules, SshDoor, Way
from fubako.telemetry import Telemetry

try:
    from fubako.net import ssh
except ImportError as error:
    raise ConfigError(f"listen.service: ssh needs the extra `ssh` (asyncssh) to be installed: {error}") from None


class House(Protocol):
    """What of an `Application` the door leads to; read anew for each connection, because a reload changes it."""

    @property
    def config(self) -> Config: ...
    @property
    def base(self) -> Path: ...
    @property
    def tls(self) -> Mapping[str, ServerTls]: ...
    @property
    def resources(self) -> Resources: ...
    @property
    def connections(self) -> Connections: ...
    @property
    def telemetry(self) -> Telemetry: ...
    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]": ...


class Closable(Protocol):
    def close(self) -> None: ...


_REACHED = tuple(name for name in SERVICES if name != "ssh")


def host_keys(config: Config, base: Path) -> list[Path]:
    """Files of the private host keys; the default one is made where it is missing. Raises ConfigError."""
    if config.ssh.host_keys:
        return [base / one for one in config.ssh.host_keys]
    path = base / config.directory / "ssh" / "host_ed25519"
    try:
        ssh.ensure_host_key(path)
    except OSError as error:
        raise ConfigError(f"ssh.host_keys: {path} cannot be made: {error.strerror or error}") from None
    return [path]


def public_host_keys(config: Config, base: Path) -> list[tuple[str, str, str]]:
    """(`type base64`, fingerprint, SSHFP) of each host key. Raises ConfigError."""
    found = []
    for path in host_keys(config, base):
        try:
            line = ssh.public_host_key(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"ssh.host_keys: {path} cannot be read: {error}") from None
        found.append((line, *ssh.fingerprints(line)))
    return found


def rules(config: Config) -> Rules:
    """Which ports and names lead to services here: the ones that are listened on, and the standard ports of those services."""
    services: dict[int, str] = {}
    hosts = {config.hostname.lower(), "localhost", "127.0.0.1", "::1"}
    configured = [one for one in config.listen if one.service in _REACHED]
    for one in configured:
        for address in one.addresses:
            host, port = split_address(address)
            hosts.add(host.lower())
            services[port] = one.service
    for one in configured:
        services.setdefault(SERVICES[one.service][0], one.service)
    given = config.ssh
    return Rules(given.password, given.forward, given.forward_login == "known", services, frozenset(hosts))


async def open_door(house: House, listener: socket.socket) -> Closable:
    """Raises ConfigError."""

    async def serve(stream: Stream, service: str, identity: Identity, known: bool) -> None:
        protocol = PROTOCOL[service]
        begins = identity if known and service != "smtp" else None  # port 25 knows no users
        tls = house.tls.get(protocol)
        pump = tls.pump if tls is not None else None
        arrival = Arrival(stream, service, pump, SERVICES[service][1], begins, identity.account.address)
        await SESSIONS[protocol](house.resources, arrival).run()

    connections = house.connections
    way = Way(serve, connections.enter, connections.leave)
    config, base = house.config, house.base
    door = lambda: SshDoor(house.resources, rules(house.config), way)  # noqa: E731  # one a connection, of what holds then
    for line, fingerprint, _ in public_host_keys(config, base):
        house.telemetry.event("ssh.host_key", key=line.partition(" ")[0], fingerprint=fingerprint)
    try:
        return await ssh.listen(listener, host_keys(config, base), door, house.spawn, config.limits.login_seconds)
    except (OSError, ValueError) as error:
        raise ConfigError(f"ssh.host_keys: {error}") from None

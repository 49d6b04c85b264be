"""`SshDoor`: one SSH connection of an account: its keys, and which services it reaches; what it may run is in `ssh_commands`."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from fubako.accounts.identity import Identity, Scene
from fubako.net.interface import SshFacts, Stream, Terminal
from fubako.policy.limits import network_of
from fubako.protocol.sasl import SaslFailure
from fubako.server.session import Resources
from fubako.server.ssh_commands import Commands, Serve
from fubako.store.interface import StoreError
from fubako.telemetry import visible


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says of the door. `services`: the service behind a port. `hosts`: the names that mean this server."""

    passwords: bool = False
    forward: bool = True
    forward_known: bool = False  # forwarded connections begin logged in
    services: Mapping[int, str] = field(default_factory=dict)
    hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Way:
    """How a service is served: `serve` makes the session of an arrival and runs it; its last argument says whether it begins
    logged in."""

    serve: Serve
    enter: Callable[[str], bool]
    leave: Callable[[str], None]


class SshDoor:
    """One connection. `passwords` tells whether they are taken at all."""

    def __init__(self, resources: Resources, rules: Rules, way: Way) -> None:
        self._resources = resources
        self._rules = rules
        self._way = way
        self.passwords = rules.passwords
        self._peer = ""
        self._commands: Commands | None = None  # once somebody came in
        self._trace_id = resources.env.trace_id()

    # -- who it is

    def came(self, peer: str) -> bool:
        self._peer = peer
        return self._way.enter(peer)

    def left(self) -> None:
        self._way.leave(self._peer)
        self._resources.telemetry.event("ssh.ended", self._trace_id, peer=self._peer)

    async def keys(self, user: str) -> list[tuple[str, str, bool]]:
        try:
            _, found = await self._resources.logins.keys(user)
        except StoreError as error:
            self._resources.telemetry.event("store.error", self._trace_id, reason=str(error))
            return []
        return [(key.fingerprint, key.line, key.authority) for key in found]

    async def password(self, user: str, password: str) -> bool:
        try:
            network, failures = network_of(self._peer), self._resources.guessing.count(self._peer)
            await self._resources.logins.password(user, password, Scene("ssh", network=network, failures=failures))
        except SaslFailure as error:
            await self._failed(str(error))
            return False
        return True

    async def refused(self, user: str) -> None:
        """An agent offers every key that it has: only the event is written, nobody has to wait."""
        self._resources.telemetry.count("ssh.keys_refused")

    async def _failed(self, reason: str) -> None:
        self._resources.telemetry.event("login.failed", self._trace_id, service="ssh", peer=self._peer, reason=reason)
        await asyncio.sleep(self._resources.guessing.failed(self._peer))

    async def entered(self, facts: SshFacts) -> bool:
        account, found = await self._resources.logins.keys(facts.user)
        if account is None:
            return False
        limited: tuple[str, ...] = ()
        if facts.key:
            key = next((one for one in found if one.fingerprint == facts.key), None)
            if key is None:  # it was taken away while he was knocking
                return False
            limited = key.commands
        identity = Identity(account, "publickey" if facts.key else "password")
        self._commands = Commands(self._resources, identity, limited, self._way.serve, self._peer, self._trace_id)
        self._resources.guessing.succeeded(self._peer)
        self._resources.telemetry.event(
            "login.held", self._trace_id, service="ssh", peer=self._peer, user=account.address,
            mechanism=identity.mechanism, binding="", proof=facts.proof,
        )  # fmt: skip
        return True

    # -- what he may do

    def leads(self, host: str, port: int) -> Callable[[Stream], Awaitable[None]] | None:
        service = self._rules.services.get(port) if host.lower().rstrip(".") in self._rules.hosts else None
        commands = self._commands
        if service is None or not self._rules.forward or commands is None or not commands.may("forward"):
            self._resources.telemetry.event(
                "ssh.refused", self._trace_id, peer=self._peer, what=visible(f"forward {host}:{port}")
            )
            return None
        identity, known = commands.identity, self._rules.forward_known
        return lambda stream: self._way.serve(stream, service, identity, known)

    async def run(self, command: str, terminal: Terminal) -> int:
        """The exit code of a command, one of sysexits."""
        assert self._commands is not None
        return await self._commands.run(command, terminal)

"""`SshDoor`: one SSH connection of an account: its keys, and which services it reaches; what it may run is in `ssh_commands`."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from fubako.accounts.identity import Identity, Proof, Scene
from fubako.accounts.presence import Stay
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
        self._proved: Identity | None = None  # by a password
        self._stay: Stay | None = None
        self.hang_up: Callable[[], None] = lambda: None

    @property
    def scene(self) -> Scene:
        return Scene("ssh", network=network_of(self._peer))

    # -- who it is

    def came(self, peer: str) -> bool:
        self._peer = peer
        return self._way.enter(peer)

    def left(self) -> None:
        self._way.leave(self._peer)
        if self._stay is not None:
            self._stay.leave()
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
            self._proved = await self._resources.logins.password(user, password, self.scene)
        except SaslFailure as error:
            await self._failed(str(error))
            return False
        return True

    async def refused(self, user: str) -> None:
        """An agent offers every key that it has: only the event is written, nobody has to wait."""
        self._resources.telemetry.count("ssh.keys_refused")

    async def _failed(self, reason: str) -> None:
        self._resources.telemetry.event("login.failed", self._trace_id, service="ssh", peer=self._peer, reason=reason)

    async def entered(self, facts: SshFacts) -> bool:
        logins = self._resources.logins
        account, found = await logins.keys(facts.user)
        limited: tuple[str, ...] = ()
        proof = Proof.KEY
        if facts.key:
            key = next((one for one in found if one.fingerprint == facts.key), None)
            if key is None:  # it was taken away while he was knocking
                return False
            limited = key.commands
        elif self._proved is None:
            return False
        else:
            account, proof = self._proved.account, self._proved.proof
        try:
            account = await logins.admitted(account, proof, self.scene)
        except SaslFailure:
            return False
        identity = Identity(account, "publickey" if facts.key else "password", proof=proof)
        # before anything is awaited that takes time: the client may open channels at once
        self._stay = self._resources.presence.enter(identity, self._changed)
        self._commands = Commands(
            self._resources, identity, limited, self._way.serve, self._peer, self._trace_id, self._stay
        )
        self._resources.telemetry.event(
            "login.held", self._trace_id, service="ssh", peer=self._peer, user=account.address,
            mechanism=identity.mechanism, binding="", proof=facts.proof,
        )  # fmt: skip
        await logins.note(identity, self.scene.network)
        return True

    def _changed(self) -> None:
        self._resources.telemetry.event("session.revoked", self._trace_id, service="ssh", peer=self._peer)
        self.hang_up()

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

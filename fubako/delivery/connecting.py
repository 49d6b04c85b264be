"""`Connector`: which server of a destination is spoken to, and what protection it must give: all that is known of it is put
together here and judged by `trust.demand`; what it did is remembered and counted for TLSRPT."""

from fubako.client.connection import Credentials
from fubako.clock import Env
from fubako.delivery import pipe, remote
from fubako.delivery.assurance import NOTHING, Assurance, Insecure, Promise
from fubako.delivery.remote import Carrier, Unreachable
from fubako.delivery.route import Host, NextHop, secret_in
from fubako.delivery.tlsresults import TlsResults
from fubako.message.status import Status
from fubako.message.trace import mail_date
from fubako.net.interface import TlsaRecord
from fubako.store import peers
from fubako.store.interface import Database
from fubako.store.queue import Outgoing
from fubako.telemetry import Telemetry
from fubako.trust.demand import Demand, Known, Level, demand

NOTED_AGAIN_SECONDS = 3600  # the same level is written down so often
REMEMBERED_MAX = 10_000  # servers in memory


class Connector:
    """One a runner. `results` are what TLSRPT tells other domains."""

    def __init__(self, database: Database, env: Env, telemetry: Telemetry, assurance: Assurance, hostname: str) -> None:
        self._database, self._env, self._telemetry = database, env, telemetry
        self._assurance, self._hostname = assurance, hostname
        self.results = TlsResults(database, env)
        self._levels: dict[str, tuple[int, float]] = {}  # what was noted of servers, and when

    async def connect(self, hop: NextHop, letter: Outgoing) -> Carrier:
        """The first server of the destination that answers as is demanded. Raises Unreachable with the last reason."""
        credentials = await self._credentials(hop)
        problem = Unreachable(Status(451, "4.4.1", "there is no server to try"))
        if hop.kind == "lmtp-socket":
            return await remote.connect(hop, None, "", self._env, self._hostname, Demand(Level.OPEN, ""), None)
        promise = await self._promise(hop)
        for host in hop.hosts:
            try:
                known = await self._known(hop, host, letter, promise)
            except Unreachable as found:
                problem = found
                self._telemetry.event("queue.unreachable", letter.trace_id, host=host.name, reason=str(found))
                continue
            wanted = demand(known)
            for address in host.addresses:
                try:
                    carrier = await remote.connect(hop, host, address, self._env, self._hostname, wanted, credentials)
                except Unreachable as found:
                    problem = found
                    self.results.note(hop, host, known, promise, found.fault, found.status.text)
                    self._telemetry.event("queue.unreachable", letter.trace_id, host=host.name, reason=str(found))
                    continue
                self.results.note(hop, host, known, promise, carrier.fault, carrier.doubt)
                carrier.lenient = letter.tls_optional
                await self._remember(_endpoint(hop, host), carrier.level)
                return carrier
        raise problem

    async def enough(self, carrier: Carrier, hop: NextHop, letter: Outgoing) -> None:
        """An open connection may have been made for a letter that demands less. Raises Unreachable when this one demands more."""
        demands_more = letter.require_tls or (carrier.lenient and not letter.tls_optional)
        if not demands_more or carrier.line.stream.local:
            return
        name = carrier.peer.server_name
        host = next((one for one in hop.hosts if one.name == name), hop.hosts[0])
        wanted = demand(await self._known(hop, host, letter, await self._promise(hop)))
        level = carrier.level if wanted.keys == carrier.demand.keys else Level.ENCRYPTED
        unmet = wanted.unmet(level, name, carrier.doubt)
        if unmet:
            raise Unreachable(Status(451, "4.7.10", unmet), weak=True)

    async def _promise(self, hop: NextHop) -> Promise:
        return await self._assurance.promise(hop.domain) if hop.domain else NOTHING

    async def _credentials(self, hop: NextHop) -> Credentials | None:
        """Raises Unreachable: a password of ours that cannot be had is no reason to give a letter up."""
        route = hop.route
        if not route.user:
            return None
        try:
            if route.password_command:
                return Credentials(route.user, await pipe.output(route))
            return Credentials(route.user, secret_in(route.password_file) if route.password_file else "")
        except OSError as error:
            raise Unreachable(Status(451, "4.3.5", f"the password of the route cannot be had: {error}")) from None

    async def _known(self, hop: NextHop, host: Host, letter: Outgoing, promise: Promise) -> Known:
        """Raises Unreachable for a host that must not be used."""
        now = int(self._env.clock.now())
        tlsa: tuple[TlsaRecord, ...] = ()
        if host.authentic:
            try:
                tlsa = await self._assurance.keys(host.name, host.port)
            except Insecure as problem:
                if not letter.tls_optional:
                    raise Unreachable(problem.status, weak=True, fault="dnssec-invalid") from None
        policy = promise.policy
        if policy is not None and policy.mode != "none" and not policy.allows(host.name):
            known = Known(promised=policy)
            self.results.note(hop, host, known, promise, "validation-failure", "not among the promised hosts")
            if policy.mode == "enforce" and not letter.tls_optional:
                words = (
                    f"{host.name} is none of the servers that {hop.domain} promises (MTA-STS): {', '.join(policy.mx)}"
                )
                raise Unreachable(Status(451, "4.7.10", words), weak=True)
        level, seen = await self._database.read(lambda tx: peers.proved(tx, _endpoint(hop, host), now))
        when = mail_date(seen)[5:16] if seen else ""
        return Known(hop.route.tls, tlsa, policy, Level(level), when, letter.require_tls, letter.tls_optional)

    async def _remember(self, server: str, level: Level) -> None:
        """What a server could do, for the next time."""
        noted, at = self._levels.get(server, (-1, 0.0))
        if level != noted or self._env.clock.monotonic() - at > NOTED_AGAIN_SECONDS:
            now = int(self._env.clock.now())
            await self._database.write(lambda tx: peers.note(tx, server, int(level), now))
            if len(self._levels) >= REMEMBERED_MAX:
                self._levels.clear()
            self._levels[server] = (int(level), self._env.clock.monotonic())


def _endpoint(hop: NextHop, host: Host) -> str:
    return peers.endpoint(hop.kind, host.name, host.port)

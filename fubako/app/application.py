"""`Application`: a configuration becomes objects and listeners."""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from fubako import modes
from fubako.accounts import directory
from fubako.accounts.guessing import Guessing
from fubako.accounts.login import LoginRules, Logins
from fubako.accounts.presence import Presence
from fubako.accounts.recipients import Recipients
from fubako.app import built
from fubako.app.built import load_access, load_tls, routes
from fubako.app.fronts import Accepted, Fronts, Wanted
from fubako.app.listeners import Bound
from fubako.app.storage import Store, compact_store
from fubako.clock import Env
from fubako.config import AUTH_SERVERS, Config, ConfigError, OAuth, is_loopback, split_address
from fubako.delivery.again import Again
from fubako.delivery.assurance import Assurance
from fubako.delivery.bounce import Reports
from fubako.delivery.dress import Dresser
from fubako.delivery.intake import Intake
from fubako.delivery.reporting import Reporter
from fubako.delivery.route import Router
from fubako.delivery.runner import Runner
from fubako.delivery.schedule import Schedule
from fubako.front.frames import Settings
from fubako.message.address import Address
from fubako.net import proxy, tcp
from fubako.net.interface import Https, Pump, Resolver, Stream, StreamClosed, StreamTimeout, TlsError
from fubako.net.pace import Pace
from fubako.net.proxy import ProxyError
from fubako.net.tls import ServerTls
from fubako.policy.access import Access
from fubako.policy.gate import within
from fubako.policy.harvest import Harvest
from fubako.policy.limits import Connections
from fubako.protocol.smtp import SmtpLimits
from fubako.scan.nursery import Nursery
from fubako.server.memory import Memory
from fubako.server.reception import Reception
from fubako.server.session import Arrival, Limits, Resources, stop_all
from fubako.server.sessions import PROTOCOL, SESSIONS
from fubako.store import ownership, record
from fubako.store.guesses import SharedCounts
from fubako.store.interface import Damaged, StoreError
from fubako.store.lease import SERVER
from fubako.store.leases import Lease, Leases
from fubako.store.migration import forget_copies
from fubako.store.passing import forget as forget_passing
from fubako.store.queue import LANES, forget_sent
from fubako.store.quiet import QuietIndexing
from fubako.store.reports import forget as forget_reports
from fubako.store.segments import MAGIC
from fubako.store.spool import Spool
from fubako.telemetry import Telemetry

FRONTED = ("smtp", "submission", "submissions")  # services whose conversations a front can hold
RETIRE_SECONDS = 3600.0  # how long sessions go on in a worker whose place others have taken
LINGER_SECONDS = 0.5  # for what stands behind sessions (an SSH command) to end with them
COMPACT_SECONDS = 3600.0
SENT_SECONDS = 30 * 24 * 3600  # how long `trace` knows what became of letters that left


class Listening(Protocol):
    def close(self) -> None: ...


def _elsewhere() -> Pump:
    raise AssertionError("TLS is done by another process")


def preload(config: Config, base: Path) -> None:
    """Load what this configuration will need, before privileges are dropped: later the program's own files may be out of reach.
    What is loaded before the workers are forked is in memory once."""
    outside = any(
        listen.service == "smtp" and not all(is_loopback(split_address(one)[0]) for one in listen.addresses)
        for listen in config.listen
    )
    by_mx = any(route.to == "mx" for route in config.route)
    needed = ["fubako.net.dns"] if by_mx or config.dns_list or (outside and config.inbound.examine) else []
    needed += ["fubako.net.https"] if by_mx else []
    needed += ["fubako.app.door"] if any(listen.service == "ssh" for listen in config.listen) else []
    for name in needed:
        import_module(name)
    if config.password_backend or config.oauth != OAuth() or config.kerberos.keytab:
        resolver = built.LateResolver(config)
        built.login_rules(config, base, built.LateHttps(resolver), Env(), Telemetry(quiet=True))


def check(config: Config, base: Path) -> None:
    """Whatever a server reads at a start can be read. Raises ConfigError, TlsError, which name the place."""
    load_tls(config, base)
    routes(config, base)
    if config.access:
        load_access(base / config.access)
    preload(config, base)


@dataclass(slots=True)
class Application:
    """One process that serves: a store, resources, sessions. Reloading swaps the TLS contexts and limits for new sessions."""

    config: Config
    base: Path
    store: Store
    telemetry: Telemetry
    env: Env = field(default_factory=Env)
    server: bool = False  # under a claim of the store: nobody else serves it
    tls: dict[str, ServerTls] = field(default_factory=dict)
    resources: Resources = field(init=False)
    connections: Connections = field(init=False)
    counts: SharedCounts = field(init=False)
    indexing: QuietIndexing = field(init=False)
    _servers: list[Listening] = field(default_factory=list)
    _sessions: set[asyncio.Task[None]] = field(default_factory=set)
    _housekeeping: asyncio.Task[None] | None = None
    resolver: Resolver | None = None
    https: Https | None = None
    nursery: Nursery | None = None  # who makes a front
    _fronts: Fronts | None = None
    router: Router = field(init=False)
    dresser: Dresser = field(init=False)
    reports: Reports = field(init=False)
    _runner: Runner | None = None
    _left_at: float = float("-inf")

    def __post_init__(self) -> None:
        self.tls = self.tls or load_tls(self.config, self.base)
        self.resolver = self.resolver or built.LateResolver(self.config)
        self.router = self._router(self.config)
        self.dresser = built.dresser(self.config, self.store.database, self.env, self.store.pool)
        self.reports = Reports(self.store.blobs, self.env, self.config.hostname, self.routed, self._back)
        self.counts = SharedCounts(self.store.database, self.env)
        self.resources = self._resources(None, self._login_rules(self.config))
        self.store.pool.telemetry = self.store.indexer.telemetry = self.telemetry
        self.store.blobs.told = self._tell_damage
        self.indexing = QuietIndexing(self.store.indexer, self.store.database)
        self.store.changes.watch = self.indexing.noticed
        limits = self.config.limits
        self.connections = Connections(limits.connections, limits.connections_per_network)

    async def _back(self, address: Address) -> Address:
        return await self.dresser.back(address)

    def _access(self) -> Access | None:
        """Raises ConfigError."""
        return load_access(self.base / self.config.access) if self.config.access else None

    def routed(self, domain: str) -> bool:
        """Whether a route leads to a domain."""
        return self.router.rule(domain) is not None

    def _router(self, config: Config) -> Router:
        """Raises ConfigError."""
        assert self.resolver is not None
        return Router(routes(config, self.base), self.resolver, config.hostname, random.shuffle)

    def run_queue(self, workers: int = 1) -> None:
        """Carry letters to other domains, together with the other workers."""
        assert self.resolver is not None
        queue = self.config.queue
        schedule = Schedule(
            queue.first_gap_seconds, queue.longest_gap_seconds, queue.warn_hours * 3600, queue.give_up_days * 86400
        )
        assurance = Assurance(
            self.store.database, self.resolver, self.https or built.LateHttps(self.resolver, public=True), self.env
        )
        again = Again(self.resources.intake, self.resources.recipients, self.routed)
        self._runner = Runner(
            self.store.database, self.store.blobs, self.store.changes, self.env, self.telemetry, self.router, self.reports,
            assurance, again, self.config.hostname, self.resources.leases.owner, schedule, -(-LANES // workers),
        )  # fmt: skip
        self._runner.start()
        self.resources.intake.outlet = self._runner

    def _login_rules(self, config: Config) -> LoginRules:
        """Raises ConfigError."""
        assert self.resolver is not None
        https = self.https or built.LateHttps(self.resolver)
        return built.login_rules(config, self.base, https, self.env, self.telemetry)

    def _resources(self, before: Resources | None, rules: LoginRules) -> Resources:
        config, env = self.config, self.env
        smtp = SmtpLimits(
            message=config.limits.message_octets,
            recipients=config.limits.recipients,
            long_lines=config.inbound.long_lines == "accept",
        )
        limits = Limits(
            smtp,
            config.limits.smtp_idle_seconds,
            config.limits.pop3_idle_seconds,
            config.limits.imap_idle_seconds,
            config.limits.login_seconds,
            config.limits.message_octets,
            Pace(
                command_seconds=config.limits.command_seconds,
                content_seconds=config.limits.content_seconds,
                rate=config.limits.octets_per_second,
                taking_seconds=config.limits.taking_seconds,
            ),
            config.limits.smtp_transaction_seconds,
            config.limits.smtp_session_seconds,
            config.limits.smtp_session_messages,
            config.limits.commands_before_login,
            config.limits.search_keys,
            config.limits.imap_command_octets,
        )
        assert self.resolver is not None
        gate = built.gate(config, self.resolver, self.store.database, env, self.store.pool)
        return Resources(
            config.hostname,
            env,
            self.telemetry,
            self.store.database,
            self.store.blobs,
            self.store.changes,
            self._logins(before, rules),
            before.recipients if before else Recipients(self.store.database, env.clock),
            self.routed,
            self._access(),
            Intake(
                self.store.database,
                self.store.blobs,
                env,
                config.hostname,
                self.telemetry,
                self.reports,
                self.dresser,
                bool(config.filter.next_hop),
            ),
            self.dresser,
            gate,
            Reception(config.hostname, gate, self.dresser, self.store.database, env),
            partial(built.filters, config),
            before.presence if before else Presence(self.store.database, self.store.changes, env, self.telemetry),
            before.harvest if before else Harvest(self.counts, env, config.limits.unknown_recipients),
            limits,
            before.leases if before else Leases(self.store.database, env.clock, self._owner()),
            self.store.indexer,
            before.spool if before else self._spool(),
            before.memory if before else Memory(config.limits.memory_octets),
            config.submission.foreign_addresses == "accept",
            before.sessions if before else set(),
        )

    def _owner(self) -> str:
        """The name of this process's life: no other one has it."""
        return f"{SERVER if self.server else ''}{os.getpid()}-{self.env.random(8).hex()}"

    def _spool(self) -> Spool:
        limits = self.config.limits
        return Spool(
            self.store.directory / "spool", memory_octets=limits.memory_octets // 4, disk_octets=limits.spool_octets
        )

    def _logins(self, before: Resources | None, rules: LoginRules) -> Logins:
        if before is None:
            guessing = Guessing(self.counts, self.env)
            return Logins(
                self.store.database, self.env, self.config.hostname, rules, guessing=guessing, telemetry=self.telemetry
            )
        old = before.logins.rules.chain
        before.logins.follow(rules)
        if old is not None:
            self.spawn(old.close())
        return before.logins

    async def _check_backends(self) -> None:
        """A backend that knows users by the part before the @ says nothing about whose domain is meant. Raises ConfigError."""
        chain = self.resources.logins.rules.chain
        unnamed = chain.unnamed() if chain is not None else ""
        domains = await self.store.database.read(directory.domains) if unnamed else []
        if len(domains) > 1:
            raise ConfigError(
                f"password_backend.domains: {unnamed} knows users without their domain, and {len(domains)} domains are kept here:"
                f' write whose users they are, as domains = ["{domains[0][0]}"]'
            )

    async def listen(self, bound: list[Bound]) -> None:
        """Raises ConfigError."""
        await self._check_backends()
        await self._start_front(bound)
        for one in bound:
            if one.service == "ssh":
                self._servers.append(await self._open_door(one))
            elif self._fronts is not None and self._is_apart(one):
                self._servers.append(self._fronts.listen(one.socket, self._accepted(one, self._fronts)))
            else:
                self._servers.append(await tcp.listen(one.socket, self._connected(one)))

    def _is_apart(self, one: Bound) -> bool:
        """Whether another process holds the conversations of this port, or does the TLS that it begins with. What a proxy says
        first is read here, and so is what follows."""
        return (one.service in FRONTED or (one.implicit_tls and bool(self.tls))) and not one.proxies

    async def _start_front(self, bound: list[Bound]) -> None:
        """Strangers are met by processes of their own, where these can be had."""
        if self.config.apart == "off" or self.nursery is None or not any(map(self._is_apart, bound)):
            return
        fronts = Fronts(self.nursery, self._apart(), self.telemetry)
        if await fronts.start():
            self._fronts = fronts

    def _apart(self) -> Wanted:
        limits = self.resources.limits
        pace = limits.pace
        settings = Settings(
            smtp=limits.smtp, command_seconds=pace.command_seconds, content_seconds=pace.content_seconds, rate=pace.rate,
            taking_seconds=pace.taking_seconds,
        )  # fmt: skip
        offers = {protocol: one.offer for protocol, one in self.tls.items()}
        return Wanted(settings=settings, offers=offers, connections=self.config.limits.connections)

    async def _open_door(self, one: Bound) -> Listening:
        """Raises ConfigError."""
        from fubako.app.door import open_door

        return await open_door(self, one.socket)

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """A task that ends with the server."""
        task = asyncio.get_running_loop().create_task(work)
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)
        return task

    def _connected(self, one: Bound) -> Callable[[tcp.TcpStream], None]:
        if one.service in AUTH_SERVERS:
            return self._asked(one)
        protocol = PROTOCOL[one.service]

        def connected(stream: tcp.TcpStream) -> None:
            if one.proxies:
                self.spawn(self._introduced(stream, one, serve))
            else:
                serve(stream)

        def serve(stream: tcp.TcpStream) -> None:
            if not self._may_come(stream.peer):
                stream.close()
                return
            tls = self.tls.get(protocol) if one.service != "lmtp" else None
            if self._fronts is not None and tls is not None and not one.implicit_tls:
                stream.secure = self._fronts.secure(protocol)
            self._begin(one, stream, tls.pump if tls is not None else None)

        return connected

    def _accepted(self, one: Bound, fronts: Fronts) -> Accepted:
        """A port whose conversations a front holds."""

        def accepted(connection: socket.socket, peer: str) -> None:
            if not self._may_come(peer):
                connection.close()
            elif one.implicit_tls:
                self.spawn(self._secured(one, fronts, connection, peer))
            elif fronts.front.channel is not None:
                stream = fronts.front.channel.open(connection, peer)
                stream.secure = fronts.secure(PROTOCOL[one.service])
                self._begin(one, stream, _elsewhere if stream.secure is not None else None)

        return accepted

    async def _secured(self, one: Bound, fronts: Fronts, connection: socket.socket, peer: str) -> None:
        """TLS from the first octet; then the conversation begins."""
        try:
            secure = fronts.secure(PROTOCOL[one.service])
            if secure is None:
                raise TlsError("no certificate is configured")
            async with asyncio.timeout(self.resources.limits.login_seconds):
                facts, plaintext = await secure(connection)
            stream = await self._secured_stream(one, fronts, connection, peer, plaintext)
        except (TlsError, TimeoutError) as error:
            reason = str(error) or "the handshake took too long"
            self.telemetry.event("session.tls_error", service=one.service, peer=peer, reason=reason)
            connection.close()
            self.connections.leave(peer)
            return
        except BaseException:
            connection.close()
            self.connections.leave(peer)
            raise
        stream.tls = facts
        self._begin(one, stream, None)

    async def _secured_stream(
        self, one: Bound, fronts: Fronts, connection: socket.socket, peer: str, plaintext: socket.socket
    ) -> Stream:
        """What a session has of a connection whose TLS is elsewhere. Raises TlsError."""
        if one.service not in FRONTED:
            stream = await tcp.accepted(plaintext)
            stream.peer, stream.local = peer, False
            connection.close()
            return stream
        with plaintext:
            if fronts.front.channel is None:
                raise TlsError("no process holds conversations just now")
            return fronts.front.channel.open(connection, peer, plaintext)

    def _may_come(self, peer: str) -> bool:
        if self.connections.enter(peer):
            return True
        self.telemetry.count("connections.refused")
        return False

    def _begin(self, one: Bound, stream: Stream, pump: Callable[[], Pump] | None) -> None:
        """A session of a peer that may come in."""
        peer = stream.peer  # XCLIENT may name another one later
        arrival = Arrival(stream, one.service, pump, one.implicit_tls, None, "", one.mechanisms, one.certificate_login)
        session = SESSIONS[PROTOCOL[one.service]](self.resources, arrival)
        task = asyncio.get_running_loop().create_task(session.run())
        self._sessions.add(task)
        task.add_done_callback(lambda done: self._ended(done, peer))

    def _asked(self, one: Bound) -> Callable[[tcp.TcpStream], None]:
        """Other programs want to know whether a login holds."""
        from fubako.server.authd import DovecotAuthSession, serve_saslauthd

        numbers = count(1)

        def connected(stream: tcp.TcpStream) -> None:
            if one.service == "saslauthd":
                self.spawn(serve_saslauthd(self.resources, stream))
            else:
                self.spawn(DovecotAuthSession(self.resources, stream, next(numbers), one.mechanisms).run())

        return connected

    async def _introduced(self, stream: tcp.TcpStream, one: Bound, serve: Callable[[tcp.TcpStream], None]) -> None:
        """Hear from a proxy for whom it speaks; nobody else may come in at its door."""
        try:
            if not within(stream.peer.rpartition(":")[0].strip("[]"), one.proxies):
                raise ProxyError("only the proxies of the configuration may come in here")
            await proxy.introduced(stream)
        except (ProxyError, StreamTimeout, StreamClosed) as error:
            self.telemetry.event("proxy.refused", service=one.service, peer=stream.peer, reason=str(error))
            stream.close()
            return
        serve(stream)

    def _ended(self, task: asyncio.Task[None], peer: str) -> None:
        self._sessions.discard(task)
        self.connections.leave(peer)
        if not task.cancelled() and task.exception() is not None:
            self.telemetry.event("session.bug", error=repr(task.exception()))

    def reload(self, config: Config) -> None:
        """Take a new configuration and certificates for sessions to come. Raises before anything is changed."""
        tls, router, rules = load_tls(config, self.base), self._router(config), self._login_rules(config)
        if config.access:
            load_access(self.base / config.access)
        self.config, self.tls = config, tls
        if isinstance(self.resolver, built.LateResolver):
            self.resolver.follow(config)
        self.router.follow(router)
        self.dresser = built.dresser(config, self.store.database, self.env)
        self.resources = self._resources(self.resources, rules)
        self.resources.intake.outlet = self._runner
        if self._fronts is not None:
            self._fronts.follow(self._apart())
        self.telemetry.event("config.reloaded")

    def keep_house(self) -> None:
        """From time to time give back the room of removed messages; one worker of all does it at a time."""
        self._housekeeping = asyncio.get_running_loop().create_task(self._keep_house())

    def _tell_damage(self, error: Damaged) -> None:
        self.telemetry.event("store.damaged", reason=str(error))

    async def leave_segment(self) -> None:
        """Append elsewhere, where the segment of this process holds what nobody has any more: it can be compacted then."""
        core = self.store.blobs.core
        if not core.active:
            return
        living = await self.store.database.read(partial(ownership.living, number=core.active))
        if sum(record.occupied(one.ref.size) for one in living) + len(MAGIC) < core.octets(core.active):
            await self.store.blobs.leave()

    async def erase(self, now: float) -> int:
        """What was removed leaves the disk: words at once, contents every half of `erase_hours`. Returns octets given back."""
        await self.store.indexer.forget()
        due = self._erasing_due(now)
        done = await asyncio.to_thread(compact_store, self.store.directory, erase=due is not None)
        for reason in done.damaged:
            self.telemetry.event("store.damaged", reason=reason)
        if done.short:
            self.telemetry.event("store.compaction_short", reason="no room to move what lives out of some segments")
        if due is not None:
            modes.ensure(due)
            os.utime(due, (now, now))
        return done.octets

    def _erasing_due(self, now: float) -> Path | None:
        """The file whose time says when contents were erased last, if that is long ago."""
        path = self.store.directory / "run" / "erased"
        with contextlib.suppress(OSError):
            if 0 <= now - path.stat().st_mtime < self.config.erase_hours * 1800:
                return None
        return path

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(COMPACT_SECONDS)
            await self._leave_in_time()
            self.store.blobs.core.tidy()  # what another worker removed
            lease: Lease | None = None
            try:
                lease = await self.resources.leases.take("housekeeping")
                if lease is None:
                    continue
                before = int(self.env.clock.now()) - SENT_SECONDS
                await self.store.database.write(partial(forget_sent, before=before))
                await self.store.database.write(partial(forget_passing, now=int(self.env.clock.now())))
                await self.store.database.write(partial(forget_reports, now=int(self.env.clock.now())))
                await asyncio.to_thread(forget_copies, self.store.directory / "mail.sqlite", self.env.clock.now())
                await self.report()
                octets = await self.erase(self.env.clock.now())
                if octets:
                    self.telemetry.event("store.compacted", octets=octets)
            except StoreError as error:
                self.telemetry.event("store.error", reason=str(error))
            except Exception as error:  # our bug: the house is kept on
                self.telemetry.event("housekeeping.bug", error=repr(error))
            finally:
                if lease is not None:
                    lease.release()

    async def _leave_in_time(self) -> None:
        now = self.env.clock.monotonic()
        if now - self._left_at < self.config.erase_hours * 1800:
            return
        self._left_at = now
        try:
            await self.leave_segment()
        except StoreError as error:
            self.telemetry.event("store.error", reason=str(error))

    async def report(self) -> int:
        """Tell other domains of days that are over; how many reports went out."""
        given = self.config.reports
        if not given.sender:
            return 0
        assert self.resolver is not None
        reporter = Reporter(
            self.store.database, self.resources.intake, self.resources.recipients, self.resolver,
            self.https or built.LateHttps(self.resolver, public=True), self.env, self.telemetry, self.config.hostname, given.sender,
            given.organization,
        )  # fmt: skip
        return await reporter.send_due()

    async def retire(self, stopping: asyncio.Event) -> None:
        """Others have taken this process's place: its sessions go on to their end, or until `stopping`, RETIRE_SECONDS at most;
        nothing new is begun."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._housekeeping is not None:
            self._housekeeping.cancel()
        self.resources.intake.outlet = None  # whoever carries letters on is told of them by the store
        if self._runner is not None:
            await self._runner.close()
        ended = asyncio.get_running_loop().create_task(stopping.wait())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETIRE_SECONDS):
                while self._sessions and not ended.done():
                    await asyncio.wait({ended, *self._sessions}, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()

    async def _end_sessions(self) -> None:
        await stop_all(self.resources.sessions)
        if self._sessions:
            await asyncio.wait(self._sessions, timeout=LINGER_SECONDS)
        for task in list(self._sessions):
            task.cancel()
        if self._sessions:
            await asyncio.wait(self._sessions, timeout=LINGER_SECONDS)

    async def close(self) -> None:
        """Stop listening, let every session answer what it was asked and say that it ends, close the store."""
        for server in self._servers:
            server.close()
        if self._housekeeping is not None:
            self._housekeeping.cancel()
        async with asyncio.TaskGroup() as ending:
            if self._runner is not None:
                ending.create_task(self._runner.close())
            ending.create_task(self._end_sessions())
        if self._fronts is not None:
            self._fronts.close()
        await self.resources.logins.close()
        await self.resources.leases.close()
        await self.indexing.close()
        await self.store.close()

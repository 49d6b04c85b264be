"""The composition root: a configuration becomes objects and listeners. The only file that names implementations."""

import asyncio
import contextlib
import ctypes
import fcntl
import gc
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from fubako.accounts.login import Logins
from fubako.accounts.recipients import Recipients
from fubako.admin import transfer
from fubako.clock import Env
from fubako.config import SERVICES, Config, ConfigError, split_address
from fubako.delivery.bounce import Reports
from fubako.delivery.intake import Intake
from fubako.delivery.route import Route, Router
from fubako.delivery.runner import Runner
from fubako.delivery.schedule import Schedule
from fubako.net import tcp
from fubako.net.interface import NoResolver, Pump, Resolver
from fubako.net.tls import Certificate, ServerTls
from fubako.policy.access import Access, AccessError
from fubako.policy.access import parse as parse_access
from fubako.policy.limits import Connections, Guessing
from fubako.protocol.smtp import SmtpLimits
from fubako.server.imap import ImapSession
from fubako.server.pop3 import Pop3Session
from fubako.server.session import Arrival, Limits, Resources, Session
from fubako.server.smtp import SmtpSession
from fubako.store.changes import LocalChanges, WorkerChanges
from fubako.store.disk import OsDisk
from fubako.store.indexer import Indexer, QuietIndexing
from fubako.store.interface import StoreError
from fubako.store.queue import LANES, forget_sent
from fubako.store.segments import SegmentBlobs, SegmentCore
from fubako.store.sqlite import SqliteCore, SqliteDatabase
from fubako.store.verify import Report, compact, verify
from fubako.telemetry import Telemetry

uvloop: ModuleType | None
try:
    import uvloop
except ImportError:  # an extra; everything works without it
    uvloop = None

GRACE_SECONDS = 10.0
COMPACT_SECONDS = 3600.0
SENT_SECONDS = 30 * 24 * 3600  # how long `trace` knows what became of letters that left
SWITCH_SECONDS = 0.0005  # the threads that wait for the disk get the interpreter back sooner than by default
_SESSIONS: dict[str, Callable[[Resources, Arrival], Session]] = {
    "smtp": SmtpSession,
    "pop3": Pop3Session,
    "imap": ImapSession,
}
_PROTOCOL = {"smtp": "smtp", "submission": "smtp", "submissions": "smtp", "lmtp": "smtp", "pop3": "pop3", "pop3s": "pop3",
             "imap": "imap", "imaps": "imap"}  # fmt: skip
_ALPN = {"imap": ("imap",), "pop3": ("pop3",), "smtp": ()}


def tune() -> None:
    """Process-wide settings: glibc keeps freed memory instead of giving back 256 KiB at every read, threads switch sooner, and
    waking up does not push aside who is running: several arrivals are then served in one go (sched(7), SCHED_BATCH)."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, 16 << 20)  # M_TRIM_THRESHOLD
        libc.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD
        libc.mallopt(-2, 1 << 20)  # M_TOP_PAD
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(20_000, 20, 20)


def end_with_parent() -> None:
    """A worker gets SIGTERM when its supervisor is gone, however that ended."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run on uvloop where it is installed."""
    factory = uvloop.new_event_loop if uvloop is not None else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return int(runner.run(main))


class StoreInUse(StoreError):
    """Another server runs on this store."""


@dataclass(slots=True)
class Store:
    """The three seams and the search index, opened."""

    database: SqliteDatabase
    blobs: SegmentBlobs
    changes: LocalChanges
    indexer: Indexer
    directory: Path

    async def close(self) -> None:
        await self.blobs.close()
        self.indexer.close()
        await self.database.close()
        if isinstance(self.changes, WorkerChanges):
            self.changes.close()


def prepare(directory: Path) -> None:
    """The folders of a store. Raises StoreError in words for a person."""
    try:
        for part in ("segments", "run", "search"):
            (directory / part).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{directory} cannot be used: {error.strerror}") from None
    if not os.access(directory, os.W_OK):
        raise StoreError(f"{directory} cannot be written to")


def open_store(directory: Path, *, shared: bool = True) -> Store:
    """`shared`: other processes may change the same store, and are told of changes."""
    prepare(directory)
    changes: LocalChanges = WorkerChanges(directory / "run") if shared else LocalChanges()
    database = SqliteDatabase(SqliteCore(str(directory / "mail.sqlite")), changes)
    blobs = SegmentBlobs(SegmentCore(OsDisk(), str(directory / "segments")))
    return Store(database, blobs, changes, Indexer(directory / "search", database, blobs), directory)


def _cores(directory: Path) -> tuple[SqliteCore, SegmentCore]:
    if not (directory / "mail.sqlite").exists():
        raise StoreError(f"there is no store in {directory}")
    return SqliteCore(str(directory / "mail.sqlite")), SegmentCore(OsDisk(), str(directory / "segments"))


def mend(directory: Path) -> list[str]:
    """Before a server starts: put right what an unclean end left; what was done, in words."""
    return SegmentCore(OsDisk(), str(directory / "segments")).mend()


def verify_store(directory: Path, progress: Callable[[int, int], None]) -> Report:
    return verify(*_cores(directory), progress)


def compact_store(directory: Path) -> int:
    """Octets given back. May run beside a server."""
    database, segments = _cores(directory)
    try:
        return compact(database, segments)
    finally:
        segments.close()
        database.close()


def backup_store(directory: Path, target: Path, progress: Callable[[int, int], None]) -> int:
    database, _ = _cores(directory)
    return transfer.backup(database.backup, directory, target, progress)


def claim(directory: Path) -> int:
    """Take a store for one server. Returns a descriptor that holds it; raises StoreInUse."""
    prepare(directory)
    fd = os.open(directory / "run" / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise StoreInUse(f"another Fubako serves {directory} already") from None
    return fd


def _locks(directory: Path) -> Callable[[str], Callable[[], None] | None]:
    """Locks by name that die with their process."""

    def lock(name: str) -> Callable[[], None] | None:
        fd = os.open(directory / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return lambda: os.close(fd)

    return lock


@dataclass(frozen=True, slots=True)
class Bound:
    """A socket that listens for a service."""

    service: str
    socket: socket.socket
    implicit_tls: bool


def bind(config: Config, base: Path, *, reuse_port: bool = False) -> list[Bound]:
    """Every listener of the configuration. Raises ConfigError in words: which address, and why not."""
    bound: list[Bound] = []
    try:
        for listen in config.listen:
            implicit = SERVICES.get(listen.service, (0, False))[1]
            for address in listen.addresses:
                listener = _bind_one(listen.service, address, base, reuse_port)
                bound.append(Bound(listen.service, listener, implicit))
    except BaseException:
        for one in bound:
            one.socket.close()
        raise
    return bound


def _bind_one(service: str, address: str, base: Path, reuse_port: bool) -> socket.socket:
    try:
        if service == "lmtp":
            return _bind_unix(base / address)
        host, port = split_address(address)
        return tcp.bound_socket(host, port, reuse_port=reuse_port)
    except OSError as error:
        raise ConfigError(f"{service} cannot listen on {address}: {error.strerror or error}") from None


def _bind_unix(path: Path) -> socket.socket:
    """A Unix socket only its owner and group can reach; one left over by a dead server is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if path.is_socket():
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
        finally:
            probe.close()
    mask = os.umask(0o117)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    listener.listen(256)
    listener.setblocking(False)
    return listener


def load_tls(config: Config, base: Path) -> dict[str, ServerTls]:
    """A context set for each protocol; empty when no certificate is configured. Raises TlsError, ConfigError."""
    try:
        certificates = [Certificate.load(chain, key) for chain, key in config.certificate_paths(base)]
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from None
    if not certificates:
        return {}
    return {name: ServerTls(certificates, minimum=config.tls.minimum, alpn=alpn) for name, alpn in _ALPN.items()}


def load_access(path: Path) -> Access:
    """Raises ConfigError, which names the file and the line."""
    try:
        return parse_access(path.read_text(encoding="utf-8"), toml=path.suffix == ".toml")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except AccessError as error:
        raise ConfigError(f"{path}: {error}") from None


def routes(config: Config, base: Path) -> list[Route]:
    """The ways out, in the order written."""
    return [
        Route(
            one.domain, one.to, one.tls, one.port, one.user, base / one.password_file if one.password_file else None,
            one.program, tuple(base / path for path in one.ca_files),
        )
        for one in config.route
    ]  # fmt: skip


def _resolver(config: Config) -> Resolver:
    """Its library is loaded only where something leaves this server: it weighs as much as a hundred connections."""
    if not config.route:
        return NoResolver()
    from fubako.net.dns import DnsResolver

    return DnsResolver([split_address(one) for one in config.dns.servers])


def _owner_gone(owner: str) -> bool:
    """Whether the process that holds a lease has ended. All owners of an embedded store are on this machine (`claim`)."""
    try:
        os.kill(int(owner.partition("-")[0]), 0)
    except ProcessLookupError:
        return True
    except (ValueError, PermissionError):
        pass
    return False


@dataclass(slots=True)
class Application:
    """One process that serves: a store, resources, sessions. Reloading swaps the TLS contexts and limits for new sessions."""

    config: Config
    base: Path
    store: Store
    telemetry: Telemetry
    env: Env = field(default_factory=Env)
    tls: dict[str, ServerTls] = field(default_factory=dict)
    resources: Resources = field(init=False)
    connections: Connections = field(init=False)
    indexing: QuietIndexing = field(init=False)
    _servers: list[asyncio.Server] = field(default_factory=list)
    _sessions: set[asyncio.Task[None]] = field(default_factory=set)
    _housekeeping: asyncio.Task[None] | None = None
    resolver: Resolver | None = None
    router: Router = field(init=False)
    reports: Reports = field(init=False)
    _runner: Runner | None = None

    def __post_init__(self) -> None:
        self.tls = load_tls(self.config, self.base)
        self.router = self._router()
        self.reports = Reports(self.store.blobs, self.env, self.config.hostname, self.routed)
        self.resources = self._resources(None)
        self.indexing = QuietIndexing(self.store.indexer, self.store.database)
        self.store.changes.watch = self.indexing.noticed
        limits = self.config.limits
        self.connections = Connections(limits.connections, limits.connections_per_network)

    def _access(self) -> Access | None:
        """Raises ConfigError."""
        return load_access(self.base / self.config.access) if self.config.access else None

    def routed(self, domain: str) -> bool:
        """Whether a route leads to a domain."""
        return self.router.rule(domain) is not None

    def _router(self) -> Router:
        config = self.config
        return Router(routes(config, self.base), self.resolver or _resolver(config), config.hostname, random.shuffle)

    def run_queue(self, workers: int = 1) -> None:
        """Carry letters to other domains, together with the other workers."""
        queue = self.config.queue
        schedule = Schedule(
            queue.first_gap_seconds, queue.longest_gap_seconds, queue.warn_hours * 3600, queue.give_up_days * 86400
        )
        self._runner = Runner(
            self.store.database, self.store.blobs, self.store.changes, self.env, self.telemetry, self.router, self.reports,
            self.config.hostname, f"{os.getpid()}-{self.env.random(8).hex()}", schedule, -(-LANES // workers), _owner_gone,
        )  # fmt: skip
        self._runner.start()

    def _resources(self, before: Resources | None) -> Resources:
        config, env = self.config, self.env
        smtp = SmtpLimits(message=config.limits.message_octets, recipients=config.limits.recipients)
        limits = Limits(
            smtp,
            config.limits.smtp_idle_seconds,
            config.limits.pop3_idle_seconds,
            config.limits.imap_idle_seconds,
            config.limits.login_seconds,
            config.limits.message_octets,
        )
        return Resources(
            config.hostname,
            env,
            self.telemetry,
            self.store.database,
            self.store.blobs,
            self.store.changes,
            before.logins if before else Logins(self.store.database, env, config.hostname, config.login.mechanisms),
            before.recipients if before else Recipients(self.store.database, env.clock),
            self.routed,
            self._access(),
            Intake(self.store.database, self.store.blobs, env, config.hostname, self.telemetry, self.reports),
            before.guessing if before else Guessing(env.clock.monotonic),
            limits,
            _locks(self.store.directory / "run"),
            self.store.indexer,
        )

    async def listen(self, bound: list[Bound]) -> None:
        for one in bound:
            self._servers.append(await tcp.listen(one.socket, self._connected(one)))

    def _connected(self, one: Bound) -> Callable[[tcp.TcpStream], None]:
        protocol = _PROTOCOL[one.service]
        kind = _SESSIONS[protocol]

        def connected(stream: tcp.TcpStream) -> None:
            if not self.connections.enter(stream.peer):
                self.telemetry.count("connections.refused")
                stream.close()
                return
            tls = self.tls.get(protocol)
            pump: Callable[[], Pump] | None = tls.pump if tls is not None and one.service != "lmtp" else None
            session = kind(self.resources, Arrival(stream, one.service, pump, one.implicit_tls))
            task = asyncio.get_running_loop().create_task(session.run())
            self._sessions.add(task)
            task.add_done_callback(lambda done: self._ended(done, stream.peer))

        return connected

    def _ended(self, task: asyncio.Task[None], peer: str) -> None:
        self._sessions.discard(task)
        self.connections.leave(peer)
        if not task.cancelled() and task.exception() is not None:
            self.telemetry.event("session.bug", error=repr(task.exception()))

    def reload(self, config: Config) -> None:
        """Take a new configuration and certificates for sessions to come. Raises before anything is changed."""
        tls = load_tls(config, self.base)
        if config.access:
            load_access(self.base / config.access)
        self.config, self.tls = config, tls
        self.router.follow(self._router())
        self.resources = self._resources(self.resources)
        self.telemetry.event("config.reloaded")

    def keep_house(self) -> None:
        """From time to time give back the room of removed messages; one worker of all does it at a time."""
        self._housekeeping = asyncio.get_running_loop().create_task(self._keep_house())

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(COMPACT_SECONDS)
            unlock = self.resources.take_lock("housekeeping")
            if unlock is None:
                continue
            try:
                before = int(self.env.clock.now()) - SENT_SECONDS
                await self.store.database.write(partial(forget_sent, before=before))
                octets = await asyncio.to_thread(compact_store, self.store.directory)
                if octets:
                    self.telemetry.event("store.compacted", octets=octets)
            except StoreError as error:
                self.telemetry.event("store.error", reason=str(error))
            finally:
                unlock()

    async def close(self) -> None:
        """Stop listening, tell every session, wait a little, close the store."""
        for server in self._servers:
            server.close()
        if self._housekeeping is not None:
            self._housekeeping.cancel()
        for task in list(self._sessions):
            task.cancel()
        if self._sessions:
            await asyncio.wait(self._sessions, timeout=GRACE_SECONDS)
        if self._runner is not None:
            await self._runner.close()
        self.resources.logins.close()
        await self.indexing.close()
        await self.store.close()

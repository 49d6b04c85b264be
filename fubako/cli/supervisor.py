"""The supervisor of `serve`: keeps workers and the processes beside them alive, and passes signals on. It listens to nobody.

Invariant: at SIGHUP workers read the configuration anew where it leads nowhere that they have given up; else others take their
place, who have not given it up yet, and those before serve their sessions to the end.
"""

import gc
import os
import select
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click
import msgspec

from fubako import app
from fubako.config import UNIX_SERVICES, Config, load
from fubako.net.tls import ServerTls
from fubako.telemetry import Telemetry

RESTART_SECONDS = 1.0
STOP_SECONDS = 15
READY_SECONDS = 30.0
RETIRED_ROUNDS_MAX = 3  # so many times the workers, of those that have retired; the first are ended then

RETIRE = signal.SIGUSR1
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


@dataclass(slots=True)
class Kept:
    """A process beside the workers that does for all of them what they cannot do themselves. It is kept alive and its door stays:
    what was asked while it was gone is answered. `theirs`: its end of the door. `start_one`: starts it, returns its id."""

    name: str
    ours: socket.socket
    theirs: socket.socket
    pid: int
    start_one: Callable[[socket.socket], int]

    @classmethod
    def start(cls, name: str, start_one: Callable[[socket.socket], int], telemetry: Telemetry) -> "Kept | None":
        """Started once the rights of root are gone."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            return cls(name, ours, theirs, start_one(theirs), start_one)
        except OSError as error:
            telemetry.event(f"{name}.unavailable", reason=str(error))
            ours.close()
            theirs.close()
            return None

    def look(self, telemetry: Telemetry) -> None:
        """Start it again where it has ended."""
        if not _has_ended(self.pid):
            return
        telemetry.event(f"{self.name}.died", pid=self.pid)
        signal.sigtimedwait(set(), RESTART_SECONDS)
        try:
            self.pid = self.start_one(self.theirs)
        except OSError as error:
            telemetry.event(f"{self.name}.unavailable", reason=str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What every worker serves. `tls`: as it was read before rights were given up; empty without certificates. `reach`: what
    workers may reach, as it was when they were made; None: everything."""

    path: Path
    config: Config
    bound: list[app.Bound]
    tls: dict[str, ServerTls]
    nursery: Kept | None
    spawner: Kept | None
    reach: app.Reach | None = None

    @property
    def base(self) -> Path:
        return self.path.resolve().parent


class Supervisor:
    """`begin` is a worker's whole life: what it serves, and where it says that it is ready."""

    def __init__(self, served: Served, count: int, begin: Callable[[Served, int], int], telemetry: Telemetry) -> None:
        self._served, self._count, self._begin, self._telemetry = served, count, begin, telemetry
        self._workers: list[int] = []
        self._retired: list[int] = []
        self._ready = os.pipe()

    def run(self) -> int:
        """Until SIGTERM. A worker that dies is replaced."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS | {RETIRE})  # a worker takes them once it can
        gc.collect()
        gc.freeze()  # what was made up to here lives as long as the workers, and is shared by them
        self._workers = self._start_all()
        self._are_ready()
        notify("READY=1")
        self._telemetry.event("serve.started", workers=self._count, pids=sorted(self._workers))
        while (got := signal.sigwait(_SIGNALS)) in (signal.SIGHUP, signal.SIGCHLD):
            if got == signal.SIGHUP:
                notify("RELOADING=1")
                self._reload()
                notify("READY=1")
            else:
                self._look()
        notify("STOPPING=1")
        _stop({*self._workers, *self._retired})
        for one in self._served.bound:
            if one.service in UNIX_SERVICES:
                Path(one.socket.getsockname()).unlink(missing_ok=True)
        self._telemetry.event("serve.stopped")
        return 0

    def _start_all(self) -> list[int]:
        if self._served.config.confine != "off":
            self._served = replace(self._served, reach=app.reach(self._served.config, self._served.base))
        return [self._start() for _ in range(self._count)]

    def _start(self) -> int:
        """A worker; its signals stay blocked until it can take them."""
        pid = os.fork()
        if pid:
            return pid
        app.end_with_parent()
        code = 70
        try:
            code = self._begin(self._served, self._ready[1])
        finally:
            os._exit(code)

    def _are_ready(self) -> bool:
        """Wait until every worker serves, or there is no hope of it."""
        missing = self._count
        while missing > 0 and select.select([self._ready[0]], [], [], READY_SECONDS)[0]:
            missing -= len(os.read(self._ready[0], missing))
        return missing <= 0

    def _look(self) -> None:
        for kept in (self._served.nursery, self._served.spawner):
            if kept is not None:
                kept.look(self._telemetry)
        _reap(self._retired)
        for pid in _reap(self._workers):
            self._telemetry.event("worker.died", pid=pid)
            signal.sigtimedwait(set(), RESTART_SECONDS)
            self._workers.append(self._start())

    # -- SIGHUP

    def _reload(self) -> None:
        before = self._served
        try:
            config = within_files(load(before.path), self._telemetry)
            app.check(config, before.base)
            reach = app.reach(config, before.base)
        except Exception:  # each worker finds it too, tells, and goes on with what it has
            self._tell(self._workers, signal.SIGHUP)
            return
        self._served = replace(before, config=config)
        if before.reach is None or reach == before.reach:
            self._tell(self._workers, signal.SIGHUP)
            return
        while select.select([self._ready[0]], [], [], 0)[0]:  # said by workers that replaced others
            os.read(self._ready[0], 4096)
        fresh = self._start_all()
        if not self._are_ready():
            self._telemetry.event("config.refused", reason="workers that read it do not become ready")
            self._served = before
            _stop(set(fresh))
            return
        self._retire(fresh)

    def _retire(self, fresh: list[int]) -> None:
        self._tell(self._workers, RETIRE)
        self._telemetry.event("workers.replaced", pids=sorted(fresh), retired=sorted(self._workers))
        self._retired += self._workers
        self._workers = fresh
        self._tell(self._retired[: -RETIRED_ROUNDS_MAX * self._count], signal.SIGTERM)

    @staticmethod
    def _tell(pids: list[int], number: signal.Signals) -> None:
        for pid in pids:
            os.kill(pid, number)  # ours and not waited for: it is there


def within_files(config: Config, telemetry: Telemetry) -> Config:
    """No more connections than there are descriptors for: those of the store and of the queue are kept back."""
    files = app.raise_files()
    fit = app.connections_that_fit(config.limits.connections, files)
    if fit == config.limits.connections:
        return config
    telemetry.event("limits.lowered", connections=fit, configured=config.limits.connections, files=files)
    return msgspec.structs.replace(config, limits=msgspec.structs.replace(config.limits, connections=fit))


def notify(message: str) -> None:
    """sd_notify: tell systemd, where it asked to be told."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        try:
            sender.sendto(message.encode(), address)
        except OSError as error:
            click.echo(f"fubako: systemd could not be told: {error}", err=True)


def _has_ended(pid: int) -> bool:
    try:
        return bool(os.waitpid(pid, os.WNOHANG)[0])
    except ChildProcessError:
        return True


def _reap(pids: list[int]) -> list[int]:
    """Those that have ended; they are left out of `pids`."""
    gone = [pid for pid in pids if _has_ended(pid)]
    for pid in gone:
        pids.remove(pid)
    return gone


def _stop(workers: set[int]) -> None:
    """SIGTERM, and SIGKILL for who has not ended in time."""
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    left = list(workers)
    for _ in range(STOP_SECONDS * 10):
        _reap(left)
        if not left:
            return
        signal.sigtimedwait({signal.SIGCHLD}, 0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

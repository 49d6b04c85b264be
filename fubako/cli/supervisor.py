"""The supervisor of `serve`: keeps workers and the processes beside them alive, and passes signals on. It listens to nobody.

Invariant: at SIGHUP workers read the configuration anew where it leads nowhere that they have given up; else others take their
place, who have not given it up yet, and those before serve their sessions to the end.
"""

import gc
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click
import msgspec

from fubako import app
from fubako.cli.workers import RESTART_SECONDS, NoWorker, Workers, stop_all
from fubako.config import UNIX_SERVICES, Config, load
from fubako.net.tls import ServerTls
from fubako.telemetry import Telemetry, visible

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
    """`begin` is a worker's whole life: what it serves, and what it calls once it is ready."""

    def __init__(
        self, served: Served, count: int, begin: Callable[[Served, Callable[[], None]], int], telemetry: Telemetry
    ) -> None:
        self._served, self._count, self._begin, self._telemetry = served, count, begin, telemetry
        self._workers = self._generation()
        self._retired: list[Workers] = []
        self._stopping = False

    def run(self) -> int:
        """Until SIGTERM, or until no worker can start: then its exit code. A worker that dies is replaced."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS | {RETIRE})  # a worker takes them once it can
        gc.collect()
        gc.freeze()  # what was made up to here lives as long as the workers, and is shared by them
        try:
            self._follow_reach()
            if self._workers.start():
                self._keep()
        except NoWorker as error:
            click.echo(f"fubako: {visible(str(error))}", err=True)
            return error.code
        finally:
            for one in self._served.bound:
                if one.service in UNIX_SERVICES:
                    Path(one.socket.getsockname()).unlink(missing_ok=True)
        self._telemetry.event("serve.stopped")
        return 0

    def _keep(self) -> None:
        notify("READY=1")
        self._telemetry.event("serve.started", workers=len(self._workers.pids), pids=self._workers.pids)
        while not self._stopping:
            got = self._workers.next_signal(_SIGNALS)
            if got == signal.SIGHUP:
                notify("RELOADING=1")
                self._reload()
                notify("READY=1")
            elif got == signal.SIGCHLD:
                self._look()
            else:
                break
        notify("STOPPING=1")
        stop_all([self._workers, *self._retired])

    def _generation(self) -> Workers:
        """Workers that serve what is to be served when each of them is started."""
        return Workers(lambda ready: self._begin(self._served, ready), self._count, self._telemetry)

    def _follow_reach(self) -> None:
        if self._served.config.confine != "off":
            self._served = replace(self._served, reach=app.reach(self._served.config, self._served.base))

    def _look(self) -> None:
        for kept in (self._served.nursery, self._served.spawner):
            if kept is not None:
                kept.look(self._telemetry)
        for workers in self._retired:
            workers.reap()
        self._retired = [workers for workers in self._retired if workers.pids]
        self._workers.look()

    # -- SIGHUP

    def _reload(self) -> None:
        before = self._served
        try:
            config = within_files(load(before.path), self._telemetry)
            app.check(config, before.base)
            reach = app.reach(config, before.base)
        except Exception:  # each worker finds it too, tells, and goes on with what it has
            self._workers.tell(signal.SIGHUP)
            return
        self._served = replace(before, config=config)
        if before.reach is None or reach == before.reach:
            self._workers.tell(signal.SIGHUP)
            return
        self._follow_reach()
        fresh = self._generation()
        try:
            if not fresh.start():
                self._stopping = True  # and those before are stopped in their turn
                return
        except NoWorker as error:
            self._telemetry.event("config.refused", reason=str(error))
            self._served = before
            return
        self._retire(fresh)

    def _retire(self, fresh: Workers) -> None:
        self._workers.retire(RETIRE)
        self._telemetry.event("workers.replaced", pids=fresh.pids, retired=self._workers.pids)
        self._retired.append(self._workers)
        self._workers = fresh
        for workers in self._retired[:-RETIRED_ROUNDS_MAX]:
            workers.tell(signal.SIGTERM)


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

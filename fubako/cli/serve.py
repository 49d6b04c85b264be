"""`fubako serve`: a worker a core, from a configuration, under systemd or by hand."""

import asyncio
import gc
import os
import select
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import msgspec

from fubako import app
from fubako.app import spawner
from fubako.app.asking import AskingLoop
from fubako.cli.configured import config_option, find_config, refuse_root
from fubako.config import UNIX_SERVICES, Config, ConfigError, load
from fubako.net.interface import TlsError
from fubako.net.tls import ServerTls
from fubako.scan.nursery import Nursery
from fubako.spawn import launcher
from fubako.spawn.door import Asking
from fubako.store.migration import Migration
from fubako.telemetry import Telemetry

RESTART_SECONDS = 1.0
STOP_SECONDS = 15
READY_SECONDS = 30.0
BIRTHS = "fubako.app.births"


@click.command()
@config_option
@click.option("--workers", type=int, help="Worker processes; as configured when not given.")
def serve(config_file: Path | None, workers: int | None) -> int:
    """Serve what the configuration says, until SIGTERM.

    SIGHUP takes new certificates and a new configuration for connections to come; open sessions go on. Sockets handed over
    by systemd are used for the services of their names (FileDescriptorName=imaps …).
    """
    path = find_config(config_file)
    config = load(path)
    base = path.resolve().parent
    if not config.listen and "LISTEN_FDS" not in os.environ:
        raise ConfigError(f"{path}: listen: no service is configured")
    os.environ["SQLITE_TMPDIR"] = str(
        base / config.directory / "run"
    )  # a worker writes nowhere else; read once, when it loads
    app.tune()
    telemetry = Telemetry(quiet=config.quiet)
    config = _within_files(config, telemetry)
    tls = app.load_tls(config, base)  # its faults are told before anything starts; its keys may be root's
    app.preload(config, base)
    given = app.inherited(config, base)
    bound = given or app.bind_ports(config, base)
    if config.user:
        by_files = any(one.kind == "pam" for one in config.password_backend)  # unix_chkpwd(8) is setuid
        app.become_user(config.user, new_privileges=by_files)
    # from here on nobody is root, unless nobody else was named: what follows is made by whom it belongs to
    directory = base / config.directory
    held = app.claim(directory, partial(_tell_migrated, telemetry))
    _mend(directory, telemetry)
    if os.geteuid() == 0:
        refuse_root(config, base)
    if "ssh" in {one.service for one in config.listen} | {one.service for one in bound}:
        app.public_host_keys(config, base)  # made, and its faults told, before anything starts
    bound += [] if given else app.bind_paths(config, base)
    served = Served(
        path=path, config=config, bound=bound, tls=tls, nursery=_Kept.start("scan", _nursery, telemetry),
        spawner=None if config.confine == "off" else _Kept.start("spawner", partial(spawner.start, config, path), telemetry),
    )  # fmt: skip
    try:
        return _supervise(served, workers or config.workers or len(os.sched_getaffinity(0)), telemetry)
    finally:
        os.close(held)


def _nursery(door: socket.socket) -> int:
    """Behind the door: who makes what reads strangers' octets. Raises OSError."""
    return Nursery.open(door, BIRTHS)


@dataclass(slots=True)
class _Kept:
    """A process beside the workers that does for all of them what they cannot do themselves. It is kept alive and its door stays:
    what was asked while it was gone is answered. `theirs`: its end of the door. `start_one`: starts it, returns its id."""

    name: str
    ours: socket.socket
    theirs: socket.socket
    pid: int
    start_one: Callable[[socket.socket], int]

    @classmethod
    def start(cls, name: str, start_one: Callable[[socket.socket], int], telemetry: Telemetry) -> "_Kept | None":
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


def _has_ended(pid: int) -> bool:
    try:
        return bool(os.waitpid(pid, os.WNOHANG)[0])
    except ChildProcessError:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What every worker serves. `tls`: as it was read before rights were given up; empty without certificates."""

    path: Path
    config: Config
    bound: list[app.Bound]
    tls: dict[str, ServerTls]
    nursery: _Kept | None
    spawner: _Kept | None

    @property
    def base(self) -> Path:
        return self.path.resolve().parent


def _within_files(config: Config, telemetry: Telemetry) -> Config:
    """No more connections than there are descriptors for: those of the store and of the queue are kept back."""
    files = app.raise_files()
    fit = app.connections_that_fit(config.limits.connections, files)
    if fit == config.limits.connections:
        return config
    telemetry.event("limits.lowered", connections=fit, configured=config.limits.connections, files=files)
    return msgspec.structs.replace(config, limits=msgspec.structs.replace(config.limits, connections=fit))


def _tell_migrated(telemetry: Telemetry, done: Migration) -> None:
    telemetry.event("store.migrated", found=done.found, version=done.version, copy=str(done.copy))


def _mend(directory: Path, telemetry: Telemetry) -> None:
    changed = app.mend_modes(directory)
    if changed:
        telemetry.event("store.modes_mended", count=changed)
    for what in app.mend(directory):
        telemetry.event("store.mended", what=what)


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


def _supervise(served: Served, count: int, telemetry: Telemetry) -> int:
    """Keep `count` workers alive; pass signals on. A worker that dies is replaced."""
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    gc.collect()
    gc.freeze()  # what was made up to here lives as long as the workers, and is shared by them
    ready = os.pipe()
    work = partial(_begin, served, ready[1], count)
    workers = {_start(work) for _ in range(count)}
    _wait_ready(ready[0], count)
    notify("READY=1")
    telemetry.event("serve.started", workers=count, pids=sorted(workers))
    while True:
        got = signal.sigwait(signals)
        if got == signal.SIGHUP:
            notify("RELOADING=1")
            for pid in workers:
                os.kill(pid, signal.SIGHUP)
            notify("READY=1")
        elif got == signal.SIGCHLD:
            for kept in (served.nursery, served.spawner):
                if kept is not None:
                    kept.look(telemetry)
            for pid in _reap(workers):
                telemetry.event("worker.died", pid=pid)
                signal.sigtimedwait(set(), RESTART_SECONDS)
                workers.add(_start(work))
        else:
            break
    notify("STOPPING=1")
    _stop(workers)
    for one in served.bound:
        if one.service in UNIX_SERVICES:
            Path(one.socket.getsockname()).unlink(missing_ok=True)
    telemetry.event("serve.stopped")
    return 0


def _reap(workers: set[int]) -> list[int]:
    gone = []
    for pid in list(workers):
        done, _status = os.waitpid(pid, os.WNOHANG)
        if done:
            workers.discard(pid)
            gone.append(pid)
    return gone


def _stop(workers: set[int]) -> None:
    """SIGTERM, and SIGKILL for who has not ended in time."""
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    for _ in range(STOP_SECONDS * 10):
        _reap(workers)
        if not workers:
            return
        signal.sigtimedwait({signal.SIGCHLD}, 0.1)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _wait_ready(pipe: int, count: int) -> None:
    """Until every worker serves, or there is no hope of it."""
    while count and select.select([pipe], [], [], READY_SECONDS)[0]:
        count -= len(os.read(pipe, count))


def _start(work: Callable[[], int]) -> int:
    """A worker; its signals stay blocked until it can take them."""
    pid = os.fork()
    if pid:
        return pid
    app.end_with_parent()
    code = 70
    try:
        code = work()
    finally:
        os._exit(code)


def _tls(served: Served) -> dict[str, ServerTls]:
    """The certificates as they are now; as they were read at first where their keys are out of reach."""
    try:
        return app.load_tls(served.config, served.base)
    except (ConfigError, TlsError):
        return served.tls


def _confine(config: Config, base: Path, telemetry: Telemetry) -> None:
    """Before the store is opened, threads are made or a stranger is heard. A kernel that cannot hold all of it is told of, and the
    worker goes on."""
    if config.confine == "off":
        telemetry.event("worker.unconfined", reason="confine is off")
        return
    report = app.confine_worker(config, base)
    telemetry.event("worker.confined", pid=os.getpid(), **report.facts())


def _begin(served: Served, ready: int, count: int) -> int:
    """A worker's whole life. Rights are given up before there is a loop: libuv would keep an io_uring that it made before."""
    tls = _tls(served)
    _confine(served.config, served.base, Telemetry(quiet=served.config.quiet))
    if served.spawner is None:
        return app.run(_work(served, tls, ready, count))
    launcher.use(Asking(served.spawner.ours))
    return app.run(_work(served, tls, ready, count), AskingLoop)


async def _work(served: Served, tls: dict[str, ServerTls], ready: int, count: int) -> int:
    """One worker process, confined."""
    config, base = served.config, served.base
    telemetry = Telemetry(quiet=config.quiet)
    nursery = Nursery(served.nursery.ours) if served.nursery is not None else None
    store = app.open_store(base / config.directory, pool=app.pool(config, telemetry, nursery))
    application = app.Application(config, base, store, telemetry, tls=tls, nursery=nursery)
    await application.listen(served.bound)
    application.keep_house()
    application.run_queue(count)
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()

    def reload() -> None:
        try:
            application.reload(_within_files(load(served.path), telemetry))
        except Exception as error:  # the old configuration goes on
            telemetry.event("config.refused", reason=str(error))

    loop.add_signal_handler(signal.SIGHUP, reload)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD})
    os.write(ready, b".")
    await stopping.wait()
    await application.close()
    return 0

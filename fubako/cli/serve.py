"""`fubako serve`: a worker a core, from a configuration, under systemd or by hand."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from fubako import app
from fubako.app import spawner
from fubako.app.asking import AskingLoop
from fubako.cli.configured import config_option, find_config, refuse_root
from fubako.cli.supervisor import RETIRE, Kept, Served, Supervisor, within_files
from fubako.config import Config, ConfigError, load
from fubako.net.interface import TlsError
from fubako.net.tls import ServerTls
from fubako.scan.nursery import Nursery
from fubako.spawn import launcher
from fubako.spawn.door import Asking
from fubako.store.migration import Migration
from fubako.telemetry import Telemetry

BIRTHS = "fubako.app.births"


@click.command()
@config_option
@click.option("--workers", type=int, help="Worker processes; as configured when not given.")
def serve(config_file: Path | None, workers: int | None) -> int:
    """Serve what the configuration says, until SIGTERM.

    SIGHUP takes new certificates and a new configuration for connections to come; open sessions go on. Where these lie in
    folders that the workers have given up, other workers take their place. Sockets handed over by systemd
    are used for the services of their names (FileDescriptorName=imaps …).
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
    config = within_files(config, telemetry)
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
        path=path, config=config, bound=bound, tls=tls, nursery=Kept.start("scan", _nursery, telemetry),
        spawner=None if config.confine == "off" else Kept.start("spawner", partial(spawner.start, config, path), telemetry),
    )  # fmt: skip
    count = workers or config.workers or len(os.sched_getaffinity(0))
    try:
        return Supervisor(served, count, partial(_begin, count), telemetry).run()
    finally:
        os.close(held)


def _nursery(door: socket.socket) -> int:
    """Behind the door: who makes what reads strangers' octets. Raises OSError."""
    return Nursery.open(door, BIRTHS)


def _tell_migrated(telemetry: Telemetry, done: Migration) -> None:
    telemetry.event("store.migrated", found=done.found, version=done.version, copy=str(done.copy))


def _mend(directory: Path, telemetry: Telemetry) -> None:
    changed = app.mend_modes(directory)
    if changed:
        telemetry.event("store.modes_mended", count=changed)
    for what in app.mend(directory):
        telemetry.event("store.mended", what=what)


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


def _begin(count: int, served: Served, ready: Callable[[], None]) -> int:
    """A worker's whole life. Rights are given up before there is a loop: libuv would keep an io_uring that it made before."""
    tls = _tls(served)
    _confine(served.config, served.base, Telemetry(quiet=served.config.quiet))
    if served.spawner is None:
        return app.run(_work(served, tls, ready, count))
    launcher.use(Asking(served.spawner.ours))
    return app.run(_work(served, tls, ready, count), AskingLoop)


async def _work(served: Served, tls: dict[str, ServerTls], ready: Callable[[], None], count: int) -> int:
    """One worker process, confined."""
    config, base = served.config, served.base
    telemetry = Telemetry(quiet=config.quiet)
    nursery = Nursery(served.nursery.ours) if served.nursery is not None else None
    store = app.open_store(base / config.directory, pool=app.pool(config, telemetry, nursery))
    application = app.Application(config, base, store, telemetry, tls=tls, nursery=nursery, server=True)
    await application.listen(served.bound)
    application.keep_house()
    application.run_queue(count)
    loop, stopping, retiring = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def reload() -> None:
        try:
            application.reload(within_files(load(served.path), telemetry))
        except Exception as error:  # the old configuration goes on
            telemetry.event("config.refused", reason=str(error))

    def stop() -> None:
        stopping.set()
        retiring.set()

    loop.add_signal_handler(signal.SIGHUP, reload)
    loop.add_signal_handler(RETIRE, retiring.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    taken = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, RETIRE}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, taken)
    ready()
    await retiring.wait()
    if not stopping.is_set():
        await application.retire(stopping)
    await application.close()
    return 0

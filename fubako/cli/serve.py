"""`fubako serve`: a worker a core, from a configuration, under systemd or by hand."""

import asyncio
import gc
import os
import select
import signal
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import click

from fubako import app
from fubako.cli.configured import config_option, find_config, refuse_root
from fubako.config import SERVICES, UNIX_SERVICES, Config, ConfigError, load
from fubako.scan.nursery import Nursery
from fubako.telemetry import Telemetry

RESTART_SECONDS = 1.0
STOP_SECONDS = 15
READY_SECONDS = 30.0


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
    app.tune()
    app.load_tls(config, base)  # its faults are told before anything starts
    app.preload(config, base)
    held = app.claim(base / config.directory)
    bound = _inherited() or app.bind(config, base)
    if config.user:
        _become(config.user, base / config.directory)
    if os.geteuid() == 0:
        refuse_root(config, base)
    nursery = _nursery(config)
    count = workers or config.workers or len(os.sched_getaffinity(0))
    try:
        return _supervise(path, config, bound, count, nursery)
    finally:
        os.close(held)


def _nursery(config: Config) -> Nursery | None:
    """One for all workers, started once the rights of root are gone. Where none starts, each worker tries for itself."""
    try:
        return Nursery.start()
    except OSError as error:
        Telemetry(quiet=config.quiet).event("scan.unavailable", reason=str(error))
        return None


def _inherited() -> list[app.Bound]:
    """Sockets from systemd (sd_listen_fds), named by their service."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    bound = []
    for number in range(int(os.environ.get("LISTEN_FDS", "0"))):
        listener = socket.socket(fileno=3 + number)
        listener.setblocking(False)
        os.set_inheritable(3 + number, False)
        service = names[number] if number < len(names) else ""
        if service not in (*SERVICES, *UNIX_SERVICES):
            raise ConfigError(f"systemd handed over a socket named {service!r}, which is no service")
        bound.append(app.Bound(service, listener, SERVICES.get(service, (0, False))[1]))
    return bound


def _become(user: str, directory: Path) -> None:
    """Give up root for good. Raises ConfigError when that is not possible."""
    import pwd

    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise ConfigError(f"user: there is no Unix user {user}") from None
    if os.getuid() == entry.pw_uid:
        return
    if os.getuid() != 0:
        raise ConfigError(f"user: only root can become {user}")
    for path in (directory, *directory.rglob("*")):
        os.chown(path, entry.pw_uid, entry.pw_gid)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


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


def _supervise(path: Path, config: Config, bound: list[app.Bound], count: int, nursery: Nursery | None) -> int:
    """Keep `count` workers alive; pass signals on. A worker that dies is replaced."""
    telemetry = Telemetry(quiet=config.quiet)
    for what in app.mend(path.resolve().parent / config.directory):
        telemetry.event("store.mended", what=what)
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    gc.collect()
    gc.freeze()  # what was made up to here lives as long as the workers, and is shared by them
    ready = os.pipe()
    work = partial(_work, path, path.resolve().parent, config, bound, ready[1], count, nursery)
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
            for pid in _reap(workers):
                telemetry.event("worker.died", pid=pid)
                signal.sigtimedwait(set(), RESTART_SECONDS)
                workers.add(_start(work))
        else:
            break
    notify("STOPPING=1")
    _stop(workers)
    for one in bound:
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


def _start(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """A worker; its signals stay blocked until it can take them."""
    pid = os.fork()
    if pid:
        return pid
    app.end_with_parent()
    code = 70
    try:
        code = app.run(work())
    finally:
        os._exit(code)


async def _work(
    path: Path, base: Path, config: Config, bound: list[app.Bound], ready: int, count: int, nursery: Nursery | None
) -> int:
    """One worker process."""
    telemetry = Telemetry(quiet=config.quiet)
    store = app.open_store(base / config.directory, pool=app.pool(config, telemetry, nursery))
    application = app.Application(config, base, store, telemetry)
    await application.listen(bound)
    application.keep_house()
    application.run_queue(count)
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()

    def reload() -> None:
        try:
            application.reload(load(path))
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

"""`python -m fubako.app.spawner CONFIG STORE`: the process that starts programs for confined workers, and what it may start.

Permitted is what the configuration names, or named before it was written anew, and what an alias of the store names now. The door
is standard input; a descriptor named in the environment tells what the configuration named at the start, as the file itself may
be out of reach by now.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from pathlib import Path

import msgspec

from fubako.accounts import aliases
from fubako.app.permitted import Permitted, permitted
from fubako.config import Config, ConfigError, load
from fubako.net.program import readable
from fubako.spawn.process import Spawner
from fubako.spawn.requests import Append, Handover, Request
from fubako.store.interface import StoreError
from fubako.store.sqlite import SqliteCore

CONFIGURATIONS_KEPT = 4  # a session goes on with the configuration that it began with
_GIVEN = "FUBAKO_PERMITTED"


class Warden:
    """Says what is permitted. The configuration is read again when its file is another one, or was written."""

    def __init__(self, first: Permitted, path: Path, store: Path) -> None:
        self._named: deque[Permitted] = deque([first], maxlen=CONFIGURATIONS_KEPT)
        self._path, self._store = path, store
        self._seen: tuple[int, ...] = ()  # it may have been written anew since who started us read it
        self._core: SqliteCore | None = None

    def __call__(self, request: Request) -> str:
        """Why it is not permitted; empty: it is."""
        self._read_again()
        if any(one.has(request) for one in self._named):
            return ""
        try:
            if self._by_alias(request):
                return ""
        except StoreError as error:
            return f"the aliases cannot be read: {error}"
        return "neither the configuration nor an alias names it any more"

    def _by_alias(self, request: Request) -> bool:
        """Raises StoreError."""
        if not isinstance(request, Handover | Append):
            return False
        if self._core is None:
            self._core = SqliteCore(str(self._store))
        target = request.program if isinstance(request, Handover) else request.file
        return self._core.read(lambda tx: aliases.names(tx, target))

    def _read_again(self) -> None:
        now = _identity(self._path)
        if now == self._seen:
            return
        self._seen = now
        try:
            self._named.append(permitted(load(self._path)))
        except ConfigError:  # whoever was asked to read it tells; what was named before goes on
            return


def _identity(path: Path) -> tuple[int, ...]:
    try:
        facts = path.stat()
    except OSError:
        return ()
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def start(config: Config, path: Path, door: socket.socket) -> int:
    """A spawner behind the door: its process id. Who keeps the door can start another one when it has ended. Raises OSError."""
    store = path.resolve().parent / config.directory / "mail.sqlite"
    with readable(msgspec.json.encode(permitted(config))) as given:
        environment = {**os.environ, _GIVEN: str(given)}
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(one) for one in sys.path if one)
        process = subprocess.Popen(  # noqa: S603  # this program itself
            [sys.executable, "-P", "-m", "fubako.app.spawner", str(path.resolve()), str(store)], stdin=door.fileno(),
            stdout=subprocess.DEVNULL, env=environment, pass_fds=[given], start_new_session=True,
        )  # fmt: skip
    process.returncode = 0  # it ends with its door; the supervisor waits for it
    return process.pid


def main() -> None:
    path, store = map(Path, sys.argv[1:3])
    given = int(os.environ.pop(_GIVEN))
    first = msgspec.json.decode(os.pread(given, 1 << 24, 0), type=Permitted)
    os.close(given)
    os.environ.pop("PYTHONPATH", None)  # no program finds our own modules by accident
    door = socket.socket(fileno=os.dup(0))
    door.setblocking(False)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # whatever who started it had blocked
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with its door, after the workers
    asyncio.run(Spawner(door, Warden(first, path, store)).serve())


if __name__ == "__main__":
    main()

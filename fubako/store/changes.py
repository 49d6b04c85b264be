"""`LocalChanges`: hints within a process; `WorkerChanges`: also between the workers of one machine, by datagrams.

A lost datagram is no fault: who waits looks at MODSEQ from time to time anyway.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

from fubako.net import unix
from fubako.store.interface import Place

_PLACE = struct.Struct(">QQ")
_DATAGRAM_PLACES_MAX = 500
LOOK_SECONDS = 1.0


class LocalChanges:
    """Who wants to know about which account, in this process."""

    def __init__(self) -> None:
        # told of what this process committed, and of nothing else
        self.watch: Callable[[set[Place]], None] | None = None
        self._wakes: dict[int, set[Callable[[int], None]]] = {}

    def publish(self, places: Iterable[Place]) -> None:
        told = set(places)
        self._wake_all(told)
        if self.watch is not None:
            self.watch(told)

    def _wake_all(self, places: Iterable[Place]) -> None:
        for account_id, mailbox_id in places:
            for wake in list(self._wakes.get(account_id, ())):
                wake(mailbox_id)

    def subscribe(self, account_id: int, wake: Callable[[int], None]) -> Callable[[], None]:
        self._wakes.setdefault(account_id, set()).add(wake)

        def end() -> None:
            waiting = self._wakes.get(account_id)
            if waiting is not None:
                waiting.discard(wake)
                if not waiting:
                    del self._wakes[account_id]

        return end


class WorkerChanges(LocalChanges):
    """Each worker listens on a datagram socket of its own in `directory`, and tells every other one."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self._known: list[Path] = []
        self._looked = float("-inf")
        self._path = directory / f"{os.getpid()}.changes"
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        with unix.address(self._path) as name:
            self._socket.bind(name)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._received)

    def publish(self, places: Iterable[Place]) -> None:
        told = list(places)
        super().publish(told)
        peers = self._peers()
        for start in range(0, len(told), _DATAGRAM_PLACES_MAX) if peers else ():
            datagram = b"".join(_PLACE.pack(*place) for place in told[start : start + _DATAGRAM_PLACES_MAX])
            for path in peers:
                self._tell(path, datagram)

    def _peers(self) -> list[Path]:
        """The other workers' sockets; looked for once a second, because a hint may be missed but not be dear."""
        now = asyncio.get_running_loop().time()
        if now > self._looked + LOOK_SECONDS:
            self._known = [path for path in self._directory.glob("*.changes") if path != self._path]
            self._looked = now
        return self._known

    def _tell(self, path: Path, datagram: bytes) -> None:
        try:
            with unix.address(path) as name:
                self._socket.sendto(datagram, name)
        except ConnectionRefusedError:  # its worker is gone
            path.unlink(missing_ok=True)
            self._looked = float("-inf")
        except OSError:  # its queue is full: it will look by itself
            pass

    def _received(self) -> None:
        while True:
            try:
                datagram = self._socket.recv(65536)
            except OSError:
                return
            if len(datagram) % _PLACE.size == 0:
                self._wake_all(_PLACE.iter_unpack(datagram))

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
        self._path.unlink(missing_ok=True)

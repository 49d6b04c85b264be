"""`Acceptor`: the only accept(2) of the program: connections of a listening socket, as long as there are descriptors for them.

Invariant: no connection keeps a descriptor of the reserve, which is the store's, the queue's and the lookups'; and whatever the
kernel says, the port is neither lost nor asked again at once: what waits there waits, and one event says why.
"""

import asyncio
import os
import resource
import socket
from collections.abc import Callable
from typing import Any

RESERVED_FILES = 256  # descriptors that connections leave alone
RETRY_SECONDS = 0.5  # after nothing could be accepted
TOLD_SECONDS = 60.0  # so often at most it is told that nothing can be
ACCEPTED_A_TURN = 32
BACKLOG = 1024
_FILES_MAX = 1 << 20  # where the kernel sets no limit of its own

Accepted = Callable[[socket.socket, Any], None]
Told = Callable[[str], None]


def reserve_begins(files: int | None = None) -> int:
    """The number of the first descriptor of the reserve; `files`: RLIMIT_NOFILE, as it is where it is not given."""
    if files is None:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        files = _FILES_MAX if soft == resource.RLIM_INFINITY else soft
    return files - min(RESERVED_FILES, files // 2)


class Acceptor:
    """One port. `accepted` gets a connection that does not block, and its address as accept(2) has it; `told` hears why nothing
    is accepted for a while. `ceiling`: where the reserve begins."""

    def __init__(
        self, listener: socket.socket, accepted: Accepted, told: Told | None = None, ceiling: int | None = None
    ) -> None:
        self._listener, self._accepted, self._told = listener, accepted, told
        self._ceiling = reserve_begins() if ceiling is None else ceiling
        self._loop = asyncio.get_running_loop()
        self._wanted = self._reads = False
        self._held: tuple[socket.socket, Any] | None = None  # accepted, and waiting for a descriptor below the reserve
        self._timer: asyncio.TimerHandle | None = None  # until which nothing is accepted
        self._short = False  # nothing was accepted since it was told
        self._told_at = float("-inf")

    def hear(self, on: bool) -> None:
        """Whether connections are wanted; those that come meanwhile wait in the kernel."""
        self._wanted = on and self._listener.fileno() >= 0
        self._read()

    def _read(self) -> None:
        reads = self._wanted and self._timer is None
        if reads is self._reads:
            return
        self._reads = reads
        if self._listener.fileno() < 0:  # somebody closed it
            return
        if reads:
            self._loop.add_reader(self._listener, self._accept)
        else:
            self._loop.remove_reader(self._listener)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_A_TURN):
            if not self._reads:
                return
            try:
                connection, address = self._listener.accept()
            except BlockingIOError:
                return
            except (InterruptedError, ConnectionAbortedError):
                continue
            except OSError as error:  # EMFILE, ENFILE, ENOMEM, ENOBUFS; of any other the port is not lost either
                self._pause(os.strerror(error.errno or 0))
                return
            if connection.fileno() >= self._ceiling:
                self._held = (connection, address)
                self._pause("connections have all the descriptors that are theirs")
                return
            self._give(connection, address)

    def _give(self, connection: socket.socket, address: Any) -> None:
        self._short = False
        connection.setblocking(False)
        self._accepted(connection, address)

    def _pause(self, reason: str) -> None:
        self._timer = self._loop.call_later(RETRY_SECONDS, self._again)
        self._read()
        now = self._loop.time()
        if not self._short and now - self._told_at >= TOLD_SECONDS:
            self._told_at = now
            if self._told is not None:
                self._told(reason)
        self._short = True

    def _again(self) -> None:
        self._timer = None
        if self._held is not None and not self._give_held(*self._held):
            self._timer = self._loop.call_later(RETRY_SECONDS, self._again)
        self._read()

    def _give_held(self, connection: socket.socket, address: Any) -> bool:
        """Where a descriptor has become free: the lowest is given first (dup(2)), so that one below the reserve is free or none."""
        try:
            lower = connection.dup()
        except OSError:
            return False
        if lower.fileno() >= self._ceiling:
            lower.close()
            return False
        connection.close()
        self._held = None
        self._give(lower, address)
        return True

    def close(self) -> None:
        self._wanted = False
        self._read()
        if self._timer is not None:
            self._timer.cancel()
        if self._held is not None:
            self._held[0].close()
            self._held = None
        self._listener.close()

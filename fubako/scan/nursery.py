"""`Nursery`: how a serving process asks for workers. What runs at the other end is `births`.

Its door is a socket of whole packets, which all serving processes share: a packet with a descriptor asks for a worker on that
channel, a packet with a number asks that this worker be killed.
"""

import os
import socket
import subprocess
import sys

import msgspec
from msgspec import Struct

_KEPT_ENVIRONMENT = ("PATH", "PYTHONHOME", "LANG", "LC_ALL", "LC_CTYPE")


class Nursery:
    """A serving process's end of the door. Forked processes share it."""

    def __init__(self, door: socket.socket) -> None:
        self._door = door

    @classmethod
    def start(cls, module: str = "fubako.scan.births") -> "Nursery":
        """Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                cls.open(theirs, module)
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        return cls(ours)

    @staticmethod
    def open(theirs: socket.socket, module: str = "fubako.scan.births") -> int:
        """What runs behind the door: its process id. Who keeps `theirs` can open the same door again when it has ended; whoever
        asked meanwhile is then answered. Raises OSError."""
        environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(one) for one in sys.path if one)
        process = subprocess.Popen(  # noqa: S603  # this program itself
            [sys.executable, "-P", "-m", module], stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=environment,
            start_new_session=True,
        )  # fmt: skip
        process.returncode = 0  # it ends with its door, and nobody waits for it; init or the supervisor takes it
        return process.pid

    def worker(self, limits: Struct) -> socket.socket:
        """A channel to a new process of the kind whose limits these are; its first word is Ready. Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._door, [msgspec.json.encode(limits)], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        return ours

    def kill(self, pid: int) -> None:
        """One of the workers made here. Raises OSError."""
        self._door.send(b"%d" % pid)

    def close(self) -> None:
        self._door.close()

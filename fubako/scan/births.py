"""The nursery itself: a clean program that makes workers and fronts. Nothing of who starts it is in its memory; it loads what they
need, gives up its rights, and forks one of them for each channel that it is handed. It kills nobody but its own children, and
ends with its door.
"""

import codecs
import gc
import hashlib
import os
import pkgutil
import signal
import socket
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Union

import msgspec
from msgspec import Struct

from fubako.confine import Confinement, confine
from fubako.front import process as front
from fubako.front.limits import FrontLimits
from fubako.scan import worker
from fubako.scan.limits import ScanLimits

WORKERS_MAX = 256
_PACKET_MAX = 4096
Makers = dict[type[Struct], Callable[..., None]]


def main(others: Makers | None = None, *, new_code: bool = False) -> None:
    """The door is standard input. `others`: what else can be made, by the limits that are asked for. `new_code`: that needs memory
    which is written and then run, until it confines itself."""
    scan = partial(worker.serve, parent=os.getpid())
    makers: Makers = {ScanLimits: scan, FrontLimits: front.serve, **(others or {})}
    limits = msgspec.json.Decoder(Union[tuple(makers)])  # noqa: UP007  # only known here
    door = socket.socket(fileno=0)
    door.setblocking(True)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # whatever who started it had blocked
    _load()
    children: set[int] = set()
    signal.signal(signal.SIGCHLD, lambda _number, _frame: _reap(children))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    confine(Confinement(keep=frozenset({0, 2}), spawn=True, signals=True, new_code=new_code))
    while True:
        packet, descriptors, _, _ = socket.recv_fds(door, _PACKET_MAX, 1)
        if not packet:
            return
        if descriptors:
            wanted = limits.decode(packet)
            _make(descriptors[0], children, partial(makers[type(wanted)], limits=wanted))
        elif packet.isdigit() and int(packet) in children:
            os.kill(int(packet), signal.SIGKILL)


def _make(descriptor: int, children: set[int], serve: Callable[[socket.socket], None]) -> None:
    channel = socket.socket(fileno=descriptor)
    with channel:
        # a child that ends at once must not be taken before it is known: its number would stand for another's later
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))
        pid = os.fork() if len(children) < WORKERS_MAX else -1
        if pid > 0:
            children.add(pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
        if pid:
            return
        try:
            serve(channel)
        finally:
            os._exit(0)


def _reap(children: set[int]) -> None:
    while children:
        pid, _ = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        children.discard(pid)


def _load() -> None:
    """All that a worker could want later, when it can open nothing: every codec, and the hash."""
    import encodings

    for one in pkgutil.iter_modules(encodings.__path__):
        if one.name in ("mbcs", "oem"):  # of another system
            continue
        import_module(f"encodings.{one.name}")
        try:
            codecs.lookup(one.name)
        except LookupError:
            continue
    for name in ("_codecs_jp", "_codecs_cn", "_codecs_hk", "_codecs_kr", "_codecs_tw", "_codecs_iso2022"):
        import_module(name)
    hashlib.sha256(b"").digest()
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    main()

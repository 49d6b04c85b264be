"""`Fronts`: the processes of one worker that meet strangers: the front, and the one that does TLS.

One that ends takes its conversations with it; another one is made, and who comes meanwhile waits at the port.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from fubako.front.frames import FrameError, Settings
from fubako.front.limits import FrontLimits
from fubako.net.channel import Channel
from fubako.net.front import FrontChannel
from fubako.net.interface import Secure, TlsError, TlsFacts
from fubako.net.tcp import peer_name
from fubako.net.tls import TlsOffer
from fubako.net.tls_channel import TlsChannel
from fubako.net.tls_frames import TlsLimits
from fubako.scan.nursery import Nursery
from fubako.telemetry import Telemetry

START_SECONDS = 20.0
REST_SECONDS = 1.0  # after a process ended, or none could be made
RETIRE_SECONDS = 60.0  # a process whose keys are old has so long for handshakes; its connections go on
ACCEPTED_AT_ONCE = 32

C = TypeVar("C", bound=Channel)


class Part(Generic[C]):
    """One process, kept alive. `channel` is None while there is none."""

    def __init__(
        self,
        name: str,
        make: Callable[[Callable[[C, str], None]], C],
        telemetry: Telemetry,
        changed: Callable[[], None],
    ) -> None:
        self._name, self._make, self._telemetry, self._changed = name, make, telemetry, changed
        self._again: asyncio.Task[None] | None = None
        self._closed = False
        self.channel: C | None = None

    async def start(self) -> bool:
        """False where none can be had; the event says why."""
        channel: C | None = None
        try:
            channel = self._make(self._ended)
            async with asyncio.timeout(START_SECONDS):
                ready = await channel.ready
        except (OSError, TimeoutError, FrameError) as error:
            self._telemetry.event("part.unavailable", part=self._name, reason=str(error) or type(error).__name__)
            if channel is not None:
                channel.shut()
            return False
        self._telemetry.event(
            "sandbox.applied", part=self._name, pid=ready.pid, held=ready.held, missing=ready.missing,
            landlock=ready.landlock,
        )  # fmt: skip
        self.channel = channel
        return True

    def _ended(self, channel: C, reason: str) -> None:
        self._telemetry.event("part.ended", part=self._name, reason=reason)
        if channel is self.channel and not self._closed:
            self.channel = None
            self._changed()
            self._again = asyncio.get_running_loop().create_task(self._start_again())

    async def _start_again(self) -> None:
        while self.channel is None:
            await asyncio.sleep(REST_SECONDS)
            await self.start()
        self._changed()

    async def renew(self) -> None:
        """Another process for what comes from now on; the one before has time for what it has begun."""
        before = self.channel
        if await self.start() and before is not None:
            asyncio.get_running_loop().call_later(RETIRE_SECONDS, before.shut)

    def close(self) -> None:
        self._closed = True
        if self._again is not None:
            self._again.cancel()
        if self.channel is not None:
            self.channel.flush()
            self.channel.shut()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the processes work by. `offers`: certificates by protocol, none: no TLS."""

    settings: Settings
    offers: Mapping[str, TlsOffer]
    connections: int


Accepted = Callable[[socket.socket, str], None]


class FrontPort:
    """A listening socket. `accepted` gets a connection, and the peer as the kernel tells it."""

    def __init__(self, listener: socket.socket, fronts: "Fronts", accepted: Accepted) -> None:
        self._listener, self._fronts, self._accepted = listener, fronts, accepted
        self._loop = asyncio.get_running_loop()
        self._heard = False
        with contextlib.suppress(OSError):  # connections have it from here
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def hear(self, on: bool) -> None:
        if on is not self._heard and self._listener.fileno() >= 0:  # others have taken its place, perhaps
            self._heard = on
            if on:
                self._loop.add_reader(self._listener, self._accept)
            else:
                self._loop.remove_reader(self._listener)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if not self._heard:
                return
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors, no memory: later
                self._fronts.rest(error)
                return
            connection.setblocking(False)
            self._accepted(connection, peer_name(address))

    def close(self) -> None:
        self.hear(False)
        self._listener.close()


class Fronts:
    """`front` and `tls`, and the ports that are heard while all that is needed is there."""

    def __init__(self, nursery: Nursery, wanted: Wanted, telemetry: Telemetry) -> None:
        self._nursery, self._wanted, self._telemetry = nursery, wanted, telemetry
        self._ports: list[FrontPort] = []
        self._renewal: asyncio.Task[None] | None = None
        self.front: Part[FrontChannel] = Part("front", self._make_front, telemetry, self._changed)
        self.tls: Part[TlsChannel] = Part("tls", self._make_tls, telemetry, self._changed)

    def _make_front(self, ended: Callable[[FrontChannel, str], None]) -> FrontChannel:
        limits = FrontLimits(connections=self._wanted.connections)
        return FrontChannel(self._nursery.worker(limits), self._wanted.settings, ended)

    def _make_tls(self, ended: Callable[[TlsChannel, str], None]) -> TlsChannel:
        limits = TlsLimits(connections=self._wanted.connections)
        taking = self._wanted.settings.taking_seconds
        return TlsChannel(self._nursery.worker(limits), self._wanted.offers, taking, ended)

    async def start(self) -> bool:
        """False where they cannot be had: then nothing is kept apart."""
        held = await self.front.start() and (not self._wanted.offers or await self.tls.start())
        if not held:
            self.close()
        return held

    @property
    def _ready(self) -> bool:
        return self.front.channel is not None and (not self._wanted.offers or self.tls.channel is not None)

    def listen(self, listener: socket.socket, accepted: Accepted) -> FrontPort:
        port = FrontPort(listener, self, accepted)
        self._ports.append(port)
        port.hear(self._ready)
        return port

    def follow(self, wanted: Wanted) -> None:
        self._wanted = wanted
        if self.front.channel is not None:
            self.front.channel.follow(wanted.settings)
        if wanted.offers:
            self._renewal = asyncio.get_running_loop().create_task(self.tls.renew())

    def secure(self, protocol: str) -> Secure | None:
        """How TLS is begun on a connection; None: no certificate is configured."""
        return partial(self._secure, protocol) if protocol in self._wanted.offers else None

    async def _secure(self, protocol: str, connection: socket.socket) -> tuple[TlsFacts, socket.socket]:
        if self.tls.channel is None:
            raise TlsError("no process does TLS just now")
        return await self.tls.channel.secure(protocol, connection)

    def rest(self, error: OSError) -> None:
        """Nothing can be accepted just now."""
        self._telemetry.event("accept.failed", reason=error.strerror or str(error))
        for port in self._ports:
            port.hear(False)
        asyncio.get_running_loop().call_later(REST_SECONDS, self._changed)

    def _changed(self) -> None:
        for port in self._ports:
            port.hear(self._ready)

    def close(self) -> None:
        for port in self._ports:
            port.hear(False)
        self._ports.clear()
        self.front.close()
        self.tls.close()

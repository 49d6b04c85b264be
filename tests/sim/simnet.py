"""A network with latency, cuts, refusals, and a man in the middle who strips STARTTLS, refuses it, or answers himself."""

import asyncio
import contextvars
import random
from collections.abc import Callable

from simloop import PROCESS, Process, SimLoop

from fubako.net.stream import BufferedStream


class SimStream(BufferedStream):
    """One end of a link."""

    def __init__(self, link: "Link", peer: str, *, local: bool) -> None:
        super().__init__(peer, local=local)
        self.link = link
        self.process = PROCESS.get()

    def _transmit(self, octets: bytes) -> None:
        if self.process is None or not self.process.dead:
            self.link.carry(self, octets)

    def _shut(self) -> None:
        if self.process is None or not self.process.dead:
            self.link.end(self)


class Link:
    """A connection. What one end sends arrives at the other in order, later, in pieces."""

    def __init__(self, net: "SimNet", client: Process | None, address: str, *, local: bool) -> None:
        self.net, self.address, self.cut_at = net, address, None
        self.client = SimStream(self, f"{address}:25", local=local)
        self.server: SimStream | None = None
        self.local = local
        self.busy_until = {True: 0.0, False: 0.0}  # by whether the client sends
        self.open = True
        self.clear = bytearray()  # everything on the wire towards the server
        self.mode = ""  # what a man in the middle does to it

    def carry(self, sender: SimStream, octets: bytes) -> None:
        if not self.open:
            return
        outward = sender is self.client
        if outward:
            self.clear += octets
        octets = self.net.meddle(self, octets, outward=outward)
        if self.net.rng.random() < self.net.cut:  # on the way: a part of it may still arrive
            self.net.cuts += 1
            self.net.later(self.net.loop.time() + self.net.rng.uniform(0.0, 0.06), self.cut)
        rng, loop = self.net.rng, self.net.loop
        while octets:
            size = len(octets) if rng.random() < 0.7 else rng.randint(1, len(octets))
            piece, octets = octets[:size], octets[size:]
            delay = 0.0001 if self.local else rng.uniform(0.001, 0.05)
            at = max(
                self.busy_until[outward] + 1e-6, loop.time() + delay
            )  # never two at one time: their order would be lost
            self.busy_until[outward] = at
            self.net.later(at, self._arrive, self.server if outward else self.client, piece)

    def _arrive(self, stream: SimStream, octets: bytes) -> None:
        if self.open:
            self.net.inside(stream, stream._arrived, octets)

    def end(self, by: SimStream) -> None:
        """Closed by one end: what it sent still arrives, then the other end learns of it."""
        if not self.open:
            return
        outward = by is self.client
        at = max(self.busy_until[outward] + 1e-6, self.net.loop.time() + 0.001)
        self.net.later(at, self.cut)

    def cut(self) -> None:
        """Both ends learn of it, if they live."""
        if not self.open:
            return
        self.open = False
        self.net.links.discard(self)
        for stream in (self.client, self.server):
            if stream is not None:
                self.net.inside(stream, stream._lost)


class SimNet:
    def __init__(self, loop: SimLoop, rng: random.Random) -> None:
        self.loop, self.rng = loop, rng
        self.listeners: dict[str, tuple[Process | None, Callable]] = {}
        self.links: set[Link] = set()
        self.all: list[Link] = []
        self.mode: dict[str, str] = {}  # address -> what the man in the middle does on the way there
        self.refuse = self.cut = 0.0  # chances
        self.cuts = 0

    def later(self, at: float, function, *args) -> None:
        """Not of any process: the network lives on."""
        context = contextvars.Context()
        self.loop.call_at(at, function, *args, context=context)

    def inside(self, stream: SimStream, function, *args) -> None:
        """In the process that holds a stream, when that lives."""
        process = stream.process
        if process is None:
            function(*args)
        elif not process.dead:
            self.loop.call_soon(function, *args, context=process.context.copy())

    async def connect(self, host: str, port: int, _source: str = "", *, local: bool = False) -> SimStream:
        await asyncio.sleep(self.rng.uniform(0.001, 0.05))
        where = self.mode.get(host, "")
        listener = self.listeners.get("rogue" if where == "impersonate" else host)
        if listener is None or (listener[0] is not None and listener[0].dead) or self.rng.random() < self.refuse:
            raise ConnectionRefusedError(111, "refused")
        link = Link(self, PROCESS.get(), host, local=local)
        link.mode = where
        process, connected = listener
        self.links.add(link)
        self.all.append(link)

        def accept() -> None:
            link.server = SimStream(link, "10.9.9.9:4000", local=local)
            connected(link.server)

        if process is None:
            accept()
        else:
            process.context.copy().run(accept)
        return link.client

    def meddle(self, link: Link, octets: bytes, *, outward: bool) -> bytes:
        if link.mode == "strip" and not outward:
            return octets.replace(b"250-STARTTLS\r\n", b"").replace(b"250 STARTTLS", b"250 OK")
        if link.mode == "refuse" and outward and b"STARTTLS\r\n" in octets:
            link.mode = "refused"
            self.later(
                self.loop.time() + 0.01, self.inside, link.client, link.client._arrived, b"454 4.7.0 not now\r\n"
            )
            return octets.replace(b"STARTTLS\r\n", b"")
        return octets

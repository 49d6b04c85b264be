"""`FrontedServer`: a session whose octets are read by a real front (SMTP), and whose TLS is done by a process of its own (all)."""

import asyncio
import socket
from dataclasses import replace

from memory_server import SERVICES, SESSIONS, Client, MemoryServer, certificates

from fubako.app.fronts import Fronts
from fubako.net import tcp
from fubako.net.tls import ClientTls
from fubako.server.session import Arrival

PEER = "192.0.2.1:40000"


class FragmentedClient(Client):
    """What is sent leaves in pieces."""

    fragment = 0

    def send(self, octets: bytes) -> None:
        step = self.fragment or len(octets)
        for start in range(0, len(octets), step):
            self.stream.write(octets[start : start + step])
            self.stream._leave()

    def end(self) -> None:
        """Nothing more will be said."""
        self.stream._leave()
        self.stream._transport.write_eof()


class FrontedServer(MemoryServer):
    def __init__(self, protocol, given, nursery) -> None:
        super().__init__(protocol, given)
        self.nursery = nursery

    async def __aenter__(self):
        await super().__aenter__()
        self.wanted = replace(self.app._apart(), offers={self.protocol: self.server_tls.offer}, connections=20)
        self.fronts = Fronts(self.nursery, self.wanted, self.app.telemetry)
        assert await self.fronts.start()
        return self

    async def connect(self, fragment: int = 0, early: bytes = b"") -> FragmentedClient:
        """`early`: what the client says before anybody hears it."""
        ours, theirs = socket.socketpair()
        theirs.sendall(early)
        ours.setblocking(False)
        secure = self.fronts.secure(self.protocol)
        client = FragmentedClient(
            await tcp.accepted(theirs), ClientTls(ca_files=[certificates() / "ca.pem"], system_authorities=False)
        )
        client.fragment = fragment
        if self.given.get("channel") == "tls":
            (facts, plaintext), _ = await asyncio.gather(secure(ours), client.start_tls())
            stream = await self._stream(ours, plaintext)
            stream.tls = facts
        else:
            stream = await self._stream(ours)
            stream.secure = secure
        service = self.given.get("service", SERVICES[self.protocol])
        self.session = SESSIONS[self.protocol](self.app.resources, Arrival(stream, service, self.server_tls.pump))
        self._tasks.append(asyncio.ensure_future(self.session.run()))
        return client

    async def _stream(self, ours: socket.socket, plaintext: socket.socket | None = None):
        """As an application makes it of a connection that it accepted."""
        if self.protocol == "smtp":
            return self.fronts.front.channel.open(ours, PEER, plaintext)
        stream = await tcp.accepted(plaintext or ours)
        stream.peer, stream.local = PEER, False
        return stream

    async def __aexit__(self, *error) -> None:
        self.fronts.close()
        await super().__aexit__(*error)

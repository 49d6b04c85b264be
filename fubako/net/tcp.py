"""Streams over TCP and Unix sockets, as asyncio protocols: no StreamReader, no second buffer."""

import asyncio
import ipaddress
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from fubako.net import unix
from fubako.net.interface import StreamTimeout, TlsError
from fubako.net.stream import BufferedStream

CONNECT_SECONDS = 30.0
# a stream with more to say says it at once, so that it learns when the peer takes no more
TOGETHER_OCTETS_MAX = 16 * 1024

_leaving: dict[asyncio.AbstractEventLoop, list["TcpStream"]] = {}


class TcpStream(BufferedStream, asyncio.Protocol):
    """One socket. `connected` is called once the peer is known.

    What all streams say in one turn of the loop leaves together at its end: peers are woken once for all of it, not one by one to
    work beside us, or in our place, while we still write.
    """

    def __init__(self, connected: Callable[["TcpStream"], None] | None = None) -> None:
        super().__init__("")
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []  # said in this turn of the loop
        self._unsent_octets = 0
        self._connected = connected
        self.closed: asyncio.Future[None] | None = None
        self._left: asyncio.Future[None] | None = None  # while it moves from one socket to another

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        if self._left is not None:
            return
        name: Any = transport.get_extra_info("peername")
        if isinstance(name, tuple):
            self.peer = peer_name(name)
        else:
            self.peer, self.local = "unix socket", True
        if self._connected is not None:
            self._connected(self)

    def data_received(self, data: bytes) -> None:
        self._arrived(data)

    def eof_received(self) -> bool:
        self._ended()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._left is not None and not self._left.done():
            self._left.set_result(None)
            return
        self._lost()
        if self.closed is not None and not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        self._writing_paused()

    def resume_writing(self) -> None:
        self._writing_resumed()

    # -- BufferedStream

    async def start_tls_elsewhere(self) -> None:
        """The connection goes to who does TLS, and we go on with the socket at which its plaintext is."""
        if self._inbox or self.tls is not None:
            raise TlsError("bytes were sent behind STARTTLS")  # CVE-2011-0411
        transport, secure = self._transport, self.secure
        if transport is None or secure is None:
            raise TlsError("the peer ended the connection before the handshake")
        transport.pause_reading()  # what comes now belongs to the handshake
        transport.set_write_buffer_limits(high=0)
        self._leave()
        try:
            async with asyncio.timeout(min(self.idle_seconds, self.due - asyncio.get_running_loop().time())):
                await self.drain()
                with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as connection:
                    facts, plaintext = await secure(connection)
        except TimeoutError:
            raise StreamTimeout("the handshake took too long") from None
        if self._gone:
            plaintext.close()
            raise TlsError("the connection ended during the handshake")
        await self._move(transport, plaintext)
        self.tls = facts

    async def _move(self, before: asyncio.Transport, to: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._left = loop.create_future()
        before.abort()
        await self._left
        await loop.connect_accepted_socket(lambda: self, to)
        self._left = None

    def _transmit(self, octets: bytes) -> None:
        if self._transport is None or self._loop is None:
            return
        self._unsent_octets += len(octets)
        if self._unsent_octets > TOGETHER_OCTETS_MAX:
            self._leave()
            self._transport.write(octets)
            return
        if not self._unsent:
            together = _leaving.get(self._loop)
            if together is None:
                together = _leaving[self._loop] = []
                self._loop.call_soon(_leave_together, self._loop)
            together.append(self)
        self._unsent.append(octets)

    def _leave(self) -> None:
        unsent, self._unsent_octets = self._unsent, 0
        if unsent:
            self._unsent = []
            if self._transport is not None:
                self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def _hold(self, held: bool) -> None:
        if self._transport is None:
            return
        if held:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _shut(self) -> None:
        if self._transport is not None:
            self._leave()
            self._transport.close()


def _leave_together(loop: asyncio.AbstractEventLoop) -> None:
    for stream in _leaving.pop(loop):
        try:
            stream._leave()
        except Exception as error:  # the others' words leave all the same
            loop.call_exception_handler({"message": "a stream could not be written to", "exception": error})
            stream.close()


def why(error: OSError) -> str:
    """Why a connection was not made, in words."""
    if error.errno is None or isinstance(error, socket.gaierror):
        return error.strerror or str(error) or "no answer"
    return os.strerror(error.errno)


async def connect(host: str, port: int, source: str = "") -> TcpStream:
    """A connection to host:port, from an address of ours where one is given; raises OSError, TimeoutError."""
    async with asyncio.timeout(CONNECT_SECONDS):
        stream = await _connect_first(await _addresses(host, port), port, source)
    stream.peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return stream


async def _addresses(host: str, port: int) -> list[str]:
    """What the system says, by the loop, which may have it from another process. Raises OSError."""
    if is_address(host):
        return [host]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


async def _connect_first(addresses: list[str], port: int, source: str) -> TcpStream:
    """The first that takes the connection. Raises OSError: what the first said."""
    failed: OSError | None = None
    for address in addresses:
        try:
            _transport, stream = await asyncio.get_running_loop().create_connection(
                TcpStream, address, port, local_addr=(source, 0) if source else None
            )
        except OSError as error:
            failed = failed or error
        else:
            return stream
    raise failed or OSError("no address")


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def peer_name(address: tuple[Any, ...]) -> str:
    """host:port, as sessions and logs know a peer."""
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


async def accepted(connection: socket.socket) -> TcpStream:
    """A connection that somebody else accepted."""
    loop = asyncio.get_running_loop()
    _transport, stream = await loop.connect_accepted_socket(TcpStream, connection)
    stream.closed = loop.create_future()
    return stream


async def connect_unix(path: str) -> TcpStream:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_SECONDS):
        with unix.address(Path(path)) as name:
            _transport, stream = await loop.create_unix_connection(TcpStream, name)
    stream.peer = path
    return stream


def bound_socket(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A listening socket. IPv6 sockets take IPv6 only, so that both families can be bound by name. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(1024)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


async def listen(listener: socket.socket, connected: Callable[[TcpStream], None]) -> asyncio.Server:
    """Serve a bound socket (TCP or Unix)."""
    loop = asyncio.get_running_loop()
    if listener.family == socket.AF_UNIX:
        return await loop.create_unix_server(lambda: TcpStream(connected), sock=listener)
    return await loop.create_server(lambda: TcpStream(connected), sock=listener, backlog=1024)

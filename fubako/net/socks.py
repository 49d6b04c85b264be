"""SOCKS5 as a client: a connection through a proxy to an address that we looked up ourselves (RFC 1928, RFC 1929)."""

import asyncio
import ipaddress
import struct
from dataclasses import dataclass, field

from fubako.net import tcp
from fubako.net.interface import StreamClosed, StreamTimeout

HANDSHAKE_SECONDS = 30.0
_REASONS = {
    1: "it failed", 2: "its rules do not allow it", 3: "the network cannot be reached", 4: "the host cannot be reached",
    5: "the connection was refused", 6: "it took too long", 7: "it cannot connect", 8: "it does not know such addresses",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Proxy:
    """`user` empty: no login."""

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)


async def connect(proxy: Proxy, host: str, port: int) -> tcp.TcpStream:
    """A connection to host:port as the proxy makes it. Raises OSError, TimeoutError."""
    stream = await tcp.connect(proxy.host, proxy.port)
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            await _greet(stream, proxy)
            await _ask(stream, host, port)
    except (StreamClosed, StreamTimeout) as error:
        stream.close()
        raise OSError(f"the proxy {proxy.host} hung up: {error}") from None
    except BaseException:
        stream.close()
        raise
    stream.peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return stream


async def _greet(stream: tcp.TcpStream, proxy: Proxy) -> None:
    stream.write(b"\x05\x02\x00\x02" if proxy.user else b"\x05\x01\x00")
    version, method = await _take(stream, 2)
    if version != 5 or method not in ((0, 2) if proxy.user else (0,)):
        raise OSError(f"the proxy {proxy.host} wants another login")
    if method == 2:
        user, password = proxy.user.encode()[:255], proxy.password.encode()[:255]
        stream.write(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        if (await _take(stream, 2))[1] != 0:
            raise OSError(f"the proxy {proxy.host} refuses the login")


async def _ask(stream: tcp.TcpStream, host: str, port: int) -> None:
    try:
        address = ipaddress.ip_address(host)
        where = bytes([1 if address.version == 4 else 4]) + address.packed
    except ValueError:
        name = host.encode("idna")
        where = bytes([3, len(name)]) + name
    stream.write(b"\x05\x01\x00" + where + struct.pack("!H", port))
    version, reply, _, kind = await _take(stream, 4)
    if version != 5 or reply:
        raise OSError(f"the proxy cannot reach {host}: {_REASONS.get(reply, 'it failed')}")
    length = {1: 4, 4: 16}.get(kind)
    if length is None:
        length = (await _take(stream, 1))[0]
    await _take(stream, length + 2)


async def _take(stream: tcp.TcpStream, count: int) -> bytes:
    """Exactly so many octets; what comes behind them stays. Raises OSError."""
    octets = b""
    while len(octets) < count:
        more = await stream.read()
        if not more:
            raise OSError("the proxy hung up")
        octets += more
    stream.put_back(octets[count:])
    return octets[:count]

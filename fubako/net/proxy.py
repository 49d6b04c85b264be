"""The PROXY protocol, versions 1 and 2: for whom a proxy speaks, and how that client was encrypted.

Source: the specification of HAProxy's proxy-protocol. It is read only from peers that are configured to speak it, and then it must
be there: nothing is guessed.
"""

import asyncio
import ipaddress
import struct
from dataclasses import dataclass
from math import inf

from fubako.net.interface import Stream, TlsFacts

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V1_OCTETS_MAX = 107
SECONDS = 10.0  # in which a proxy must say for whom it speaks
V2_OCTETS_MAX = 16 + 4096
_TLV_ALPN, _TLV_AUTHORITY, _TLV_SSL = 0x01, 0x02, 0x20
_SSL_VERSION, _SSL_CN, _SSL_CIPHER = 0x21, 0x22, 0x23
_CLIENT_SSL = 0x01


class ProxyError(Exception):
    """The peer does not speak the PROXY protocol as it should."""


@dataclass(frozen=True, slots=True)
class Proxied:
    """`peer` as host:port, empty when the proxy speaks for itself. `tls` are the facts of the client's TLS, ended at the proxy."""

    peer: str = ""
    tls: TlsFacts | None = None


def parse(octets: bytes) -> tuple[Proxied, int] | None:
    """What was said, and how many octets it took; None: more are needed. Raises ProxyError."""
    if octets.startswith(SIGNATURE):
        return _version_2(octets)
    if SIGNATURE.startswith(octets[: len(SIGNATURE)]):
        return None
    if octets[:6] != b"PROXY "[: len(octets[:6])]:
        raise ProxyError("the proxy does not introduce its client")
    end = octets.find(b"\r\n")
    if end < 0:
        if len(octets) > V1_OCTETS_MAX:
            raise ProxyError("the line of the proxy is too long")
        return None
    return _version_1(octets[:end]), end + 2


async def introduced(stream: Stream) -> None:
    """Hear for whom a proxy speaks: `peer` and `tls` are then that client's. Raises ProxyError, StreamTimeout, StreamClosed."""
    idle, stream.idle_seconds = stream.idle_seconds, SECONDS
    stream.due = asyncio.get_running_loop().time() + SECONDS  # for the whole of it
    heard = b""
    while (found := parse(heard)) is None:
        octets = await stream.read()
        if not octets:
            raise ProxyError("the proxy said nothing")
        heard += octets
    proxied, length = found
    stream.put_back(heard[length:])
    stream.idle_seconds, stream.due = idle, inf
    stream.peer, stream.tls = proxied.peer or stream.peer, proxied.tls


def _version_1(line: bytes) -> Proxied:
    words = line.decode("ascii", "replace").split(" ")
    if len(words) >= 2 and words[1] == "UNKNOWN":
        return Proxied()
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6") or len(line) > V1_OCTETS_MAX:
        raise ProxyError("the line of the proxy is malformed")
    try:
        source = ipaddress.ip_address(words[2])
        ipaddress.ip_address(words[3])
    except ValueError:
        raise ProxyError("the proxy names no address") from None
    if source.version != int(words[1][3]) or not all(port.isdigit() and len(port) <= 5 for port in words[4:]):
        raise ProxyError("the line of the proxy is malformed")
    return Proxied(_peer(source, int(words[4])))


def _peer(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _version_2(octets: bytes) -> tuple[Proxied, int] | None:
    if len(octets) < 16:
        return None
    command, family, length = struct.unpack("!BBH", octets[12:16])
    if command >> 4 != 2 or command & 15 > 1:
        raise ProxyError("the proxy speaks an unknown version")
    if 16 + length > V2_OCTETS_MAX:
        raise ProxyError("the header of the proxy is too long")
    if len(octets) < 16 + length:
        return None
    rest = octets[16 : 16 + length]
    if command & 15 == 0:  # LOCAL: the proxy itself, to see whether we live
        return Proxied(), 16 + length
    size = {0x11: 12, 0x21: 36}.get(family)
    if size is None:
        return Proxied(), 16 + length
    if len(rest) < size:
        raise ProxyError("the header of the proxy is cut off")
    width = (size - 4) // 2
    (port,) = struct.unpack("!H", rest[2 * width : 2 * width + 2])
    return Proxied(_peer(ipaddress.ip_address(rest[:width]), port), _tls(rest[size:])), 16 + length


def _tlvs(octets: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while octets:
        if len(octets) < 3:
            raise ProxyError("a field of the proxy is cut off")
        kind, length = struct.unpack("!BH", octets[:3])
        if len(octets) < 3 + length:
            raise ProxyError("a field of the proxy is cut off")
        found.setdefault(kind, octets[3 : 3 + length])
        octets = octets[3 + length :]
    return found


def _tls(octets: bytes) -> TlsFacts | None:
    fields = _tlvs(octets)
    ssl = fields.get(_TLV_SSL, b"")
    if len(ssl) < 5 or not ssl[0] & _CLIENT_SSL:
        return None
    more = _tlvs(ssl[5:])

    def text(value: bytes) -> str:
        return "".join(char for char in value.decode("ascii", "replace") if char.isprintable())[:100]

    return TlsFacts(
        text(more.get(_SSL_VERSION, b"")) or "TLS", text(more.get(_SSL_CIPHER, b"")) or "unknown",
        text(fields.get(_TLV_AUTHORITY, b"")), text(fields.get(_TLV_ALPN, b"")),
    )  # fmt: skip


def header(version: int, peer: str, ours: tuple[str, int], tls: TlsFacts | None = None) -> bytes:
    """What a proxy says of a client before its first byte. `peer` as host:port; `ours` where the client connected to. Version 2
    tells the client's TLS too. Where the addresses are of two families, or none, nothing is said of them (UNKNOWN, LOCAL)."""
    host, _, port = peer.rpartition(":")
    try:
        there, here = ipaddress.ip_address(host.strip("[]")), ipaddress.ip_address(ours[0])
        known = there.version == here.version and port.isdigit()
    except ValueError:
        known = False
    if version == 1:
        if not known:
            return b"PROXY UNKNOWN\r\n"
        return f"PROXY TCP{there.version} {there} {here} {port} {ours[1]}\r\n".encode()
    body, family = b"", 0
    if known:
        body = there.packed + here.packed + struct.pack("!HH", int(port), ours[1])
        family = 0x11 if there.version == 4 else 0x21
    if tls is not None:
        body += _tlv(
            _TLV_SSL,
            b"\x01\x00\x00\x00\x00" + _tlv(_SSL_VERSION, tls.version.encode()) + _tlv(_SSL_CIPHER, tls.cipher.encode()),
        )
    return SIGNATURE + struct.pack("!BBH", 0x21 if known else 0x20, family, len(body)) + body


def _tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value

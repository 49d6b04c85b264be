"""PROXY 1 and 2 as HAProxy writes them, and what is none."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubako.net import proxy


def v2(command=0x21, family=0x11, body=b"", tlvs=b""):
    rest = body + tlvs
    return proxy.SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


V4 = bytes([192, 0, 2, 1, 127, 0, 0, 1]) + struct.pack("!HH", 5000, 25)
V6 = bytes.fromhex("20010db8000000000000000000000001") * 2 + struct.pack("!HH", 5000, 25)


def tlv(kind, value):
    return struct.pack("!BH", kind, len(value)) + value


SSL = tlv(0x20, bytes([1, 0, 0, 0, 0]) + tlv(0x21, b"TLSv1.3") + tlv(0x23, b"TLS_AES_128_GCM_SHA256"))


@pytest.mark.parametrize(
    ("octets", "peer"),
    [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 25\r\n", "192.0.2.1:5000"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 5000 25\r\n", "[2001:db8::1]:5000"),
        (b"PROXY UNKNOWN\r\n", ""),
        (b"PROXY UNKNOWN ffff:f...f:ffff whatever\r\n", ""),
        (v2(body=V4), "192.0.2.1:5000"),
        (v2(family=0x21, body=V6), "[2001:db8::1]:5000"),
        (v2(command=0x20), ""),
        (v2(family=0, body=b"x"), ""),
    ],
)
def test_who_is_spoken_for(octets, peer):
    behind = b"EHLO x\r\n"
    for end in range(len(octets)):
        assert proxy.parse(octets[:end]) is None, end
    found, length = proxy.parse(octets + behind)
    assert (found.peer, found.tls, octets[length:]) == (peer, None, b"")


def test_how_it_was_encrypted():
    found, _ = proxy.parse(v2(body=V4, tlvs=SSL + tlv(0x02, b"mx.here.test") + tlv(0x01, b"imap")))
    assert (found.tls.version, found.tls.cipher, found.tls.sni, found.tls.alpn) == (
        "TLSv1.3", "TLS_AES_128_GCM_SHA256", "mx.here.test", "imap",
    )  # fmt: skip
    clear = tlv(0x20, bytes([0, 0, 0, 0, 0]) + tlv(0x21, b"TLSv1.3"))
    assert proxy.parse(v2(body=V4, tlvs=clear))[0].tls is None


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO x\r\n", b"PROXY TCP4 192.0.2.1 192.0.2.2 5000\r\n", b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        b"PROXY TCP4 mx.test 192.0.2.2 1 2\r\n", b"PROXY TCP4 192.0.2.1 192.0.2.2 x 25\r\n", b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY " + b"x" * 200, v2(command=0x11), v2(command=0x22), v2(body=V4[:8]), v2(body=V4, tlvs=b"\x01\x00"),
        v2(body=V4, tlvs=b"\x20\x00\x09abc"), proxy.SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 9000),
    ],
)  # fmt: skip
def test_what_is_no_introduction(octets):
    with pytest.raises(proxy.ProxyError):
        proxy.parse(octets)


@given(st.binary(max_size=200))
def test_any_octets(octets):
    for made in (octets, b"PROXY " + octets, proxy.SIGNATURE + octets, v2(body=V4, tlvs=octets)):
        try:
            found = proxy.parse(made)
        except proxy.ProxyError:
            continue
        assert found is None or found[1] <= len(made)

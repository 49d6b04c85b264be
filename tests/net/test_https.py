"""Where a name that a stranger chose may lead (RFC 6890), and how much of our time and memory its server gets.

Left out: sockets and TLS (interop/test_internet.py); what a server says comes here from the library's own transport in memory.
"""

import asyncio
import gzip
import tracemalloc

import httpx2
import pytest
from jumping import run
from zone import Zone

from fubako.net import https
from fubako.net.https import HttpsClient, is_public
from fubako.net.interface import HttpsFailure


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("192.0.2.1", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff0e::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("2002:7f00:1::1", False),
        ("64:ff9b::127.0.0.1", False),
        ("64:ff9b::10.0.0.1", False),
        ("nonsense", False),
    ],
)
def test_addresses_of_the_internet(address, public):
    assert is_public(address) is public


def test_a_strangers_name_leads_to_no_address_of_ours(monkeypatch):
    async def ask(*_):
        raise AssertionError("it was asked")

    client = HttpsClient(Zone(addresses={"rua.evil.test": ["169.254.169.254", "::1"]}), public=True)
    monkeypatch.setattr(client, "_ask", ask)
    for request in (client.get("rua.evil.test", "/", 100), client.post("rua.evil.test", "/", "text/plain", b"x")):
        with pytest.raises(HttpsFailure, match="no address of the internet"):
            asyncio.run(request)


HERE = Zone(addresses={"web.test": ["192.0.2.1", "192.0.2.2", "192.0.2.3"]})


def answered(monkeypatch, handler):
    """A client whose requests `handler` answers."""

    class Client(httpx2.AsyncClient):
        def __init__(self, **given) -> None:
            super().__init__(**{**given, "transport": httpx2.MockTransport(handler)})

    monkeypatch.setattr(https.httpx2, "AsyncClient", Client)
    return HttpsClient(HERE)


class Dripping(httpx2.AsyncByteStream):
    """One octet each 20 seconds, for ever."""

    async def __aiter__(self):
        while True:
            await asyncio.sleep(20)
            yield b"x"


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_body_that_drips_has_the_time_of_a_request(monkeypatch, method):
    client = answered(monkeypatch, lambda _request: httpx2.Response(200, stream=Dripping()))

    async def seconds():
        loop = asyncio.get_running_loop()
        began, loop.jump = loop.time(), True
        with pytest.raises(HttpsFailure, match="within 60 seconds"):
            async with asyncio.timeout(3000):
                await (
                    client.get("web.test", "/", 1000) if method == "get" else client.post("web.test", "/", "x", b"x")
                )
        return loop.time() - began

    assert run(seconds()) < https.REQUEST_SECONDS + 1


def test_addresses_that_do_not_answer_share_the_time_of_a_request(monkeypatch):
    """Each alone stays within its own 50 seconds."""

    async def slow(_request):
        await asyncio.sleep(50)
        raise httpx2.ReadError("nothing came")

    client = answered(monkeypatch, slow)

    async def seconds():
        loop = asyncio.get_running_loop()
        began, loop.jump = loop.time(), True
        with pytest.raises(HttpsFailure):
            await client.get("web.test", "/", 1000)
        return loop.time() - began

    assert run(seconds()) < https.REQUEST_SECONDS + 1


def test_nothing_is_unpacked(monkeypatch):
    """64 MiB of zeros in 64 KiB, as RFC 9110 §8.4 lets a server send them to whoever said that it unpacks."""
    bomb = gzip.compress(bytes(64 << 20))
    asked = []

    def answer(request):
        asked.append(request.headers["accept-encoding"])

        async def body():
            yield bomb

        return httpx2.Response(200, headers={"Content-Encoding": "gzip"}, content=body())

    client = answered(monkeypatch, answer)
    tracemalloc.start()
    try:
        with pytest.raises(HttpsFailure, match="packed"):
            asyncio.run(client.get("web.test", "/", 64 * 1024))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert set(asked) == {"identity"}
    assert peak < 8 << 20

"""Where a name that a stranger chose may lead (RFC 6890). Leaves out the request itself: interop/test_internet.py."""

import asyncio

import pytest
from zone import Zone

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

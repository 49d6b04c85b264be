"""The addresses of a host whose server answers oddly. Leaves out the wire, which dnspython speaks."""

import asyncio

from fubako.net.dns import DnsResolver
from fubako.net.interface import Answer, NoSuchName


def test_a_name_that_is_denied_for_aaaa_alone_has_its_a(monkeypatch):
    resolver = DnsResolver([("127.0.0.1", 53)])

    async def six(host):
        raise NoSuchName(host)

    async def four(host):
        return Answer(("192.0.2.1",))

    monkeypatch.setattr(resolver, "ipv6", six)
    monkeypatch.setattr(resolver, "ipv4", four)
    assert asyncio.run(resolver.addresses("host.test")).records == ("192.0.2.1",)

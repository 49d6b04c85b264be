"""The addresses of a host whose server answers oddly, and whom we ask. Leaves out the wire, which dnspython speaks."""

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


def test_the_systems_file_is_followed_as_it_is_now_and_lost_for_a_while_changes_nothing(monkeypatch):
    """Two questions in quick succession look once."""
    texts = iter(["nameserver 192.0.2.1\n", OSError(13, "x"), "nameserver 127.0.0.1\n", ""])
    looked = []

    async def system():
        looked.append(1)
        text = next(texts)
        if isinstance(text, OSError):
            raise text
        return text

    async def main():
        resolver, found = DnsResolver((), system), []
        for _ in range(4):
            await asyncio.gather(resolver._look(), resolver._look())
            found.append(([str(one) for one in resolver._resolver.nameservers], resolver._local))
            resolver._look_at = 0.0
        return found

    assert asyncio.run(main()) == [(["192.0.2.1"], False)] * 2 + [(["127.0.0.1"], True)] * 2
    assert len(looked) == 4


def test_named_servers_are_asked_whatever_the_system_says():
    resolver = DnsResolver([("192.0.2.7", 5353)], None)
    asyncio.run(resolver._look())
    assert resolver._resolver.nameservers == ["192.0.2.7"] and not resolver._local

"""`DnsResolver`: the domain name system, by dnspython. Answers count as authentic only from a resolver on this machine:
anybody on the way to another one could set the AD bit (RFC 4035 §3.2.3)."""

import asyncio
import contextlib
import io
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.name
import dns.rdatatype
import dns.resolver

from fubako.net.interface import Answer, DnsFailure, NoSuchName, TlsaRecord

LIFETIME_SECONDS = 15.0
CACHE_ENTRIES = 10_000
LOOK_SECONDS = 5.0  # after which resolv.conf is looked at again, when somebody asks

System = Callable[[], Awaitable[str]]


class DnsResolver:
    """`servers` are host:port; none means those that `system` tells, the text of resolv.conf, as it is then. Raises nothing where
    that cannot be read: what it said before goes on, and at first a resolver on this machine."""

    def __init__(self, servers: Sequence[tuple[str, int]] = (), system: System | None = None) -> None:
        self._system, self._text = system, ""
        self._look_at = float("-inf")
        self._looking = asyncio.Lock()
        self._use(servers, "")

    def _use(self, servers: Sequence[tuple[str, int]], text: str) -> None:
        made = dns.asyncresolver.Resolver(configure=False)
        if servers:
            made.nameservers = [host for host, _ in servers]
            made.nameserver_ports = dict(servers)
        elif text:
            with contextlib.suppress(dns.resolver.NoResolverConfiguration):
                made.read_resolv_conf(io.StringIO(text))
        made.nameservers = made.nameservers or ["127.0.0.1"]  # resolv.conf(5): the name server on this machine
        made.lifetime = LIFETIME_SECONDS
        made.use_edns(0, dns.flags.DO, 1232)
        made.flags = dns.flags.RD | dns.flags.AD
        made.cache = dns.resolver.LRUCache(CACHE_ENTRIES)
        self._resolver = made
        self._local = all(_loopback(str(one)) for one in made.nameservers)

    async def _look(self) -> None:
        """Follow the system's file, where we go by it. Nobody waits for it but who is first."""
        loop = asyncio.get_running_loop()
        if self._system is None or loop.time() < self._look_at or (self._text and self._looking.locked()):
            return
        async with self._looking:
            if loop.time() < self._look_at:
                return
            try:
                text = await self._system()
            except (OSError, TimeoutError):
                text = self._text
            self._look_at = loop.time() + LOOK_SECONDS
            if text != self._text:
                self._text = text
                self._use((), text)

    async def _ask(self, name: str, kind: str) -> tuple[list[Any], bool]:
        await self._look()
        try:
            answer = await self._resolver.resolve(_absolute(name), kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN:
            raise NoSuchName(f"{name} does not exist") from None
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise DnsFailure(f"{name} {kind}: {error or 'no answer'}") from None
        authentic = self._local and bool(answer.response.flags & dns.flags.AD)
        return list(answer.rrset or ()), authentic

    async def mx(self, domain: str) -> Answer[tuple[int, str]]:
        records, authentic = await self._ask(domain, "MX")
        return Answer(tuple(sorted((one.preference, _plain(one.exchange)) for one in records)), authentic)

    async def addresses(self, host: str) -> Answer[str]:
        try:
            six = await self.ipv6(host)
        except NoSuchName:  # some servers deny the whole name because it has no AAAA (RFC 4074 §4.2)
            return await self.ipv4(host)
        four = await self.ipv4(host)
        return Answer((*six.records, *four.records), six.authentic and four.authentic)

    async def ipv4(self, host: str) -> Answer[str]:
        records, authentic = await self._ask(host, "A")
        return Answer(tuple(one.address for one in records), authentic)

    async def ipv6(self, host: str) -> Answer[str]:
        records, authentic = await self._ask(host, "AAAA")
        return Answer(tuple(one.address for one in records), authentic)

    async def texts(self, name: str) -> Answer[bytes]:
        records, authentic = await self._ask(name, "TXT")
        return Answer(tuple(b"".join(one.strings) for one in records), authentic)

    async def names(self, address: str) -> Answer[str]:
        records, authentic = await self._ask(ipaddress.ip_address(address).reverse_pointer, "PTR")
        return Answer(tuple(_plain(one.target) for one in records), authentic)

    async def tlsa(self, name: str) -> Answer[TlsaRecord]:
        records, authentic = await self._ask(name, "TLSA")
        return Answer(tuple(TlsaRecord(one.usage, one.selector, one.mtype, one.cert) for one in records), authentic)

    async def services(self, name: str) -> Answer[tuple[int, int, int, str]]:
        records, authentic = await self._ask(name, "SRV")
        found = ((one.priority, one.weight, one.port, _plain(one.target)) for one in records)
        return Answer(tuple(sorted(found)), authentic)


def _plain(name: dns.name.Name) -> str:
    return name.to_text().rstrip(".").lower()


def _absolute(name: str) -> str:
    """A-labels, with the dot at the end."""
    try:
        return name.rstrip(".").encode("idna").decode() + "." if not name.isascii() else name.rstrip(".") + "."
    except UnicodeError:
        raise DnsFailure(f"{name} is no domain name") from None


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False

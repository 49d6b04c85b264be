"""`DnsResolver`: the domain name system, by dnspython. Answers count as authentic only from a resolver on this machine:
anybody on the way to another one could set the AD bit (RFC 4035 §3.2.3)."""

import ipaddress
from collections.abc import Sequence
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


class DnsResolver:
    """`servers` are host:port; none means those of /etc/resolv.conf."""

    def __init__(self, servers: Sequence[tuple[str, int]] = ()) -> None:
        try:
            self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        except dns.resolver.NoResolverConfiguration:
            self._resolver = dns.asyncresolver.Resolver(configure=False)
        if servers:
            self._resolver.nameservers = [host for host, _ in servers]
            self._resolver.nameserver_ports = dict(servers)
        self._resolver.lifetime = LIFETIME_SECONDS
        self._resolver.use_edns(0, dns.flags.DO, 1232)
        self._resolver.flags = dns.flags.RD | dns.flags.AD
        self._resolver.cache = dns.resolver.LRUCache(CACHE_ENTRIES)
        self._local = all(_loopback(str(one)) for one in self._resolver.nameservers)

    async def _ask(self, name: str, kind: str) -> tuple[list[Any], bool]:
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

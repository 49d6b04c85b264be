"""Where the mail of an address is: what its domain says (autoconfig over HTTPS, SRV records), else the usual names; and of what was
found, what is there and believed, the most secure first (RFC 6186, RFC 8314).

What the domain says over HTTPS, or with DNSSEC, is its word; an SRV record without DNSSEC is anybody's, so the user has to agree to
a server outside the domain. Nothing but the domain's name is told to anybody.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fubako.client import probe
from fubako.message import xml
from fubako.message.address import Address
from fubako.net.interface import DnsFailure, Https, HttpsFailure, NoSuchName, Resolver

SECONDS = 10.0  # in which a source of settings has to answer
XML_OCTETS_MAX = 256 * 1024
XML_LIMITS = xml.Limits(octets=XML_OCTETS_MAX, depth=16, elements=2000, text=4096)
FOUND_MAX = 40
_SERVICES = (
    # SRV name, protocol, TLS
    ("_imaps", "imap", "implicit"), ("_imap", "imap", "starttls"), ("_pop3s", "pop3", "implicit"), ("_pop3", "pop3", "starttls"),
    ("_submissions", "smtp", "implicit"), ("_submission", "smtp", "starttls"), ("_sieve", "sieve", "starttls"),
)  # fmt: skip
_USUAL = {"imap": ("imap", "mail"), "pop3": ("pop3", "pop", "mail"), "smtp": ("smtp", "mail")}
_PORTS = {"imap": ((993, "implicit"), (143, "starttls")), "pop3": ((995, "implicit"), (110, "starttls")),
          "smtp": ((465, "implicit"), (587, "starttls"))}  # fmt: skip
_PROBED = {("imap", "implicit"): "imaps", ("imap", "starttls"): "imap", ("pop3", "implicit"): "pop3s", ("pop3", "starttls"): "pop3",
           ("smtp", "implicit"): "submissions", ("smtp", "starttls"): "submission", ("sieve", "starttls"): "sieve"}  # fmt: skip
_HOST = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server as somebody says it is. `source`: autoconfig, srv, guess, given. `told`: by the domain itself, provably."""

    protocol: str
    host: str
    port: int
    tls: str
    source: str
    user: str
    told: bool = False

    def inside(self, domain: str) -> bool:
        return self.host == domain or self.host.endswith("." + domain)


@dataclass(frozen=True, slots=True)
class Checked:
    """An endpoint that was looked at. `problem` empty: it is there, and its certificate is believed."""

    endpoint: Endpoint
    problem: str = ""
    tls: str = ""
    mechanisms: tuple[str, ...] = ()


@dataclass(slots=True)
class Found:
    """Endpoints in the order in which they should be tried, and what the sources said in words."""

    endpoints: list[Endpoint] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


async def discover(address: Address, resolver: Resolver, https: Https) -> Found:
    """What is said of an address's domain."""
    domain = address.domain.lower()
    found = Found()
    told = await asyncio.gather(
        _autoconfig(https, f"autoconfig.{domain}", "/mail/config-v1.1.xml", address),
        _autoconfig(https, domain, "/.well-known/autoconfig/mail/config-v1.1.xml", address),
        *(_srv(resolver, name, protocol, tls, address) for name, protocol, tls in _SERVICES),
        _mx(resolver, domain, address),
    )
    for endpoints, remark in told:
        found.endpoints += endpoints
        found.remarks += [remark] if remark else []
    for protocol, names in _USUAL.items():
        found.endpoints += [
            Endpoint(protocol, f"{name}.{domain}", port, tls, "guess", str(address))
            for port, tls in _PORTS[protocol]
            for name in names
        ]
    order = {"autoconfig": 0, "srv": 1, "guess": 2}
    unique: dict[object, Endpoint] = {}
    for one in sorted(found.endpoints, key=lambda one: (order[one.source], one.tls != "implicit")):
        unique.setdefault((one.protocol, one.host, one.port, one.tls), one)
    found.endpoints = list(unique.values())[:FOUND_MAX]
    return found


async def _autoconfig(https: Https, host: str, path: str, address: Address) -> tuple[list[Endpoint], str]:
    """The domain's own description, over HTTPS only."""
    try:
        async with asyncio.timeout(SECONDS):
            answer = await https.get(host, path, XML_OCTETS_MAX)
    except (HttpsFailure, TimeoutError):
        return [], ""
    if answer.status != 200:
        return [], ""
    try:
        return parse_autoconfig(answer.content, address), f"https://{host}{path} describes it"
    except AutoconfigFault as fault:
        return [], f"https://{host}{path}: {fault}"


class AutoconfigFault(ValueError):
    """The description cannot be read."""


def parse_autoconfig(content: bytes, address: Address) -> list[Endpoint]:
    """Servers of a config-v1.1.xml, those without TLS left out. Raises AutoconfigFault."""
    try:
        root = xml.parse(content, XML_LIMITS)
    except xml.XmlError as error:
        raise AutoconfigFault(str(error)) from None
    found = []
    for server in (*root.descendants("incomingServer"), *root.descendants("outgoingServer")):
        protocol = server.attributes.get("type", "").lower()
        host = _replaced(server.value("hostname"), address).strip().lower()
        port = server.value("port").strip()
        tls = {"SSL": "implicit", "STARTTLS": "starttls"}.get(server.value("socketType").strip().upper(), "")
        user = _replaced(server.value("username").strip() or "%EMAILADDRESS%", address)
        if (
            protocol in _PORTS
            and _HOST.fullmatch(host)
            and port.isascii()
            and port.isdigit()
            and len(port) <= 5
            and 0 < int(port) < 65536
            and tls
            and user.isprintable()
        ):
            found.append(Endpoint(protocol, host, int(port), tls, "autoconfig", user, told=True))
    if not found:
        raise AutoconfigFault("it names no server that speaks TLS")
    return found[:FOUND_MAX]


def _replaced(text: str, address: Address) -> str:
    for word, value in (
        ("%EMAILADDRESS%", str(address)),
        ("%EMAILLOCALPART%", address.local),
        ("%EMAILDOMAIN%", address.domain),
    ):
        text = text.replace(word, value)
    return text[:300]


async def _srv(resolver: Resolver, name: str, protocol: str, tls: str, address: Address) -> tuple[list[Endpoint], str]:
    """RFC 6186 §3.4: a target of "." says that there is none."""
    try:
        async with asyncio.timeout(SECONDS):
            answer = await resolver.services(f"{name}._tcp.{address.domain.lower()}")
    except (NoSuchName, DnsFailure, TimeoutError):
        return [], ""
    found = [
        Endpoint(protocol, host, port, tls, "srv", str(address), told=answer.authentic)
        for _, _, port, host in answer.records
        if host and _HOST.fullmatch(host) and 0 < port < 65536
    ]
    return found, f"{name}._tcp.{address.domain} names {found[0].host}" if found else ""


async def _mx(resolver: Resolver, domain: str, address: Address) -> tuple[list[Endpoint], str]:
    """Small sites run everything on the machine that takes their mail, where it is one of their own."""
    try:
        async with asyncio.timeout(SECONDS):
            answer = await resolver.mx(domain)
    except (NoSuchName, DnsFailure, TimeoutError):
        return [], ""
    hosts = [host for _, host in sorted(answer.records)][:2]
    found = [Endpoint(protocol, host, port, tls, "guess", str(address)) for host in hosts if _HOST.fullmatch(host)
             for protocol, ports in _PORTS.items() for port, tls in ports]  # fmt: skip
    return [one for one in found if one.inside(domain)], ""


async def check(endpoint: Endpoint, ca_files: Sequence[Path] = ()) -> Checked:
    """Whether it is there, and believed; nobody logs in."""
    service = _PROBED[endpoint.protocol, endpoint.tls]
    seen = await probe.look(endpoint.host, service, endpoint.port, endpoint.host, ca_files)
    if not seen.open:
        return Checked(endpoint, seen.problem or "no answer")
    if not seen.tls:
        return Checked(endpoint, seen.problem or "it does not offer STARTTLS")
    return Checked(endpoint, seen.not_believed, seen.tls, tuple(seen.sealed))


async def best(
    endpoints: Sequence[Endpoint], protocols: Sequence[str], ca_files: Sequence[Path] = ()
) -> Checked | None:
    """The first one of these protocols that is there and believed; else the first that is there at all; else None. All of one
    source are looked at together, a better source first."""
    there: Checked | None = None
    for protocol in protocols:
        for source in dict.fromkeys(one.source for one in endpoints):
            chosen = [one for one in endpoints if one.protocol == protocol and one.source == source]
            for checked in await asyncio.gather(*(check(one, ca_files) for one in chosen)):
                if not checked.problem:
                    return checked
                if checked.tls and there is None:
                    there = checked
    return there

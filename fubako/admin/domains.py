"""What the world must know of a domain of ours: its DNS records, printed and checked; its DKIM keys, made and rotated."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fubako.accounts import directory
from fubako.clock import Env
from fubako.config import SERVICES, Config, ConfigError, split_address
from fubako.delivery.dress import signer
from fubako.net.interface import DnsFailure, NoSuchName, Resolver
from fubako.policy import dmarc, spf
from fubako.policy.dkim import PrivateKey
from fubako.store import domainkeys
from fubako.store.domainkeys import ACTIVE, NEW, DomainKey
from fubako.store.interface import Database, Transaction
from fubako.trust import mtasts

RSA_BITS = 2048
STS_DAYS = 7
_SRV = {
    "submissions": "_submissions._tcp",
    "submission": "_submission._tcp",
    "imaps": "_imaps._tcp",
    "imap": "_imap._tcp",
    "pop3s": "_pop3s._tcp",
    "pop3": "_pop3._tcp",
}


@dataclass(frozen=True, slots=True)
class Record:
    """One record to publish; `value` as a zone file has it. `why` tells what it is good for."""

    name: str
    type: str
    value: str
    why: str

    @property
    def zone_line(self) -> str:
        return f"{self.name}. IN {self.type} {self.value}"


def _txt(text: str) -> str:
    """Strings of at most 255 octets, quoted."""
    return " ".join(f'"{text[at : at + 255]}"' for at in range(0, len(text), 255))


def policy_file(config: Config) -> str:
    """The MTA-STS policy that a web server shows at https://mta-sts.DOMAIN/.well-known/mta-sts.txt (RFC 8461 §3.2)."""
    return f"version: STSv1\r\nmode: enforce\r\nmx: {config.hostname}\r\nmax_age: {STS_DAYS * 86400}\r\n"


def _ports(config: Config) -> dict[str, int]:
    found: dict[str, int] = {}
    for listen in config.listen:
        for address in listen.addresses:
            if listen.service in SERVICES:
                with suppress(ConfigError):
                    found.setdefault(listen.service, split_address(address)[1])
    return found


def _service_key(certificates: Sequence[bytes]) -> str:
    """SHA-256 of the key in the first certificate (PEM), as TLSA 3 1 1 holds it; empty where there is none."""
    if not certificates:
        return ""
    key = x509.load_pem_x509_certificates(certificates[0])[0].public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


async def records(database: Database, config: Config, domain: str, certificates: Sequence[bytes]) -> list[Record]:
    """Raises StoreError when the domain is not ours."""
    domain = domain.lower()

    def unit(tx: Transaction) -> list[DomainKey]:
        if not directory.is_local(tx, domain):
            raise directory.NoSuchEntry(f"there is no domain {domain}")
        return domainkeys.keys(tx, domain)

    keys, host, ports = await database.read(unit), config.hostname, _ports(config)
    made = [
        Record(domain, "MX", f"10 {host}.", "where its mail goes"),
        Record(domain, "TXT", _txt("v=spf1 mx -all"), "which servers send for it (SPF)"),
    ]
    if host != domain:
        made.append(Record(host, "TXT", _txt("v=spf1 a -all"), "for reports, which have no sender (SPF)"))
    for key in keys:
        words = {NEW: "a key that will sign", ACTIVE: "the key that signs"}.get(key.state, "a key that signed before")
        made.append(Record(f"{key.selector}._domainkey.{domain}", "TXT", _txt(signer(key).record), f"{words} (DKIM)"))
    identity = hashlib.sha256(policy_file(config).encode()).hexdigest()[:16]
    told = f"mailto:postmaster@{domain}"
    made += [
        Record(
            f"_dmarc.{domain}", "TXT", _txt(f"v=DMARC1; p=quarantine; rua={told}"), "what becomes of forgeries (DMARC)"
        ),
        Record(f"_mta-sts.{domain}", "TXT", _txt(f"v=STSv1; id={identity}"), "that TLS is promised (MTA-STS)"),
        Record(f"mta-sts.{domain}", "CNAME", f"{host}.", "a web server with the policy file below (MTA-STS)"),
        Record(f"_smtp._tls.{domain}", "TXT", _txt(f"v=TLSRPTv1; rua={told}"), "who is told how TLS went (TLSRPT)"),
    ]
    digest = _service_key(certificates)
    if digest:
        port = ports.get("smtp", 25)
        made.append(
            Record(f"_{port}._tcp.{host}", "TLSA", f"3 1 1 {digest}", "its key, where DNSSEC signs the zone (DANE)")
        )
    for service, name in _SRV.items():
        value = f"0 1 {ports[service]} {host}." if service in ports else "0 0 0 ."
        made.append(
            Record(
                f"{name}.{domain}",
                "SRV",
                value,
                f"where clients find {service}" if service in ports else f"no {service}",
            )
        )
    return made


# -- check


async def check(resolver: Resolver, wanted: Sequence[Record], domain: str) -> list[dict[str, Any]]:
    """Each record beside what DNS says now: ok, missing, different or unanswered."""
    rows = []
    for one in wanted:
        try:
            state, found = await _compare(resolver, one, domain)
        except NoSuchName:
            state, found = ("ok", "") if one.value == "0 0 0 ." else ("missing", "")
        except DnsFailure as failure:
            state, found = "unanswered", str(failure)
        if one.value == "0 0 0 ." and state == "missing":
            state = "ok"  # saying nothing is as good
        rows.append(
            {"state": state, "name": one.name, "type": one.type, "wanted": one.value, "found": found, "why": one.why}
        )
    return rows


async def _compare(resolver: Resolver, one: Record, domain: str) -> tuple[str, str]:
    if one.type == "MX":
        mx = (await resolver.mx(one.name)).records
        host = one.value.partition(" ")[2].rstrip(".")
        return _verdict(any(name == host for _, name in mx), [f"{preference} {name}." for preference, name in mx])
    if one.type == "SRV":
        services = [f"{a} {b} {port} {host}." for a, b, port, host in (await resolver.services(one.name)).records]
        wanted = one.value.split()[2:]
        return _verdict(any(found.split()[2:] == wanted for found in services), services)
    if one.type == "TLSA":
        answer = await resolver.tlsa(one.name)
        shown = [f"{r.usage} {r.selector} {r.matching} {r.data.hex()}" for r in answer.records]
        if one.value in shown and not answer.authentic:
            return "different", "it is there, but DNSSEC does not vouch for it"
        return _verdict(one.value in shown, shown)
    if one.type == "CNAME":
        addresses = list((await resolver.addresses(one.name)).records)
        return _verdict(bool(addresses), addresses)
    texts = [text.decode("utf-8", "replace") for text in (await resolver.texts(one.name)).records]
    return _text_verdict(one, texts, domain)


def _text_verdict(one: Record, texts: list[str], domain: str) -> tuple[str, str]:
    """What another hand wrote may be as good: it is read, not compared."""
    wanted = "".join(one.value.split('"')[1::2])
    kind = wanted.partition(";")[0].partition(" ")[0]
    same = [text for text in texts if text.lower().startswith(kind.lower())]
    if wanted in same:
        return _verdict(len(same) == 1, same)
    if kind == "v=spf1" and len(same) == 1:
        try:
            return _verdict(
                any(term.name in ("mx", "a", "include", "ip4", "ip6") for term in spf.parse(same[0]).terms), same
            )
        except spf.PermError as error:
            return "different", f"{same[0]}: {error}"
    if kind == "v=DMARC1" and len(same) == 1:
        return _verdict(dmarc.parse(same[0], domain) is not None, same)
    if kind == "v=STSv1":
        return _verdict(bool(mtasts.record_id([text.encode() for text in texts])), same)
    if kind == "v=TLSRPTv1" and len(same) == 1:
        return _verdict("rua=" in same[0], same)
    return _verdict(False, same)


def _verdict(good: bool, found: Sequence[str]) -> tuple[str, str]:
    return "ok" if good else "different" if found else "missing", "; ".join(found)


# -- DKIM


def _selectors(now: int, number: int) -> tuple[str, str]:
    """Names by the day, numbered where there are several of one."""
    day = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d") + (f"-{number}" if number else "")
    return f"rsa{day}", f"ed{day}"


def _made(domain: str, now: int, selectors: Sequence[str], state: str) -> list[DomainKey]:
    privates: tuple[PrivateKey, PrivateKey] = generate_private_key(65537, RSA_BITS), Ed25519PrivateKey.generate()
    pems = [one.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode() for one in privates]
    return [DomainKey(domain, name, state, pem, now) for name, pem in zip(selectors, pems, strict=True)]


async def keys(database: Database, domain: str) -> list[dict[str, Any]]:
    found = await database.read(lambda tx: domainkeys.keys(tx, domain))
    return [
        {
            "domain": one.domain, "selector": one.selector, "state": one.state, "algorithm": signer(one).algorithm,
            "created": datetime.fromtimestamp(one.created, UTC).strftime("%Y-%m-%d"), "record": signer(one).record,
        }
        for one in found
    ]  # fmt: skip


async def rotate(
    database: Database, env: Env, domain: str, published: Callable[[DomainKey], Awaitable[bool]]
) -> tuple[str, list[DomainKey]]:
    """One step of a rotation, and what to publish: `begun` new keys were made, `waits` their records are not seen everywhere yet,
    `done` they sign now. The first keys of a domain sign at once. Raises StoreError."""
    domain, now = domain.lower(), int(env.clock.now())

    def look(tx: Transaction) -> list[DomainKey]:
        if not directory.is_local(tx, domain):
            raise directory.NoSuchEntry(f"there is no domain {domain}")
        return domainkeys.keys(tx, domain)

    there = await database.read(look)
    waiting = [one for one in there if one.state == NEW]
    if waiting:
        missing = [one for one in waiting if not await published(one)]
        if missing:
            return "waits", missing
        await database.write(lambda tx: domainkeys.rotate(tx, domain))
        return "done", waiting
    first = not any(one.state == ACTIVE for one in there)
    used = {one.selector for one in there}
    selectors = next(names for n in range(len(used) + 1) if not used.intersection(names := _selectors(now, n)))
    made = _made(domain, now, selectors, ACTIVE if first else NEW)

    def unit(tx: Transaction) -> None:
        for one in made:
            domainkeys.add(tx, one)

    await database.write(unit)
    return "begun", made


async def is_published(resolver: Resolver, key: DomainKey) -> bool:
    """Whether the record of a key is in DNS, with this key."""
    wanted = signer(key).record.partition("p=")[2]
    try:
        texts = (await resolver.texts(f"{key.selector}._domainkey.{key.domain}")).records
    except (NoSuchName, DnsFailure):
        return False
    return any(wanted in "".join(text.decode("utf-8", "replace").split()) for text in texts)


async def remove_key(database: Database, domain: str, selector: str) -> None:
    await database.write(lambda tx: domainkeys.remove(tx, domain, selector))

"""DMARC: does a letter come from the domain that its From shows, and what does that domain wish if not? (RFC 9989)

The organizational domain is found by the walk through DNS, so no list of public suffixes is needed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fubako.message.headers import unfold
from fubako.message.mailboxes import parse_list
from fubako.net.interface import DnsFailure, NoSuchName, Resolver
from fubako.policy.dkim import Letter, is_domain

LABELS_MAX = 8  # of a walk (RFC 9989 §4.10)
REPORT_ADDRESSES_MAX = 10

Result = Literal["none", "pass", "fail", "temperror", "permerror"]
Wish = Literal["none", "quarantine", "reject"]

_WISHES: tuple[Wish, ...] = ("none", "quarantine", "reject")
_TAG = re.compile(r"\s*([A-Za-z]+)\s*=\s*([^;]*?)\s*")


@dataclass(frozen=True, slots=True)
class Record:
    """A published policy, with its defaults (RFC 9989 §4.7). `found` is the domain where it stands."""

    found: str
    policy: Wish = "none"
    below: Wish | None = None
    missing: Wish | None = None
    strict_dkim: bool = False
    strict_spf: bool = False
    psd: str = "u"
    testing: bool = False
    reports: tuple[str, ...] = ()

    def wish(self, domain: str, *, exists: bool) -> Wish:
        """What is wished for letters of a domain at or below this one."""
        if domain == self.found:
            return self.policy
        below = self.below or self.policy
        return below if exists else (self.missing or below)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What proved a domain: by SPF, or by a DKIM signature that holds."""

    how: Literal["spf", "dkim"]
    domain: str


@dataclass(frozen=True, slots=True)
class Judged:
    """`wish` is what the domain asks for when the result is `fail`."""

    result: Result
    domain: str = ""
    wish: Wish = "none"
    reason: str = ""
    record: Record | None = None
    spf_aligned: bool = False
    dkim_aligned: bool = False


def author_domains(letter: Letter) -> list[str]:
    """The domains of every From address, each once; an address without one counts as an empty name."""
    found: dict[str, None] = {}
    for name, raw in letter.fields:
        if name == b"from":
            for one in parse_list(unfold(raw.partition(b":")[2])):
                if one.mailbox is not None and one.host is not None:
                    found[_ascii(one.host.decode("utf-8", "replace"))] = None
    return list(found)


def _ascii(domain: str) -> str:
    """As DNS knows it; empty for what is no domain, because it is asked for and shown in replies."""
    try:
        name = (
            domain.rstrip(".").lower().encode("idna").decode() if not domain.isascii() else domain.rstrip(".").lower()
        )
    except UnicodeError:
        return ""
    return name if is_domain(name) else ""


def parse(text: str, found: str) -> Record | None:
    """None: it is no DMARC record. A wish that is not known counts as none when reports are asked for (§4.7)."""
    parts = text.split(";")
    if re.fullmatch(r"\s*v\s*=\s*DMARC1\s*", parts[0]) is None:
        return None
    tags: dict[str, str] = {}
    for part in parts[1:]:
        match = _TAG.fullmatch(part)
        if match is not None:
            tags.setdefault(match.group(1).lower(), match.group(2))
    reports = tuple(_report_addresses(tags.get("rua", "")))
    policy = _wish(tags.get("p", ""))
    if policy is None and tags.get("p") is not None and not reports:
        return None
    return Record(
        found, policy or "none", _wish(tags.get("sp", "")), _wish(tags.get("np", "")), tags.get("adkim", "").lower() == "s",
        tags.get("aspf", "").lower() == "s", tags.get("psd", "u").lower(), tags.get("t", "").lower() == "y", reports,
    )  # fmt: skip


def _wish(text: str) -> Wish | None:
    return next((wish for wish in _WISHES if wish == text.lower()), None)


def _report_addresses(value: str) -> list[str]:
    found = []
    for part in value.split(",")[:REPORT_ADDRESSES_MAX]:
        uri = part.strip().partition("!")[0]
        if uri.lower().startswith("mailto:") and "@" in uri and uri.isascii() and uri.isprintable():
            found.append(uri[7:])
    return found


async def judge(resolver: Resolver, letter: Letter, evidence: Sequence[Evidence]) -> Judged:
    """Several authors, or none, can be believed only when all of them hold; the worst of them counts (§4.4.1)."""
    domains = author_domains(letter)
    if not domains:
        return Judged("permerror", reason="there is no author")
    judged = [await _judge_domain(resolver, domain, evidence) for domain in domains]
    order = ("pass", "none", "permerror", "temperror", "fail")
    return max(judged, key=lambda one: (order.index(one.result), _WISHES.index(one.wish)))


async def _judge_domain(resolver: Resolver, domain: str, evidence: Sequence[Evidence]) -> Judged:
    if "." not in domain:
        return Judged("permerror", domain, reason="the author has no domain")
    try:
        walk = _Walk(resolver)
        record = await walk.policy(domain)
        if record is None:
            return Judged("none", domain, reason="the domain has no policy")
        aligned = {"spf": False, "dkim": False}
        for one in evidence:
            strict = record.strict_spf if one.how == "spf" else record.strict_dkim
            if one.domain == domain or (not strict and await walk.same_organization(one.domain, domain)):
                aligned[one.how] = True
        if any(aligned.values()):
            return Judged("pass", domain, "none", "", record, aligned["spf"], aligned["dkim"])
        exists = record.missing is None or await _exists(resolver, domain)
    except DnsFailure as failure:
        return Judged("temperror", domain, reason=str(failure))
    wish = record.wish(domain, exists=exists)
    reason = f"neither SPF nor DKIM shows that it comes from {domain}"
    return Judged("fail", domain, "none" if record.testing else wish, reason, record)


async def _exists(resolver: Resolver, domain: str) -> bool:
    try:
        await resolver.addresses(domain)
    except NoSuchName:
        return False
    return True


class _Walk:
    """The records of names and of those above them, each asked for once (RFC 9989 §4.10)."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._records: dict[str, Record | None] = {}

    async def record(self, domain: str) -> Record | None:
        """The one record of a name; several count as none. Raises DnsFailure."""
        if domain not in self._records:
            try:
                texts = (await self._resolver.texts(f"_dmarc.{domain}")).records
            except NoSuchName:
                texts = ()
            parsed = [parse(text.decode("utf-8", "replace"), domain) for text in texts]
            found = [one for one in parsed if one is not None]
            self._records[domain] = found[0] if len(found) == 1 else None
        return self._records[domain]

    @staticmethod
    def _names(domain: str) -> list[str]:
        labels = domain.split(".")
        names = [".".join(labels[at:]) for at in range(len(labels))]
        return names if len(names) <= LABELS_MAX else [names[0], *names[-(LABELS_MAX - 1) :]]

    async def organization(self, domain: str) -> str:
        """§4.10.2: the shortest name with a record, unless one of them says where the organization begins."""
        found = domain
        names = self._names(domain)
        for at, name in enumerate(names):
            record = await self.record(name)
            if record is None:
                continue
            if record.psd == "n":
                return name
            if record.psd == "y":
                return found if at == 0 else names[at - 1]
            found = name
        return found

    async def policy(self, domain: str) -> Record | None:
        """§4.10.1: of the name itself, else of its organization, else of the public suffix above."""
        own = await self.record(domain)
        if own is not None:
            return own
        above = await self.record(await self.organization(domain))
        if above is not None:
            return above
        for name in self._names(domain)[1:]:
            record = await self.record(name)
            if record is not None and record.psd == "y":
                return record
        return None

    async def same_organization(self, one: str, other: str) -> bool:
        return await self.organization(one) == await self.organization(other)

"""DMARC: what does the domain that a From shows wish for, and does a letter come from there? (RFC 9989)

The two questions are apart. `find_policy` is a matter of the author's domain alone; `judge` then looks at what proved a domain.

The organizational domain is found by the walk through DNS, so no list of public suffixes is needed.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fubako.net.interface import DnsFailure, NoSuchName, Resolver
from fubako.policy.disposition import Policy, Proof
from fubako.policy.questions import Allowance, TooManyQuestions

LABELS_MAX = 8  # of a walk (RFC 9989 §4.10)
REPORT_ADDRESSES_MAX = 10
RECORDS_MAX = 20  # texts of a name that are looked at
POLICY_SECONDS = 15.0  # for the policy of one author
ALIGN_SECONDS = 10.0  # for the question whether a name belongs to the author's organization
QUESTIONS_MAX = 3 * LABELS_MAX + 2  # of one author: its walk, those of names that may align, and whether it exists

Result = Literal["none", "pass", "fail", "temperror", "permerror"]
Wish = Literal["none", "quarantine", "reject"]

_WISHES: tuple[Wish, ...] = ("none", "quarantine", "reject")
_ONE_BELOW: dict[Wish, Wish] = {"reject": "quarantine", "quarantine": "none", "none": "none"}  # t=y (§4.7)
_IS_RECORD = re.compile(rb"\s*v\s*=\s*DMARC1\s*(?:;|$)")
_TAG = re.compile(r"\s*+([A-Za-z]++)\s*+=([^;]*+)")


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
    """What proved a domain: by SPF, or by a DKIM signature that holds. `undecided`: it may yet, DNS did not answer."""

    how: Literal["spf", "dkim"]
    domain: str
    undecided: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """One author. `wish` is what the domain asks for when the result is `fail`; `policy` and `proof` are for the table."""

    result: Result
    domain: str = ""
    wish: Wish = "none"
    reason: str = ""
    record: Record | None = None
    spf_aligned: bool = False
    dkim_aligned: bool = False
    policy: Policy = Policy.ABSENT
    proof: Proof = Proof.MISSING


def parse(text: str, found: str) -> Record | None:
    """None: it is no DMARC record. With a wish that is not known it counts as `p=none` where reports are asked for (§4.10.1)."""
    parts = text.split(";")
    if re.fullmatch(r"\s*v\s*=\s*DMARC1\s*", parts[0]) is None:
        return None
    tags: dict[str, str] = {}
    for part in parts[1:]:
        match = _TAG.fullmatch(part)
        if match is not None:
            tags.setdefault(match.group(1).lower(), match.group(2).strip())
    reports = tuple(_report_addresses(tags.get("rua", "")))
    wishes = {tag: _wish(tags[tag]) for tag in ("p", "sp", "np") if tag in tags}
    if None in wishes.values():
        if not reports:
            return None
        wishes = {}
    return Record(
        found, wishes.get("p") or "none", wishes.get("sp"), wishes.get("np"), tags.get("adkim", "").lower() == "s",
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


@dataclass(frozen=True, slots=True)
class PolicyFound:
    """The policy of one author's domain, whatever the message brings to prove itself."""

    domain: str
    policy: Policy
    walk: "_Walk"
    record: Record | None = None
    wish: Wish = "none"
    reason: str = ""


_POLICIES = {"reject": Policy.REJECT, "quarantine": Policy.QUARANTINE, "none": Policy.NOTHING}


async def find_policy(resolver: Resolver, domain: str, seconds: float = POLICY_SECONDS) -> PolicyFound:
    """What an author's domain publishes. Nothing but the domain's own DNS, and the DNS above it, is asked. Never raises for
    what DNS says or does not say."""
    walk = _Walk(Allowance(resolver, QUESTIONS_MAX))
    try:
        async with asyncio.timeout(seconds):
            record = await walk.policy(domain)
            if record is None and walk.faulty:
                return PolicyFound(
                    domain, Policy.PERMANENT, walk, reason=f"the DMARC record of {walk.faulty} cannot be used"
                )
            if record is None:
                return PolicyFound(domain, Policy.ABSENT, walk, reason="the domain has no policy")
            wishes = {record.wish(domain, exists=exists) for exists in (True, False)}
            exists = len(wishes) == 1 or await _exists(resolver, domain)
    except DnsFailure as failure:
        return PolicyFound(domain, Policy.TEMPORARY, walk, reason=str(failure))
    except TimeoutError:
        return PolicyFound(domain, Policy.TEMPORARY, walk, reason=f"the DNS of {domain} does not answer in time")
    wish = record.wish(domain, exists=exists)
    if record.testing:
        wish = _ONE_BELOW[wish]
    return PolicyFound(domain, _POLICIES[wish], walk, record, wish)


async def judge(found: PolicyFound, evidence: Sequence[Evidence], seconds: float = ALIGN_SECONDS) -> Judged:
    """Whether anything that proved a domain proved the author's organization (RFC 9989 §4.4)."""
    domain, record = found.domain, found.record
    if record is None:
        same = [one for one in evidence if one.domain == domain and not one.undecided]
        result = _WITHOUT_RECORD[found.policy]
        proof = Proof.ALIGNED if same else Proof.MISSING
        return Judged(result, domain, reason=found.reason, policy=found.policy, proof=proof)
    aligned = {"spf": False, "dkim": False}
    undecided = ""
    for one in sorted(evidence, key=lambda one: (one.undecided, one.domain != domain)):
        if aligned[one.how]:
            continue
        try:
            async with asyncio.timeout(seconds):
                strict = record.strict_spf if one.how == "spf" else record.strict_dkim
                holds = one.domain == domain or (not strict and await found.walk.same_organization(one.domain, domain))
        except (DnsFailure, TimeoutError) as failure:
            undecided = undecided or str(failure) or f"the DNS of {one.domain} does not answer in time"
            continue
        except TooManyQuestions:
            continue
        if holds and one.undecided:
            undecided = undecided or f"{one.how.upper()} of {one.domain} waits for DNS"
        aligned[one.how] |= holds and not one.undecided
    if any(aligned.values()):
        return Judged("pass", domain, "none", "", record, aligned["spf"], aligned["dkim"], found.policy, Proof.ALIGNED)
    if undecided:
        return Judged("temperror", domain, found.wish, undecided, record, policy=found.policy, proof=Proof.UNDECIDED)
    reason = f"neither SPF nor DKIM shows that it comes from {domain}"
    return Judged("fail", domain, found.wish, reason, record, policy=found.policy, proof=Proof.MISSING)


_WITHOUT_RECORD: dict[Policy, Result] = {
    Policy.ABSENT: "none",
    Policy.TEMPORARY: "temperror",
    Policy.PERMANENT: "none",  # a record that cannot be used is discarded (§4.10)
}


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
        self.faulty = ""  # the first name whose record cannot be used

    async def record(self, domain: str) -> Record | None:
        """The one record of a name; several count as none. Raises DnsFailure."""
        if domain not in self._records:
            try:
                texts = (await self._resolver.texts(f"_dmarc.{domain}")).records
            except NoSuchName:
                texts = ()
            meant = [text.decode("utf-8", "replace") for text in texts[:RECORDS_MAX] if _IS_RECORD.match(text)]
            found = [one for one in (parse(text, domain) for text in meant) if one is not None]
            self._records[domain] = found[0] if len(found) == 1 and len(meant) == 1 else None
            if meant and self._records[domain] is None:
                self.faulty = self.faulty or domain
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
        for name in names:
            record = await self.record(name)
            if record is None:
                continue
            if record.psd == "n":
                return name
            if record.psd == "y":
                return found if name == domain else ".".join(domain.split(".")[-name.count(".") - 2 :])
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

    async def same_organization(self, one: str, author: str) -> bool:
        """Relaxed alignment. A name outside the author's organization is not asked for: its DNS is somebody else's, and neither
        its answer nor its silence may count."""
        organization = await self.organization(author)
        if one != organization and not one.endswith("." + organization):
            return False
        return await self.organization(one) == organization

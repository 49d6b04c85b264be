"""What the domain name system says of a domain's mail, and what a man in the middle could do with what it leaves out: MX, SRV,
TLSA, MTA-STS, TLSRPT, SPF, DKIM, DMARC. Only questions; nothing is sent to the domain but the fetch of its MTA-STS policy."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fubako.client.findings import Finding
from fubako.net.interface import DnsFailure, Https, HttpsFailure, NoSuchName, Resolver
from fubako.policy import dmarc, spf
from fubako.trust import dane, mtasts

HOSTS_MAX = 10
# what large senders call their keys; a selector can be anything, so that "none found" says little
SELECTORS = ("default", "dkim", "mail", "selector1", "selector2", "google", "s1", "s2", "k1", "fubako", "20230601", "x")
SERVICES = ("_imaps", "_imap", "_pop3s", "_pop3", "_submissions", "_submission", "_sieve")


@dataclass(slots=True)
class Host:
    name: str
    preference: int
    addresses: tuple[str, ...] = ()
    tlsa: int = 0  # usable records, with DNSSEC
    problem: str = ""


@dataclass(slots=True)
class Domain:
    """What was found. `problems`: questions that were not answered."""

    name: str
    dnssec: bool = False
    implicit: bool = False  # no MX: the domain's own address takes its mail
    refuses: bool = False  # null MX (RFC 7505)
    hosts: list[Host] = field(default_factory=list)
    services: dict[str, list[str]] = field(default_factory=dict)
    sts: str = ""  # mode of the policy
    sts_problem: str = ""
    tlsrpt: str = ""
    spf: str = ""
    dmarc: str = ""
    dkim: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


async def look(name: str, resolver: Resolver, https: Https, selectors: Sequence[str] = ()) -> Domain:
    """Raises NoSuchName where there is no such domain; DnsFailure when not even that is known."""
    name = name.rstrip(".").lower()
    found = Domain(name)
    answer = await resolver.mx(name)
    found.dnssec = answer.authentic
    records = sorted(answer.records)
    found.refuses = any(not host for _, host in records)
    found.implicit = not records
    hosts = [] if found.refuses else records[:HOSTS_MAX] or [(0, name)]
    asked = _Asked(resolver, found)
    found.hosts = list(
        await asyncio.gather(*(asked.host(preference, host, signed=answer.authentic) for preference, host in hosts))
    )
    await asyncio.gather(*(asked.service(one) for one in SERVICES))
    texts, reports, policies = await asyncio.gather(
        asked.texts(name), asked.texts(f"_smtp._tls.{name}"), asked.texts(f"_dmarc.{name}")
    )
    found.spf = next((text for text in texts if text.lower().split(" ")[0] == "v=spf1"), "")
    found.tlsrpt = next((text for text in reports if text.lower().startswith("v=tlsrptv1")), "")
    found.dmarc = next((text for text in policies if text.lower().startswith("v=dmarc1")), "")
    keys = await asyncio.gather(
        *(asked.texts(f"{one}._domainkey.{name}", quiet=True) for one in (*selectors, *SELECTORS))
    )
    named = zip((*selectors, *SELECTORS), keys, strict=True)
    found.dkim = list(dict.fromkeys(one for one, texts in named if any("p=" in text for text in texts)))
    policy, found.sts_problem = await policy_of(resolver, https, name)
    if policy is not None:
        found.sts = policy.mode
        missing = [host.name for host in found.hosts if not policy.allows(host.name)]
        found.sts_problem = f"the policy does not name {', '.join(missing)}" if missing else ""
    return found


@dataclass(slots=True)
class _Asked:
    resolver: Resolver
    found: Domain

    async def texts(self, name: str, *, quiet: bool = False) -> list[str]:
        try:
            return [one.decode("utf-8", "replace") for one in (await self.resolver.texts(name)).records]
        except NoSuchName:
            return []
        except DnsFailure as failure:
            if not quiet:
                self.found.problems.append(str(failure))
            return []

    async def host(self, preference: int, name: str, *, signed: bool) -> Host:
        made = Host(name, preference)
        try:
            addresses = await self.resolver.addresses(name)
            made.addresses = addresses.records
            if signed and addresses.authentic:
                keys = await self.resolver.tlsa(f"_25._tcp.{name}")
                made.tlsa = len(dane.usable(keys.records)) if keys.authentic else 0
        except NoSuchName:
            made.problem = "" if made.addresses else "the name does not exist"
        except DnsFailure as failure:
            made.problem = str(failure)
        return made

    async def service(self, name: str) -> None:
        try:
            answer = await self.resolver.services(f"{name}._tcp.{self.found.name}")
        except (NoSuchName, DnsFailure):
            return
        self.found.services[name] = [f"{host or 'none'}:{port}" for _, _, port, host in answer.records]


async def policy_of(resolver: Resolver, https: Https | None, domain: str) -> tuple[mtasts.Policy | None, str]:
    """(the MTA-STS policy that a domain publishes, what is wrong with it); `https` None: nothing is fetched."""
    try:
        announced = mtasts.record_id((await resolver.texts(f"_mta-sts.{domain}")).records)
    except NoSuchName:
        return None, ""
    except DnsFailure as failure:
        return None, str(failure)
    if not announced or https is None:
        return None, ""
    try:
        answer = await https.get(f"mta-sts.{domain}", mtasts.PATH, mtasts.POLICY_OCTETS_MAX)
        if answer.status != 200:
            return None, f"https://mta-sts.{domain} answers {answer.status}"
        return mtasts.parse(answer.content), ""
    except (HttpsFailure, mtasts.StsError) as error:
        return None, str(error)


def findings(found: Domain) -> list[Finding]:
    """Worst first within each kind; `service` says dns."""
    if found.refuses:
        return [Finding("good", "dns", f"{found.name} takes no mail, and says so (null MX)")]
    made: list[Finding] = []

    def add(grade: str, text: str, advice: str = "") -> None:
        made.append(Finding(grade, "dns", text, advice))

    for host in found.hosts:
        if host.problem or not host.addresses:
            add("weak", f"{host.name}: {host.problem or 'it has no address'}", "repair the MX record")
    guarded = bool(found.hosts) and all(host.tlsa for host in found.hosts)
    if guarded:
        add("good", "DNSSEC says which keys its servers have (DANE)")
    elif found.sts == "enforce" and not found.sts_problem:
        add("good", "its servers must show certificates (MTA-STS, enforce)")
    else:
        why = found.sts_problem or (
            "its MTA-STS policy only tests" if found.sts == "testing" else "neither DANE nor MTA-STS"
        )
        add(
            "weak",
            f"letters to {found.name} can be read on the way by who hides STARTTLS: {why}",
            "DNSSEC with TLSA, or MTA-STS with enforce",
        )
    if not found.dnssec:
        add("weak", "DNSSEC does not hold: who forges an answer of the name system gets its letters", "sign the zone")
    if not found.tlsrpt:
        add("weak", "nobody tells when TLS to its servers fails", f"a TLSRPT record at _smtp._tls.{found.name}")
    _authors(found, add)
    for problem in found.problems:
        add("weak", f"not answered: {problem}")
    order = {"grave": 0, "weak": 1, "good": 2}
    return sorted(made, key=lambda one: order[one.grade])


def _authors(found: Domain, add: Callable[[str, str, str], None]) -> None:
    """Whether others can write in the domain's name."""
    if not found.spf:
        add("weak", "any machine can send in its name: there is no SPF record", "v=spf1 … -all")
    else:
        try:
            spf.parse(found.spf)
        except spf.PermError as error:
            add("weak", f"its SPF record means nothing: {error}", "repair it")
        if found.spf.rstrip().lower().endswith(("+all", " all", "?all")):
            add("grave", f"its SPF record lets every machine send in its name: {found.spf}", "end it with -all")
    record = dmarc.parse(found.dmarc, found.name) if found.dmarc else None
    if record is None:
        add(
            "weak",
            "receivers are not told what to do with forged letters: no DMARC record",
            f"v=DMARC1; p=reject at _dmarc.{found.name}",
        )
    elif "p=none" in found.dmarc.replace(" ", "").lower():
        add("weak", "forged letters are let through: DMARC says p=none", "p=quarantine, then p=reject")
    else:
        add("good", f"forged letters are not let through: {found.dmarc}", "")
    if not found.dkim:
        add("weak", "no DKIM key was found under the usual names", "name yours with --selector, or sign your letters")

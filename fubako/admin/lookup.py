"""`mx`: where the mail of a domain goes, and what would be demanded of each host before a letter is said there."""

from typing import Any

from fubako.client.probe_domain import policy_of
from fubako.net.interface import Answer, DnsFailure, Https, NoSuchName, Resolver, TlsaRecord
from fubako.trust import mtasts

HOSTS_MAX = 20
PORT = 25


class NoMail(Exception):
    """The domain takes no mail, or does not exist."""


async def lookup(resolver: Resolver, https: Https | None, domain: str) -> dict[str, Any]:
    """JSON values: the hosts in the order in which they are tried, their addresses, what is demanded and why. Raises NoMail,
    DnsFailure."""
    domain = domain.rstrip(".").lower()
    try:
        answer = await resolver.mx(domain)
    except NoSuchName:
        raise NoMail(f"the domain {domain} does not exist") from None
    records = sorted(answer.records) or [(0, domain)]
    if any(not host for _, host in records):
        raise NoMail(f"{domain} takes no mail (null MX, RFC 7505)")
    policy, problem = await policy_of(resolver, https, domain)
    hosts = [await _host(resolver, answer, preference, host, policy) for preference, host in records[:HOSTS_MAX]]
    if not answer.records and not hosts[0]["addresses"]:
        raise NoMail(f"{domain} has no mail servers and no address")
    return {
        "domain": domain,
        "implicit": not answer.records,
        "dnssec": answer.authentic,
        "mta_sts": policy.mode if policy is not None else "",
        "mta_sts_problem": problem,
        "hosts": hosts,
    }


async def _host(
    resolver: Resolver, mx: Answer[tuple[int, str]], preference: int, host: str, policy: mtasts.Policy | None
) -> dict[str, Any]:
    addresses: tuple[str, ...] = ()
    keys: tuple[TlsaRecord, ...] = ()
    problem = ""
    try:
        found = await resolver.addresses(host)
        addresses = found.records
        if found.authentic and (mx.authentic or not mx.records):
            tlsa = await resolver.tlsa(f"_{PORT}._tcp.{host}")
            keys = tlsa.records if tlsa.authentic else ()
    except NoSuchName:
        problem = "" if addresses else "the name does not exist"
    except DnsFailure as failure:
        problem = str(failure)
    return {
        "preference": preference,
        "host": host,
        "addresses": list(addresses),
        "demand": _demand(host, keys, policy),
        "problem": problem or ("" if addresses else "it has no address"),
    }


def _demand(host: str, keys: tuple[TlsaRecord, ...], policy: mtasts.Policy | None) -> str:
    """In words; the strictest holds."""
    usable = [key for key in keys if key.usage in (2, 3)]
    if usable:
        kinds = " or ".join(sorted({"this very key" if key.usage == 3 else "this authority" for key in usable}))
        return f"TLS, with {kinds}, as DNSSEC says (DANE, {len(usable)} TLSA)"
    if policy is not None and policy.mode == "enforce":
        if not policy.allows(host):
            return "nothing is sent there: the domain's MTA-STS policy does not name it"
        return f"TLS, with a certificate of a public authority for {host} (MTA-STS)"
    if policy is not None and policy.mode == "testing":
        return "TLS where it is offered; what fails is reported (MTA-STS, testing)"
    return "TLS where it is offered, and no less than the host did before; a man in the middle can prevent it at the first meeting"

"""Sender Policy Framework: may this client send for this domain? (RFC 7208). Asks the resolver, and nothing else.

Every limit of RFC 7208 §4.6.4 holds: ten terms that ask, two answers without a record, ten names of an MX or a PTR.
"""

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

from fubako.net.interface import Answer, DnsFailure, NoSuchName, Resolver
from fubako.policy.questions import TooManyQuestions

CHECK_SECONDS = 20.0  # RFC 7208 §4.6.4
NAMES_SECONDS = (
    5.0  # for the names of the client, whose DNS is the client's: their silence proves nothing, and ends nothing
)
LOOKUPS_MAX = 10
VOID_MAX = 2
NAMES_MAX = 10
RECORD_OCTETS_MAX = 4096
EXPLANATION_MAX = 400  # signs; it goes into a reply

Result = Literal["none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"]
Question = Callable[[str], Awaitable[Answer[str]]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_QUALIFIERS: dict[str, Result] = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}
_MECHANISM = re.compile(r"([+\-~?]?)([A-Za-z][A-Za-z0-9_.\-]*)(?:([:/])(.*))?", re.DOTALL)
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9_.\-]*)=(.*)", re.DOTALL)
_MACRO = re.compile(r"%(?:\{([A-Za-z])([0-9]*)([rR]?)([.\-+,/_=]*)\}|([%_\-]))")
_TOPLABEL = re.compile(r"\.(?=[A-Za-z0-9\-]*[A-Za-z\-])[A-Za-z0-9](?:[A-Za-z0-9\-]*[A-Za-z0-9])?\.?$")
_CIDR = re.compile(r"(.*?)(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?", re.DOTALL)
_IP4 = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3}){3})(?:/(0|[1-9][0-9]?))?")
_IP6 = re.compile(r"([0-9A-Fa-f:.]+)(?:/(0|[1-9][0-9]{0,2}))?")


class PermError(Exception):
    """The record of the domain cannot be used; the message says where."""


class _TempError(Exception):
    """DNS did not answer."""


@dataclass(frozen=True, slots=True)
class Checked:
    """`domain` is the one that was asked; `explanation` is its own text for a fail, never more than printable ASCII."""

    result: Result
    domain: str
    reason: str = ""
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class Term:
    """A mechanism as it is written. `target` is a domain-spec or, for ip4 and ip6, a network."""

    qualifier: Result
    name: str
    target: str = ""
    prefix4: int = 32
    prefix6: int = 128


@dataclass(slots=True)
class Record:
    terms: list[Term] = field(default_factory=list)
    redirect: str | None = None
    explain: str | None = None


async def check(
    resolver: Resolver,
    client: str,
    sender: str,
    hello: str,
    receiver: str = "unknown",
    now: float = 0.0,
    *,
    seconds: float = CHECK_SECONDS,
) -> Checked:
    """`sender` is the reverse path without brackets; for the null sender the greeting name is asked (§2.4). What takes longer
    than `seconds` is a `temperror`."""
    address = _client(client)
    local, _, domain = sender.rpartition("@")
    domain = (domain or hello).rstrip(".").lower()
    evaluation = _Evaluation(resolver, address, f"{local or 'postmaster'}@{domain}", hello, receiver, now)
    if not _is_domain(domain):
        return Checked("none", domain, "the name is no domain")
    try:
        async with asyncio.timeout(seconds):
            result, explanation = await evaluation.host(domain)
    except (PermError, TooManyQuestions) as error:
        return Checked("permerror", domain, str(error))
    except _TempError as error:
        return Checked("temperror", domain, str(error))
    except TimeoutError:
        return Checked("temperror", domain, "DNS does not answer in time")
    return Checked(result, domain, evaluation.because, explanation)


def _client(text: str) -> Address:
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_domain(name: str) -> bool:
    labels = name.split(".")
    return len(labels) > 1 and len(name) <= 253 and all(0 < len(label) <= 63 for label in labels) and name[0] != "["


# -- the record


def parse(text: str) -> Record:
    """A whole record, checked to its end before anything of it is used (§4.6). Raises PermError."""
    record = Record()
    for word in text[len("v=spf1") :].split(" "):
        if not word:
            continue
        modifier = _MODIFIER.fullmatch(word)
        if modifier is not None:
            _modifier(record, modifier.group(1).lower(), modifier.group(2))
        else:
            record.terms.append(_mechanism(word))
    return record


def _modifier(record: Record, name: str, value: str) -> None:
    if name == "redirect":
        if record.redirect is not None:
            raise PermError("redirect= stands twice")
        record.redirect = _domain_spec(value)
    elif name == "exp":
        if record.explain is not None:
            raise PermError("exp= stands twice")
        record.explain = _domain_spec(value)
    else:
        _check_macros(value)


def _mechanism(word: str) -> Term:
    match = _MECHANISM.fullmatch(word)
    if match is None:
        raise PermError(f"{_shown(word)} is no term")
    qualifier, name = _QUALIFIERS[match.group(1) or "+"], match.group(2).lower()
    rest = (match.group(3) or "") + (match.group(4) or "")
    match name:
        case "all":
            if rest:
                raise PermError("all takes nothing")
            return Term(qualifier, name)
        case "include" | "exists":
            if not rest.startswith(":"):
                raise PermError(f"{name} needs a domain")
            return Term(qualifier, name, _domain_spec(rest[1:]))
        case "a" | "mx":
            return _with_prefix(qualifier, name, rest)
        case "ptr":
            if rest and not rest.startswith(":"):
                raise PermError("ptr takes a domain only")
            return Term(qualifier, name, _domain_spec(rest[1:]) if rest else "")
        case "ip4" | "ip6":
            return _network(qualifier, name, rest)
    raise PermError(f"{_shown(name)} is no mechanism")


def _with_prefix(qualifier: Result, name: str, rest: str) -> Term:
    match = _CIDR.fullmatch(rest)
    assert match is not None
    target, four, six = match.group(1), int(match.group(2) or 32), int(match.group(3) or 128)
    if match.group(2) == "0":
        four = 0
    if match.group(3) == "0":
        six = 0
    if four > 32 or six > 128 or (target and not target.startswith(":")):
        raise PermError(f"{name}{_shown(rest)} is malformed")
    return Term(qualifier, name, _domain_spec(target[1:]) if target else "", four, six)


def _network(qualifier: Result, name: str, rest: str) -> Term:
    match = (_IP4 if name == "ip4" else _IP6).fullmatch(rest[1:]) if rest.startswith(":") else None
    if match is None:
        raise PermError(f"{name}{_shown(rest)} is no network")
    try:
        network = ipaddress.ip_network(rest[1:], strict=False)
    except ValueError:
        raise PermError(f"{name}{_shown(rest)} is no network") from None
    if network.version != int(name[2]):
        raise PermError(f"{name}{_shown(rest)} is of the other kind")
    return Term(qualifier, name, str(network))


def _domain_spec(text: str) -> str:
    _check_macros(text)
    if not text:
        raise PermError("a domain is missing")
    macros = list(_MACRO.finditer(text))
    if macros and macros[-1].end() == len(text) and macros[-1].group(1):
        return text
    if not _TOPLABEL.search(text):
        raise PermError(f"{_shown(text)} is no domain")
    return text


def _check_macros(text: str, letters: str = "slodiphv") -> None:
    rest = _MACRO.sub("", text)
    if "%" in rest or any(not "!" <= char <= "~" for char in rest.replace(" ", "" if "c" in letters else " ")):
        raise PermError(f"{_shown(text)} holds a malformed macro or sign")
    for match in _MACRO.finditer(text):
        if match.group(1) and (
            match.group(1).lower() not in letters or match.group(2).strip("0") == "" != match.group(2)
        ):
            raise PermError(f"{_shown(match.group(0))} is no macro")


def _shown(text: str) -> str:
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in text[:64])


# -- its evaluation


class _Evaluation:
    """One check_host with its includes and redirects, which share the limits."""

    def __init__(self, resolver: Resolver, client: Address, sender: str, hello: str, receiver: str, now: float) -> None:
        self.now = now
        self.resolver, self.client, self.sender = resolver, client, sender
        self.hello, self.receiver = hello, receiver
        self.lookups = self.voids = 0
        self.because = ""
        self._client_names: list[str] | None = None

    async def host(self, domain: str, *, top: bool = True) -> tuple[Result, str]:
        """(result, explanation). Raises PermError, _TempError."""
        record = await self._record(domain)
        if record is None:
            self.because = f"{domain} has no SPF record"
            return "none", ""
        for term in record.terms:
            if await self._matches(term, domain):
                self.because = f"{term.name}{':' + term.target if term.target else ''} of {domain}"
                explain = record.explain if top and term.qualifier == "fail" else None
                return term.qualifier, await self._explanation(explain, domain) if explain else ""
        if record.redirect is not None:
            self._count()
            target = await self._expand(record.redirect, domain)
            result, explanation = await self.host(target, top=top) if _is_domain(target) else ("none", "")
            if result == "none":
                raise PermError(f"redirect={_shown(target)} leads to no SPF record")
            return result, explanation
        self.because = f"nothing in the record of {domain} matches"
        return "neutral", ""

    async def _record(self, domain: str) -> Record | None:
        try:
            texts = (await self.resolver.texts(domain)).records
        except NoSuchName:
            return None
        except DnsFailure as failure:
            raise _TempError(str(failure)) from None
        found = [text for text in texts if text[:6].lower() == b"v=spf1" and text[6:7] in (b"", b" ")]
        if not found:
            return None
        if len(found) > 1:
            raise PermError(f"{domain} has {len(found)} SPF records")
        if not found[0].isascii() or len(found[0]) > RECORD_OCTETS_MAX:
            raise PermError(f"the record of {domain} is not plain text")
        return parse(found[0].decode())

    def _count(self) -> None:
        self.lookups += 1
        if self.lookups > LOOKUPS_MAX:
            raise PermError(f"more than {LOOKUPS_MAX} terms that ask DNS")

    async def _matches(self, term: Term, domain: str) -> bool:
        match term.name:
            case "all":
                return True
            case "ip4" | "ip6":
                network = ipaddress.ip_network(term.target)
                return network.version == self.client.version and self.client in network
        self._count()
        target = await self._expand(term.target, domain) if term.target else domain
        match term.name:
            case "include":
                return await self._include(target)
            case "a":
                return self._within(await self._addresses(target), term)
            case "mx":
                hosts = await self._mx(target)
                for host in hosts:
                    if self._within(await self._addresses(host, void=False), term):
                        return True
                return False
            case "exists":
                return bool(await self._ask(self.resolver.ipv4, target))
            case _:  # ptr
                wanted = target.lower()
                return any(name == wanted or name.endswith("." + wanted) for name in await self._validated())

    async def _include(self, target: str) -> bool:
        result, _ = await self.host(target, top=False) if _is_domain(target) else ("none", "")
        if result == "none":
            raise PermError(f"include:{_shown(target)} leads to no SPF record")
        return result == "pass"

    async def _ask(self, question: Question, name: str, *, void: bool = True) -> list[str]:
        """The records; none where there is no such name. Counts answers without a record."""
        found: list[str] = []
        if _is_domain(name.rstrip(".")) or "." not in name:
            try:
                found = list((await question(name)).records)
            except NoSuchName:
                pass
            except DnsFailure as failure:
                raise _TempError(str(failure)) from None
        if not found and void:
            self.voids += 1
            if self.voids > VOID_MAX:
                raise PermError(f"more than {VOID_MAX} questions without an answer")
        return found

    async def _addresses(self, host: str, *, void: bool = True) -> list[str]:
        return await self._ask(self.resolver.ipv4 if self.client.version == 4 else self.resolver.ipv6, host, void=void)

    async def _mx(self, domain: str) -> list[str]:
        async def hosts(name: str) -> Answer[str]:
            answer = await self.resolver.mx(name)
            return Answer(tuple(host for _, host in answer.records))

        found = await self._ask(hosts, domain)
        if len(found) > NAMES_MAX:
            raise PermError(f"{domain} has more than {NAMES_MAX} MX")
        return [host for host in found if host]

    def _within(self, addresses: list[str], term: Term) -> bool:
        prefix = term.prefix4 if self.client.version == 4 else term.prefix6
        return any(self.client in ipaddress.ip_network(f"{address}/{prefix}", strict=False) for address in addresses)

    async def _validated(self) -> list[str]:
        """Names of the client that lead back to it (§5.5), looked for once. What does not answer proves nothing."""
        if self._client_names is None:
            self._client_names = await self._find_names()
        return self._client_names

    async def _find_names(self) -> list[str]:
        found: list[str] = []
        with suppress(TimeoutError, _TempError):
            async with asyncio.timeout(NAMES_SECONDS):
                names = await self._ask(self.resolver.names, str(self.client))
                for name in names[:NAMES_MAX]:
                    found += [name.rstrip(".").lower()] if await self._leads_back(name) else []
        return found

    async def _leads_back(self, name: str) -> bool:
        try:
            addresses = await self._addresses(name, void=False)
        except _TempError:
            return False
        return any(ipaddress.ip_address(address) == self.client for address in addresses)

    # -- macros (§7)

    async def _expand(self, text: str, domain: str, *, explaining: bool = False) -> str:
        out, position = [], 0
        for match in _MACRO.finditer(text):
            out.append(text[position : match.start()])
            position = match.end()
            if match.group(5):
                out.append({"%": "%", "_": " ", "-": "%20"}[match.group(5)])
            else:
                out.append(await self._macro(match, domain))
        expanded = "".join([*out, text[position:]])
        if explaining:
            return expanded
        expanded = expanded.rstrip(".")
        while len(expanded) > 253 and "." in expanded:
            expanded = expanded.partition(".")[2]
        return expanded

    async def _macro(self, match: "re.Match[str]", domain: str) -> str:
        letter, count, reverse, delimiters = match.group(1, 2, 3, 4)
        value = await self._letter(letter.lower(), domain)
        if count or reverse or delimiters:
            # linear: one character at a time
            parts = re.split(f"[{re.escape(delimiters or '.')}]", value)
            if reverse:
                parts.reverse()
            if count:
                parts = parts[-min(int(count), 128) :]
            value = ".".join(parts)
        return quote(value, safe="-._~") if letter.isupper() else value

    async def _letter(self, letter: str, domain: str) -> str:
        local, _, sender_domain = self.sender.rpartition("@")
        match letter:
            case "s":
                return self.sender
            case "l":
                return local
            case "o":
                return sender_domain
            case "d":
                return domain
            case "i":
                if self.client.version == 4:
                    return str(self.client)
                return ".".join(f"{int(self.client):032X}")
            case "p":
                names = await self._validated()
                exact = [name for name in names if name == domain]
                below = [name for name in names if name.endswith("." + domain)]
                return next(iter([*exact, *below, *names]), "unknown")
            case "v":
                return "in-addr" if self.client.version == 4 else "ip6"
            case "h":
                return self.hello
            case "c":
                return str(self.client)
            case "r":
                return self.receiver
            case _:
                return str(int(self.now))

    async def _explanation(self, spec: str, domain: str) -> str:
        """The domain's own words for a fail; anything wrong with them: none (§6.2)."""
        try:
            async with asyncio.timeout(NAMES_SECONDS):
                target = await self._expand(spec, domain)
                texts = (await self.resolver.texts(target)).records if _is_domain(target) else ()
                if len(texts) != 1 or not texts[0].isascii() or len(texts[0]) > EXPLANATION_MAX:
                    return ""
                text = texts[0].decode()
                _check_macros(text, "slodiphvcrt")
                said = await self._expand(text, domain, explaining=True)
        except (NoSuchName, DnsFailure, PermError, TooManyQuestions, _TempError, TimeoutError):
            return ""
        return said[:EXPLANATION_MAX] if said.isascii() and said.isprintable() else ""

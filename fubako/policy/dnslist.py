"""DNS lists of clients and domains: asked together, weighed together, with the list's own words in the reply (RFC 5782)."""

import asyncio
import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from fubako.net.interface import DnsFailure, NoSuchName, Resolver
from fubako.policy.verdict import ACCEPT, Verdict, refuse

ASK_SECONDS = 5.0
REMEMBERED_SECONDS = 300.0
REMEMBERED_MAX = 20_000
TEXT_MAX = 200

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


ANY_RETURN: tuple[Network, ...] = (ipaddress.IPv4Network("127.0.0.0/8"),)


@dataclass(frozen=True, slots=True)
class DnsList:
    """`stage` is connect (the client's address), hello or sender (their domains). `returns` are the answers that count; none
    means 127.0.0.0/8. A negative weight speaks for a client."""

    zone: str
    stage: str = "connect"
    weight: int = 10
    returns: tuple[Network, ...] = ANY_RETURN


@dataclass(frozen=True, slots=True)
class Listed:
    """A list that knows the client. `text` is its own, of its TXT record."""

    entry: DnsList
    subject: str
    text: str


class DnsLists:
    """The lists of a configuration. `threshold` is the weight from which on a letter is refused."""

    def __init__(
        self, lists: Sequence[DnsList], resolver: Resolver, monotonic: Callable[[], float], threshold: int = 10
    ) -> None:
        self._lists, self._resolver, self._monotonic, self._threshold = tuple(lists), resolver, monotonic, threshold
        self._known: OrderedDict[tuple[str, str], tuple[float, Listed | None]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._lists)

    async def judge(self, client: str, hello: str, sender_domain: str) -> Verdict:
        """A list that does not answer in time says nothing."""
        subjects = {"connect": client, "hello": _domain(hello), "sender": _domain(sender_domain)}
        wanted = [(one, subjects[one.stage]) for one in self._lists if subjects[one.stage]]
        found = [one for one in await asyncio.gather(*(self._ask(*each) for each in wanted)) if one is not None]
        weight = sum(one.entry.weight for one in found)
        if not found or weight < self._threshold:
            return ACCEPT
        worst = max(found, key=lambda one: one.entry.weight)
        said = worst.text or f"listed by {worst.entry.zone}"
        rule = " ".join(f"{one.entry.zone}:{one.entry.weight:+d}" for one in found)
        return refuse(550, "5.7.1", f"{worst.subject} is listed by {worst.entry.zone}: {said}", f"dns lists {rule}")

    async def _ask(self, entry: DnsList, subject: str) -> Listed | None:
        key, now = (entry.zone, subject), self._monotonic()
        known = self._known.get(key)
        if known is not None and known[0] > now:
            return known[1]
        try:
            async with asyncio.timeout(ASK_SECONDS):
                listed = await self._look_up(entry, subject)
        except (DnsFailure, TimeoutError):
            return None
        self._known[key] = now + REMEMBERED_SECONDS, listed
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
        return listed

    async def _look_up(self, entry: DnsList, subject: str) -> Listed | None:
        """Raises DnsFailure."""
        name = f"{query_name(subject) if entry.stage == 'connect' else subject}.{entry.zone}"
        try:
            answers = (await self._resolver.ipv4(name)).records
        except NoSuchName:
            return None
        listed = any(ipaddress.ip_address(answer) in network for answer in answers for network in entry.returns)
        if answers and not listed:
            return None
        text = b""
        with suppress(NoSuchName, DnsFailure):
            text = next(iter((await self._resolver.texts(name)).records), b"")
        if not listed and not (text and entry.returns == ANY_RETURN):
            return None  # old lists have a text alone, which says nothing where certain answers count
        said = "".join(char if " " <= char <= "~" else "?" for char in text.decode("utf-8", "replace"))[:TEXT_MAX]
        return Listed(entry, subject, said)


def query_name(client: str) -> str:
    """192.0.2.99 -> 99.2.0.192, IPv6 by its nibbles (§2.1, §2.4)."""
    address = ipaddress.ip_address(client)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")


def _domain(name: str) -> str:
    """A name that can be asked for; empty for a literal, or what is none."""
    name = name.rstrip(".").lower()
    labels = name.split(".")
    plain = name.isascii() and len(name) <= 180 and len(labels) > 1 and all(0 < len(label) <= 63 for label in labels)
    return name if plain and name.replace(".", "").replace("-", "").replace("_", "").isalnum() else ""

"""`Gate`: what a stranger's letter meets at the service smtp, stage by stage, in the order written here.

MAIL: DNS lists. RCPT: rate limits, greylisting. Content: SPF, DKIM, ARC, DMARC. Users who proved themselves, and clients for whom
we relay (RELAY in the access table, POP before SMTP), meet the rates only; networks that are exempt, as this machine itself is,
meet nothing.
"""

import ipaddress
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from fubako.clock import Env
from fubako.policy.authenticity import Examined, Examiner
from fubako.policy.dnslist import DnsLists, Network
from fubako.policy.limits import network_of
from fubako.policy.names import Names
from fubako.policy.rates import Rates
from fubako.policy.verdict import ACCEPT, Verdict, refuse
from fubako.store import passing
from fubako.store.interface import Database, StoreUnavailable

LOOPBACK: tuple[Network, ...] = (ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128"))


@dataclass(frozen=True, slots=True)
class GateRules:
    """`greylist_seconds` and `pop_seconds` are off at 0. `exempt` are networks that are not looked at."""

    examine: bool = True
    greylist_seconds: int = 0
    pop_seconds: int = 0
    exempt: tuple[Network, ...] = LOOPBACK
    speakers: tuple[Network, ...] = ()  # who may say for whom it speaks
    lenient: tuple[Network, ...] = ()  # devices of the house, whose octets are mended instead of refused


def within(client: str, networks: Sequence[Network]) -> bool:
    """Whether an address is in one of the networks; what is no address is in none."""
    if not networks:  # mostly; reading an address takes longer than all the rest
        return False
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address.version == one.version and address in one for one in networks)


def is_address(client: str) -> bool:
    try:
        ipaddress.ip_address(client)
    except ValueError:
        return False
    return True


class Gate:
    def __init__(
        self,
        rules: GateRules,
        lists: DnsLists,
        rates: Rates,
        examiner: Examiner,
        names: Names,
        database: Database,
        env: Env,
    ) -> None:
        self._names = names
        self.rules = rules
        self._passes = lru_cache(maxsize=10_000)(self._is_exempt)
        self._lists, self._rates, self._examiner = lists, rates, examiner
        self._database, self._env = database, env

    def _is_exempt(self, client: str) -> bool:
        return not is_address(client) or within(client, self.rules.exempt)

    async def name(self, client: str) -> str:
        """The name of a client that leads back to it; empty: none, or this machine."""
        return "" if self._passes(client) else await self._names.of(client)

    async def sender(self, client: str, hello: str, sender_domain: str) -> Verdict:
        if not self._lists or self._passes(client):
            return ACCEPT
        return await self._lists.judge(client, hello, sender_domain)

    async def recipient(
        self, peer: str, client: str, user: str, sender: str, recipient: str, *, trusted: bool = False
    ) -> Verdict:
        """`trusted`: a client for whom we relay."""
        if not user and self._passes(client):
            return ACCEPT
        verdict = self._rates.recipient(peer, user, sender.rpartition("@")[2])
        if not verdict.accepted or user or trusted or not self.rules.greylist_seconds:
            return verdict
        pair, now = f"{_neighbours(client)} {sender.lower()} {recipient}", int(self._env.clock.now())
        if await self._database.read(lambda tx: passing.passed(tx, pair, now)):
            return ACCEPT
        wait = await self._database.write(lambda tx: passing.greylisted(tx, pair, now, self.rules.greylist_seconds))
        if wait:
            return refuse(451, "4.7.1", f"not known here yet; try again in {wait} seconds", "greylist")
        return ACCEPT

    async def content(self, client: str, hello: str, sender: str, content: bytes) -> Examined | None:
        """None: the client is not examined."""
        if not self.rules.examine or self._passes(client):
            return None
        return await self._examiner.examine(client, hello, sender, content, self._env.clock.now())

    # -- POP before SMTP

    async def note_login(self, client: str, address: str, *, encrypted: bool) -> None:
        """After a login by POP3 or IMAP over TLS the client's address may send for a while."""
        if self.rules.pop_seconds and encrypted and is_address(client):
            until = int(self._env.clock.now()) + self.rules.pop_seconds
            with suppress(StoreUnavailable):  # a note is no reason to refuse who proved himself
                await self._database.write(lambda tx: passing.note_login(tx, client, address, until))

    async def logged_in(self, client: str) -> str:
        """The user behind an address, by POP before SMTP; empty: nobody, or it is off."""
        if not self.rules.pop_seconds or not is_address(client):
            return ""
        now = int(self._env.clock.now())
        return await self._database.read(lambda tx: passing.logged_in(tx, client, now))


def _neighbours(client: str) -> str:
    """Greylisting sees an IPv4 /24 and an IPv6 /64 as one: big sites try again from another machine."""
    network = network_of(f"{client}:0")
    return network.rpartition(".")[0] if network.count(".") == 3 else network

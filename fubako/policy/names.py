"""`Names`: the name of a client by DNS, believed only when it leads back to the address."""

import asyncio
import ipaddress
from collections import OrderedDict
from collections.abc import Callable

from fubako.net.interface import DnsFailure, NoSuchName, Resolver

ASK_SECONDS = 5.0
REMEMBERED_SECONDS = 300.0
REMEMBERED_MAX = 10_000
NAMES_MAX = 5


class Names:
    def __init__(self, resolver: Resolver, monotonic: Callable[[], float]) -> None:
        self._resolver, self._monotonic = resolver, monotonic
        self._known: OrderedDict[str, tuple[float, str]] = OrderedDict()

    async def of(self, client: str) -> str:
        """Empty where there is none that can be believed, or DNS does not answer in time."""
        now = self._monotonic()
        known = self._known.get(client)
        if known is not None and known[0] > now:
            return known[1]
        try:
            async with asyncio.timeout(ASK_SECONDS):
                found = await self._look_up(client)
        except (NoSuchName, DnsFailure, TimeoutError):
            found = ""
        self._known[client] = now + REMEMBERED_SECONDS, found
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
        return found

    async def _look_up(self, client: str) -> str:
        address = ipaddress.ip_address(client)
        for name in (await self._resolver.names(client)).records[:NAMES_MAX]:
            addresses = (await self._resolver.addresses(name)).records
            if any(ipaddress.ip_address(one) == address for one in addresses):
                return name
        return ""

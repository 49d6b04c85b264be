"""`Recipients`: who a recipient's address stands for; found answers are remembered for a moment.

A stream of letters asks for the same few addresses thousands of times. A mailbox that was not found is not remembered, so that
a new user is known at once; one that is gone is noticed at the commit, which finds no mailbox.
"""

from msgspec import Struct

from fubako.accounts import directory
from fubako.accounts.aliases import ListUnreadable, read_list
from fubako.clock import Clock
from fubako.message.address import Address
from fubako.message.target import Elsewhere
from fubako.store.interface import Database, Transaction

REMEMBERED_SECONDS = 1.0
REMEMBERED_MAX = 10_000


class Found(Struct, frozen=True):
    """What an address stands for. `local`: its domain is ours (or it names none). `elsewhere`: where an alias leads out; with
    `bare` under the sender's own address, because it is a report on its way back. `later`: why it is not known now."""

    local: bool
    account_ids: tuple[int, ...]
    elsewhere: tuple[Elsewhere, ...] = ()
    bare: bool = False
    later: str = ""

    @property
    def known(self) -> bool:
        return bool(self.account_ids or self.elsewhere)


class Recipients:
    """Asks the directory."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._known: dict[Address, tuple[float, Found]] = {}

    async def find(self, address: Address) -> Found:
        now = self._clock.monotonic()
        known = self._known.get(address)
        if known is not None and known[0] > now:
            return known[1]

        def unit(tx: Transaction) -> Found:
            try:
                resolved = directory.resolve_all(tx, address, read_list)
            except ListUnreadable as error:
                return Found(True, (), later=str(error))
            local = bool(resolved.account_ids) or not address.domain or directory.is_local(tx, address.domain)
            return Found(local, tuple(resolved.account_ids), tuple(resolved.elsewhere))

        found = await self._database.read(unit)
        if found.known or not found.local:
            if len(self._known) >= REMEMBERED_MAX:
                self._known.clear()
            self._known[address] = (now + REMEMBERED_SECONDS, found)
        return found

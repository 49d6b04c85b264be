"""`StorePlace`: fetched letters into a store of Fubako on this machine, without a server between."""

import asyncio
from collections.abc import Sequence, Set
from pathlib import Path

from fubako import app
from fubako.admin.inject import Injected, Injector
from fubako.cli.compat import injector
from fubako.cli.configured import load_found
from fubako.client.connection import ClientError
from fubako.client.places import Addressed, Fetched
from fubako.client.settings import Account
from fubako.clock import Env
from fubako.message.address import NULL, parse_address
from fubako.message.envelope import Recipient, Sender
from fubako.message.hop import Hop


class StorePlace:
    """A store of Fubako on this machine: letters come in as those of any program here do, at least once."""

    def __init__(self, account: Account) -> None:
        self._config = Path(account.deliver.partition(":")[2]).expanduser()
        self._addressed = Addressed(account.recipient or account.user, account.envelope, account.multidrop)
        self._store: app.Store | None = None
        self._injector: Injector | None = None

    async def begin(self, remembered: Set[str]) -> None:
        """What was taken, is in the store."""

    async def put(self, letters: Sequence[Fetched]) -> None:
        if self._injector is None:
            config, base = await asyncio.to_thread(load_found, self._config)
            app.require_own(base / config.directory)  # what is remembered of a mailbox elsewhere is the caller's
            self._store = app.open_store(base / config.directory)
            self._injector = injector(self._store, config, base, Env())
        for letter in letters:
            people = self._addressed.of(letter.content)
            done = await self._inject(letter, people)
            # it is not lost, and those who have it get it once
            if done.refused and self._addressed.recipient not in people:
                done = await self._inject(letter, [self._addressed.recipient])
            if done.refused and done.accepted is None:
                raise ClientError(f"{self._config}: {done.refused[0][0]}: {done.refused[0][1]}")
            if done.accepted is None or not done.accepted.ok:
                raise ClientError(f"{self._config}: {done.accepted}")

    async def _inject(self, letter: Fetched, people: Sequence[str]) -> Injected:
        assert self._injector is not None
        recipients = [Recipient(parse_address(one)) for one in people]
        sender = Sender(NULL, size=len(letter.content))
        came = letter.hop or Hop("local", "in", "a mailbox elsewhere", Env().clock.now(), True)
        return await self._injector.inject("fetch", sender, recipients, letter.content, came)

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()

"""Whose job is next: somebody who waits goes before work that nobody waits for, and accounts take turns."""

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass

from fubako.scan.jobs import Failure, JobFailed
from fubako.scan.limits import ScanLimits


@dataclass(frozen=True, slots=True)
class Asker:
    """For whom a job is done; account 0: for strangers, or nobody in particular. `waiting`: somebody waits for the answer."""

    account_id: int = 0
    waiting: bool = True


class Turns:
    """Places are taken and given back; background work never takes the last one, where there is more than one."""

    def __init__(self, limits: ScanLimits) -> None:
        self._limits = limits
        self._free = limits.processes
        self._background = max(1, limits.processes - 1)
        self._lines: dict[bool, OrderedDict[int, deque[asyncio.Future[None]]]] = {
            True: OrderedDict(),
            False: OrderedDict(),
        }
        self._waiting = 0

    async def take(self, asker: Asker) -> None:
        """Raises JobFailed (BUSY)."""
        if self._may(asker.waiting):
            self._enter(asker.waiting)
            return
        line = self._lines[asker.waiting].setdefault(asker.account_id, deque())
        if self._waiting >= self._limits.waiting_max or len(line) >= self._limits.waiting_per_account:
            raise JobFailed(Failure.BUSY, "too many jobs wait")
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(mine)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._limits.wait_seconds):
                await mine
        except TimeoutError:
            raise JobFailed(Failure.BUSY, f"no turn within {self._limits.wait_seconds:.0f} s") from None
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():  # the turn came, and nobody takes it
                self.give_back(asker)
            raise
        finally:
            if not mine.done() or mine.cancelled():
                self._forget(asker, mine)

    def _may(self, waiting: bool) -> bool:
        return self._free > 0 and (waiting or self._background > 0)

    def _enter(self, waiting: bool) -> None:
        self._free -= 1
        self._background -= not waiting

    def _forget(self, asker: Asker, mine: asyncio.Future[None]) -> None:
        line = self._lines[asker.waiting].get(asker.account_id)
        if line is not None and mine in line:
            line.remove(mine)
            self._waiting -= 1
            if not line:
                del self._lines[asker.waiting][asker.account_id]

    def give_back(self, asker: Asker) -> None:
        self._free += 1
        self._background += not asker.waiting
        for waiting in (True, False):
            while self._may(waiting) and (mine := self._next(waiting)) is not None:
                if not mine.done():
                    self._enter(waiting)
                    mine.set_result(None)

    def _next(self, waiting: bool) -> "asyncio.Future[None] | None":
        """The first of the account whose turn it is; its others go behind those of all other accounts."""
        accounts = self._lines[waiting]
        if not accounts:
            return None
        account_id, line = accounts.popitem(last=False)
        mine = line.popleft()
        self._waiting -= 1
        if line:
            accounts[account_id] = line
        return mine

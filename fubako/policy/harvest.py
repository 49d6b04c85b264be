"""`Harvest`: who tries out which addresses exist, by network, counted for all workers: slowed, then sent away.

Who has been sent away hears 421 before any recipient is looked up, so that the answer tells nothing.
"""

from fubako.clock import Env
from fubako.store.guesses import SharedCounts
from fubako.store.interface import Transaction

FREE_RECIPIENTS = 20  # old addresses in a list cost nothing
SLOW_SECONDS = 1.0  # each further one is answered so much later


class Harvest:
    """`cut`: unknown recipients within a quarter of an hour after which a network is sent away; 0: never."""

    def __init__(self, counts: SharedCounts, env: Env, cut: int) -> None:
        self._counts, self._env, self._cut = counts, env, cut

    async def count(self, network: str) -> int:
        """How many unknown recipients this network has named lately."""
        subject = f"recipients {network}"

        def ask(_tx: Transaction) -> tuple[list[str], None]:
            return [subject], None

        found, _ = await self._counts.look(ask)
        return found[subject].failures

    async def is_over(self, network: str) -> bool:
        return bool(self._cut) and await self.count(network) >= self._cut

    async def unknown(self, network: str) -> float:
        """One more; the seconds after which it is to be answered."""
        self._counts.add(f"recipients {network}", 1)
        return SLOW_SECONDS if self._cut and await self.count(network) > FREE_RECIPIENTS else 0.0

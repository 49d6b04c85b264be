"""`Chain`: several backends in order, each for its domains, each with a time limit. The first that holds ends the search.

One that is slow or dead makes a login a temporary failure, never a refusal; while it is dead nobody waits for it.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fubako.accounts.backends.interface import Backend, BackendDown, Verdict
from fubako.telemetry import Telemetry, visible

AT_ONCE_MAX = 16  # questions to one backend
WAITING_MAX = 200
REST_SECONDS = 10.0  # for which one that did not answer in time is left alone


@dataclass(slots=True)
class Checker:
    """A backend, what it is asked about, and how patiently. `local`: it knows users by the part before the @. `create`: whoever it
    knows gets a mailbox at his first login."""

    backend: Backend
    domains: frozenset[str] = frozenset()  # empty: all
    seconds: float = 5.0
    local: bool = False
    create: bool = False
    rests_until: float = 0.0
    waiting: int = 0
    turns: asyncio.Semaphore | None = None


class Chain:
    def __init__(self, checkers: Sequence[Checker], monotonic: Callable[[], float], telemetry: Telemetry) -> None:
        self._checkers = checkers
        self._monotonic = monotonic
        self._telemetry = telemetry

    def __bool__(self) -> bool:
        return bool(self._checkers)

    async def check(self, address: str, password: str) -> Checker | None:
        """The first that says the password holds. Raises BackendDown when none did and one could not tell."""
        domain = address.rpartition("@")[2]
        down = ""
        for one in self._checkers:
            if one.domains and domain not in one.domains:
                continue
            try:
                if await self._ask(one, address.rpartition("@")[0] if one.local else address, password) is Verdict.HELD:
                    return one
            except BackendDown as error:
                down = f"{one.backend.name}: {error}"
                self._telemetry.event("backend.down", backend=one.backend.name, reason=visible(str(error)[:300]))
        if down:
            raise BackendDown(down)
        return None

    async def _ask(self, one: Checker, user: str, password: str) -> Verdict:
        self._unless_resting(one)
        if one.waiting >= WAITING_MAX:
            raise BackendDown("too many logins wait for it")
        one.turns = one.turns or asyncio.Semaphore(AT_ONCE_MAX)
        one.waiting += 1
        try:
            async with asyncio.timeout(one.seconds):
                async with one.turns:
                    self._unless_resting(one)  # while we waited for our turn, it may have been found dead
                    return await one.backend.check(user, password)
        except TimeoutError:
            one.rests_until = self._monotonic() + REST_SECONDS
            raise BackendDown(f"no answer in {one.seconds:g} seconds") from None
        except OSError as error:
            raise BackendDown(str(error.strerror or error)) from None
        except RuntimeError:  # its threads ended with the configuration before
            raise BackendDown("the configuration has just changed") from None
        finally:
            one.waiting -= 1

    def _unless_resting(self, one: Checker) -> None:
        if self._monotonic() < one.rests_until:
            raise BackendDown("it did not answer a moment ago")

    async def close(self) -> None:
        for one in self._checkers:
            await one.backend.close()

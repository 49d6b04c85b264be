"""`Chain`: several backends in order, each for its domains, each with a time limit. The first that holds ends the search.

One that is slow or dead makes a login a temporary failure, never a refusal; while it is dead nobody waits for it.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fubako.accounts.backends.interface import Backend, BackendDown, Conditional, Verdict
from fubako.telemetry import Telemetry, visible

AT_ONCE_MAX = 16  # questions to one backend
WAITING_MAX = 200
REST_SECONDS = 10.0  # for which one that did not answer in time is left alone


@dataclass(slots=True)
class Checker:
    """A backend, what it is asked about, and how patiently. `local`: it knows users by the part before the @. `create`: whoever it
    knows gets a mailbox at his first login."""

    backend: Backend
    domains: frozenset[str] = (
        frozenset()
    )  # empty: all; where it knows users by the local part alone, the only domain that there is
    seconds: float = 5.0
    local: bool = False
    create: bool = False
    rests_until: float = 0.0
    waiting: int = 0
    turns: asyncio.Semaphore | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Whether a password is that of an address. `only_domain`: the only one that is kept here; empty when there are several."""

    address: str
    password: str = field(repr=False)
    network: str = ""
    only_domain: str = ""


class Chain:
    def __init__(self, checkers: Sequence[Checker], monotonic: Callable[[], float], telemetry: Telemetry) -> None:
        self._checkers = checkers
        self._monotonic = monotonic
        self._telemetry = telemetry

    def __bool__(self) -> bool:
        return bool(self._checkers)

    def unnamed(self) -> str:
        """The first that knows users by the part before the @ and names no domain; it can only serve where there is one."""
        return next((one.backend.name for one in self._checkers if one.local and not one.domains), "")

    async def check(self, question: Question) -> Checker | None:
        """The first that says the password holds. Raises BackendDown when none did and one could not tell."""
        local, _, domain = question.address.rpartition("@")
        down = ""
        for one in self._checkers:
            # a name without its domain says nothing about other domains than the one it is for
            if domain not in (one.domains or ((question.only_domain,) if one.local else (domain,))):
                continue
            user = local if one.local else question.address
            try:
                if await self._ask(one, user, question.password) is Verdict.HELD:
                    return None if self._barred(one, user, question.network) else one
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

    def _barred(self, one: Checker, user: str, network: str) -> bool:
        """Whether the backend's own conditions keep somebody out whose password holds; then nobody else is asked."""
        why = one.backend.bars(user, network) if isinstance(one.backend, Conditional) else ""
        if why:
            self._telemetry.event(
                "login.barred", backend=one.backend.name, user=visible(user[:300]), reason=visible(why[:300])
            )
        return bool(why)

    def _unless_resting(self, one: Checker) -> None:
        if self._monotonic() < one.rests_until:
            raise BackendDown("it did not answer a moment ago")

    async def close(self) -> None:
        for one in self._checkers:
            await one.backend.close()

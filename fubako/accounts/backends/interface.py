"""`Backend`: somebody who can tell whether a password is that of a user."""

from enum import Enum
from typing import Protocol, runtime_checkable


class Verdict(Enum):
    HELD = "held"
    WRONG = "wrong"
    UNKNOWN = "unknown"  # no such user there


class BackendDown(Exception):
    """It cannot tell now; trying later may help. The message is for the administrator."""


class Backend(Protocol):
    """`user` is the name as this backend knows it. A password is never empty when it is asked."""

    name: str

    async def check(self, user: str, password: str) -> Verdict:
        """Raises BackendDown. May take as long as it likes: whoever asks stops waiting, and then the question is cancelled."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Conditional(Protocol):
    """A backend that keeps conditions on its users."""

    def bars(self, user: str, network: str) -> str:
        """Why somebody whose password holds may not come in from there; empty: he may."""
        ...


class Fake:
    """A backend in memory, for tests and for a look at what it takes to be one."""

    def __init__(self, users: dict[str, str], *, name: str = "fake") -> None:
        self.name = name
        self.users = users
        self.down = ""
        self.asked = 0

    async def check(self, user: str, password: str) -> Verdict:
        self.asked += 1
        if self.down:
            raise BackendDown(self.down)
        known = self.users.get(user)
        if known is None:
            return Verdict.UNKNOWN
        return Verdict.HELD if known == password else Verdict.WRONG

    async def close(self) -> None:
        """There is nothing to close."""

"""What a session owes its peer: an answer, from the moment on at which what was asked for can no longer be taken back.

Invariant: who is owed an answer is not left without one because the server ends or an account changes. Whoever commits for a
session says so by `OWED`; whoever wants to end the session looks first.
"""

from contextvars import ContextVar


class Owed:
    """Of one conversation. `begun`: something is being committed, or was, and nothing has been asked of the peer since."""

    __slots__ = ("begun",)

    def __init__(self) -> None:
        self.begun = False


OWED: ContextVar[Owed | None] = ContextVar("OWED", default=None)

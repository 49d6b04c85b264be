"""`Pace`: how long a peer may take for what it has begun, and how much of the loop it gets before
others have their turn.

Invariant: octets move a deadline by as much as the least rate says and no more, so that nobody holds
a connection by dripping.
"""

from dataclasses import dataclass

from fubako.protocol.engine import Unfinished

EVENTS_A_TURN = 32  # commands, or pieces of content
PIECES_A_TURN = 256  # of a long reply
TURN_SECONDS = 0.002
SEND_OCTETS = 64 * 1024  # of output, before it is awaited that the peer takes it


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds and octets a second."""

    command_seconds: float = 60.0  # from a command's first octet to its last
    content_seconds: float = 120.0  # the same for content, and one more for each `rate` octets of it
    rate: float = 1000.0
    taking_seconds: float = 120.0  # in which a peer takes what was sent, at most SEND_OCTETS and what its kernel holds

    def allowed(self, unfinished: Unfinished, octets: int) -> float:
        """Seconds for which we wait in all for what the peer has begun; so many octets of it came."""
        content = unfinished is Unfinished.CONTENT
        return (self.content_seconds if content else self.command_seconds) + octets / self.rate

"""What every engine is, and the two ways in which a peer can break a protocol."""

from enum import Enum, auto
from typing import Protocol, TypeVar

E_co = TypeVar("E_co", covariant=True)


class ProtocolError(Exception):
    """The peer broke the protocol beyond repair. `farewell` is what may still be said before the connection ends."""

    def __init__(self, reason: str, farewell: bytes = b"") -> None:
        super().__init__(reason)
        self.farewell = farewell


class Unfinished(Enum):
    """What a peer has begun and not ended."""

    NOTHING = auto()  # it is between two commands, and may be silent
    COMMAND = auto()
    CONTENT = auto()  # octets of a message, or whatever else was counted or is ended by a sign


class Engine(Protocol[E_co]):
    """One side of one connection; `E_co` is its type of event.

    `receive` takes bytes from the peer and never blocks. `next_event` gives the next event or None when more bytes are
    needed; it raises ProtocolError. `output` hands over, once, the bytes to send. `tls_started` forgets all that was said
    in the clear (RFC 3207 §4.2) and must be called when a handshake has ended. `pending` tells whether bytes are waiting
    that no event has used: behind a STARTTLS that is an attack (CVE-2011-0411). `unfinished` tells in
    the midst of what more bytes are needed, once `next_event` gave None.
    """

    @property
    def pending(self) -> bool: ...
    @property
    def unfinished(self) -> Unfinished: ...
    def receive(self, octets: bytes) -> None: ...
    def next_event(self) -> E_co | None: ...
    def output(self) -> bytes: ...
    def tls_started(self) -> None: ...

"""What both processes say: frames on one Unix stream, each the number of a connection, a length, and one struct in msgpack.

Number 0 is the process itself. Descriptors go one way, from the owner to the front, in the order of the structs that take one.
Invariant: neither side keeps more of a frame than FRAME_OCTETS_MAX, nor more content than
WINDOW_OCTETS that the owner has not taken.
"""

import struct
from collections.abc import Iterator
from enum import Enum

import msgspec
from msgspec import Struct

from fubako.message.status import Status
from fubako.protocol.smtp import SmtpLimits
from fubako.protocol.smtp_events import Event

HEAD = struct.Struct("<II")
FRAME_OCTETS_MAX = 512 * 1024
WINDOW_OCTETS = 512 * 1024  # of content, of one connection
EVENTS_MAX = 6  # of one connection that its owner has not taken; each but those that are foreseen awaits a reply
PIECES_MAX = 16 * 1024  # of content, likewise: a slow peer sends small ones
READ_OCTETS = 256 * 1024
DESCRIPTORS_MAX = 64  # that leave together; the kernel takes 253
ITSELF = 0


class FrameError(Exception):
    """The other side broke the rules of the channel: nothing that it says is believed any more."""


# -- to the front


class Settings(Struct, frozen=True, kw_only=True, tag=True):
    """For connections to come. Seconds and octets a second, as in `net.pace.Pace`."""

    smtp: SmtpLimits
    command_seconds: float
    content_seconds: float
    rate: float
    taking_seconds: float


class Open(Struct, frozen=True, tag=True):
    """A new connection; its descriptor comes beside this."""


class Foresee(Struct, frozen=True, tag=True):
    """Behind the greeting: the peer may be heard. To these verbs the front replies by itself, once each; the owner hears of
    the event later and says nothing."""

    replies: dict[str, Status]


class Reply(Struct, frozen=True, tag=True):
    """To the last event."""

    status: Status


class Say(Struct, frozen=True, tag=True):
    """A reply that moves nothing."""

    status: Status


class Words(Struct, frozen=True, tag=True):
    """Octets to be sent as they are."""

    octets: bytes


class Lenient(Struct, frozen=True, tag=True):
    on: bool


class Taken(Struct, frozen=True, tag=True):
    """So much content more may come."""

    octets: int


class Release(Struct, frozen=True, tag=True):
    """Send what is said and let go of the descriptor: TLS begins. Released follows."""


class Resume(Struct, frozen=True, tag=True):
    """Go on with the descriptor that comes beside this, in the state of a new connection."""


class Close(Struct, frozen=True, tag=True):
    """Send what is said, and end."""


ToFront = Settings | Open | Foresee | Reply | Say | Words | Lenient | Taken | Release | Resume | Close


# -- to the owner


class Ready(Struct, frozen=True, tag=True):
    """The first word: who it is, and what the kernel holds (see fubako.confine.Report)."""

    pid: int
    held: tuple[str, ...]
    missing: tuple[str, ...]
    landlock: int


class Ending(Enum):
    GONE = "gone"  # the peer ended the connection
    LATE = "late"  # it was too slow with what it had begun, or did not take what was said
    BROKEN = "broken"  # it broke the protocol
    BUG = "bug"  # the front failed


class Ended(Struct, frozen=True, tag=True):
    """No event will come any more. `farewell`: what may still be said to the peer."""

    ending: Ending
    reason: str = ""
    farewell: bytes = b""


class Released(Struct, frozen=True, tag=True):
    pass


ToOwner = Event | Ready | Ended | Released

_encoder = msgspec.msgpack.Encoder()
_to_front: msgspec.msgpack.Decoder[ToFront] = msgspec.msgpack.Decoder(ToFront)
_to_owner: msgspec.msgpack.Decoder[ToOwner] = msgspec.msgpack.Decoder(ToOwner)


def frame(number: int, said: Struct) -> bytes:
    octets = _encoder.encode(said)
    return HEAD.pack(number, len(octets)) + octets


def to_front(octets: bytes | memoryview) -> ToFront:
    """Raises FrameError."""
    try:
        return _to_front.decode(octets)
    except (msgspec.MsgspecError, ValueError) as error:
        raise FrameError(str(error)) from None


def to_owner(octets: bytes | memoryview) -> ToOwner:
    """Raises FrameError."""
    try:
        return _to_owner.decode(octets)
    except (msgspec.MsgspecError, ValueError) as error:
        raise FrameError(str(error)) from None


class Cutter:
    """Cuts what comes on the channel into (number, payload)."""

    __slots__ = ("_octets_max", "_rest")

    def __init__(self, octets_max: int = FRAME_OCTETS_MAX) -> None:
        self._octets_max = octets_max
        self._rest = b""

    def feed(self, octets: bytes) -> Iterator[tuple[int, memoryview]]:
        """Raises FrameError."""
        data = self._rest + octets if self._rest else octets
        view, place, size = memoryview(data), 0, len(data)
        while size - place >= HEAD.size:
            number, length = HEAD.unpack_from(data, place)
            if length > self._octets_max:
                raise FrameError("a frame is too long")
            end = place + HEAD.size + length
            if end > size:
                break
            yield number, view[place + HEAD.size : end]
            place = end
        self._rest = data[place:]

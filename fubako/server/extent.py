"""`Extent`: octets of a reply that are read while they are said, a piece at a time: a message of any size
costs a session no more than a piece."""

from dataclasses import dataclass
from typing import Protocol

from fubako.message.octets import NUL_SHOWN_AS
from fubako.net.line import AnyLine
from fubako.net.pace import SEND_OCTETS
from fubako.store.interface import BlobRef, Blobs
from fubako.store.spool import Spooled


class Extent(Protocol):
    """`read` gives at most `length` octets from `start` on, and raises StoreError."""

    @property
    def size(self) -> int: ...
    async def read(self, start: int, length: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Held:
    """A few octets that are there already."""

    octets: bytes

    @property
    def size(self) -> int:
        return len(self.octets)

    async def read(self, start: int, length: int) -> bytes:
        return self.octets[start : start + length]


NOTHING = Held(b"")
PROVED_OCTETS = 128 * 1024  # together


async def prove(blobs: Blobs, ref: BlobRef) -> None:
    """Read a content that is to be announced, all of it: what fails must fail before. Raises StoreError."""
    for start in range(0, max(ref.size, 1), PROVED_OCTETS):
        await blobs.read(ref, start, PROVED_OCTETS)


@dataclass(frozen=True, slots=True)
class Kept:
    """What was made of a content and spooled."""

    spooled: Spooled

    @property
    def size(self) -> int:
        return self.spooled.size

    async def read(self, start: int, length: int) -> bytes:
        return self.spooled.read(start, length)


@dataclass(frozen=True, slots=True)
class Stored:
    """Octets [start, end) of a blob."""

    blobs: Blobs
    ref: BlobRef
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start

    async def read(self, start: int, length: int) -> bytes:
        return await self.blobs.read(self.ref, self.start + start, max(0, min(length, self.size - start)))


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of another one; what goes past its end is not there."""

    whole: Extent
    start: int
    length: int

    @property
    def size(self) -> int:
        return max(0, min(self.length, self.whole.size - self.start))

    async def read(self, start: int, length: int) -> bytes:
        return await self.whole.read(self.start + start, max(0, min(length, self.size - start)))


@dataclass(frozen=True, slots=True)
class WithoutNul:
    """Another one as a literal can hold it (RFC 9051 §4.3): an older store keeps some NULs."""

    whole: Extent

    @property
    def size(self) -> int:
        return self.whole.size

    async def read(self, start: int, length: int) -> bytes:
        return (await self.whole.read(start, length)).replace(b"\0", NUL_SHOWN_AS)


class Reply:
    """A reply of text and extents, on its way: it leaves in pieces of about SEND_OCTETS."""

    def __init__(self, line: AnyLine) -> None:
        self._line = line
        self._parts: list[bytes] = []
        self._octets = 0

    async def say(self, octets: bytes) -> None:
        self._parts.append(octets)
        self._octets += len(octets)
        if self._octets >= SEND_OCTETS:
            await self.end()

    async def say_extent(self, extent: Extent) -> None:
        """Raises StoreError."""
        size = extent.size
        for start in range(0, size, SEND_OCTETS):
            await self.say(await extent.read(start, min(SEND_OCTETS, size - start)))

    async def end(self) -> None:
        parts, self._parts, self._octets = self._parts, [], 0
        await self._line.send(b"".join(parts))

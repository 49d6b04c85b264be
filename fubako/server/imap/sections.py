"""BODY[…] and BINARY[…]: the octets of a section of a message (RFC 9051 §6.4.5, RFC 3516)."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable

from fubako.message import headers, mime, transfer
from fubako.message.mime import Part
from fubako.protocol.imap.types import Section
from fubako.server.extent import Extent, Held, Kept, Stored, prove
from fubako.server.imap.outcome import No
from fubako.store.interface import BlobRef, Blobs
from fubako.store.spool import Spool, Spooled

HEADER_OCTETS_MAX = 512 * 1024  # in which single fields are looked for
HELD_OCTETS_MAX = 256 * 1024
DECODED_OCTETS = 64 * 1024  # of a part that are decoded between two turns
TREES_MAX = 16  # of messages that were read last, kept for a session
TREE_PARTS_MAX = 200  # larger ones are read again


class Trees:
    """The structure of the messages that a session read last: who fetches part by part has it scanned once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Part] = OrderedDict()

    def get(self, blob_id: int) -> Part | None:
        found = self._kept.get(blob_id)
        if found is not None:
            self._kept.move_to_end(blob_id)
        return found

    def keep(self, blob_id: int, root: Part) -> None:
        if _parts(root) <= TREE_PARTS_MAX:
            self._kept[blob_id] = root
            if len(self._kept) > TREES_MAX:
                self._kept.popitem(last=False)


def _parts(part: Part) -> int:
    return 1 + sum(map(_parts, part.children))


class Content:
    """One message during one FETCH: read and scanned only as far as its sections ask.

    The whole is in memory only while it is scanned, which nothing interrupts; what is decoded is
    decoded a piece at a time, and others have their `turn` between any two.
    """

    def __init__(
        self,
        blobs: Blobs,
        ref: BlobRef,
        header_size: int,
        spool: Spool,
        *,
        trees: Trees,
        turn: Callable[[], Awaitable[None]],
    ) -> None:
        self._blobs = blobs
        self._ref = ref
        self._header_size = header_size
        self._spool = spool
        self._trees, self._turn = trees, turn
        self._room = HELD_OCTETS_MAX
        self._decoded: dict[tuple[int, ...], tuple[Extent, bool]] = {}  # parts, however often they are asked for

    async def prove(self) -> None:
        """Raises StoreError where the content is damaged, or not there any more."""
        await prove(self._blobs, self._ref)

    def _kept(self, octets: bytes) -> Extent:
        """What was made of the content, until it is said: little of it in memory. Raises StoreFull."""
        self._room -= len(octets)
        if self._room >= 0:
            return Held(octets)
        kept = self._spool.begin(held_octets=0)
        kept.append(octets)
        return Kept(kept)

    async def root(self) -> Part:
        """Raises StoreError."""
        known = self._trees.get(self._ref.blob_id)
        if known is None:
            known = mime.scan(await self._blobs.read(self._ref))
            self._trees.keep(self._ref.blob_id, known)
        return known

    def _stored(self, start: int, end: int) -> Stored:
        return Stored(self._blobs, self._ref, start, end)

    async def extent(self, section: Section) -> Extent | None:
        """The section before any partial is cut out of it; None where the message has no such part."""
        if not section.parts:
            return await self._outer(section)
        part = find_part(await self.root(), section.parts)
        if part is None:
            return None
        if section.text == "MIME":
            return self._stored(part.start, part.body)
        if not section.text:
            return self._stored(part.body, part.end)
        if not part.message:
            return None
        inner = part.children[0]
        if section.text == "TEXT":
            return self._stored(inner.body, inner.end)
        return await self._header_section(self._stored(inner.start, inner.body), section)

    async def _outer(self, section: Section) -> Extent:
        if not section.text:
            return self._stored(0, self._ref.size)
        if section.text == "TEXT":
            return self._stored(self._header_size, self._ref.size)
        return await self._header_section(self._stored(0, self._header_size), section)

    async def binary(self, section: Section) -> tuple[Extent | None, bool]:
        """A part without its transfer encoding, and whether a NUL is in it. Raises StoreFull."""
        if not section.parts:
            return await self._searched(self._stored(0, self._ref.size))
        if section.parts in self._decoded:
            return self._decoded[section.parts]
        part = find_part(await self.root(), section.parts)
        if part is None:
            return None, False
        stored = self._stored(part.body, part.end)
        if part.multipart:
            return await self._searched(stored)
        decoding = transfer.decoding(part.encoding)
        if decoding is None:
            raise No("[UNKNOWN-CTE] the part's transfer encoding is not known")
        if isinstance(decoding, transfer.Identity):
            found = await self._searched(stored)
        else:
            found = await self._decode(stored, decoding)
        self._decoded[section.parts] = found
        return found

    async def _decode(self, stored: Stored, decoding: transfer.Decoding) -> tuple[Extent, bool]:
        kept, nul = self._spool.begin(held_octets=max(0, self._room)), False
        for start in range(0, stored.size, DECODED_OCTETS):
            nul |= _append(kept, decoding.feed(await stored.read(start, DECODED_OCTETS)))
            await self._turn()
        nul |= _append(kept, decoding.end())
        self._room -= kept.size
        return Kept(kept), nul

    async def _header_section(self, header: Extent, section: Section) -> Extent:
        if section.text == "HEADER":
            return header
        names = frozenset(name.lower() for name in section.fields)
        octets = await header.read(0, HEADER_OCTETS_MAX)
        return self._kept(headers.subset(octets, names, without=section.text == "HEADER.FIELDS.NOT"))

    async def _searched(self, extent: Extent) -> tuple[Extent, bool]:
        for start in range(0, extent.size, DECODED_OCTETS):
            if b"\x00" in await extent.read(start, DECODED_OCTETS):
                return extent, True
            await self._turn()
        return extent, False


def _append(kept: Spooled, octets: bytes) -> bool:
    """Whether a NUL is in them."""
    kept.append(octets)
    return b"\x00" in octets


def find_part(root: Part, numbers: tuple[int, ...]) -> Part | None:
    """Part numbers as RFC 9051 §6.4.5.1 counts them: a message that is no multipart is its own part 1."""
    part, at_message = root, True
    for number in numbers:
        if part.message and not at_message:
            part, at_message = part.children[0], True
        if part.multipart:
            if number > len(part.children):
                return None
            part, at_message = part.children[number - 1], False
        elif at_message and number == 1:
            at_message = False
        else:
            return None
    return part

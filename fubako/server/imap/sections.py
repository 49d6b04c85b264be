"""BODY[…] and BINARY[…]: the octets of a section of a message (RFC 9051 §6.4.5, RFC 3516)."""

from fubako.message import headers, mime
from fubako.message.mime import Part
from fubako.message.words import decode_transfer
from fubako.net.pace import SEND_OCTETS
from fubako.protocol.imap.types import Section
from fubako.server.extent import Extent, Held, Stored
from fubako.server.imap.outcome import No
from fubako.store.interface import BlobRef, Blobs
from fubako.store.spool import Spool

HEADER_OCTETS_MAX = 512 * 1024  # in which single fields are looked for
HELD_OCTETS_MAX = 256 * 1024


class Content:
    """One message during one FETCH: read and scanned only as far as its sections ask.

    The whole is in memory only while it is scanned or decoded, which nothing interrupts: one message at
    a time in the process, whatever the sessions ask.
    """

    def __init__(self, blobs: Blobs, ref: BlobRef, header_size: int, spool: Spool) -> None:
        self._blobs = blobs
        self._ref = ref
        self._header_size = header_size
        self._spool = spool
        self._room = HELD_OCTETS_MAX
        self._root: Part | None = None
        self._decoded: dict[tuple[int, ...], tuple[Extent, bool]] = {}  # parts, however often they are asked for

    def prove(self) -> None:
        """Raises StoreError where the content is not there any more."""
        self._blobs.read_here(self._ref, max(0, self._ref.size - 1), 1)

    def _kept(self, octets: bytes) -> Extent:
        """What was made of the content, until it is said: little of it in memory. Raises StoreFull."""
        self._room -= len(octets)
        if self._room >= 0:
            return Held(octets)
        kept = self._spool.begin(held_octets=0)
        kept.append(octets)
        return kept

    @property
    def root(self) -> Part:
        if self._root is None:
            self._root = mime.scan(self._blobs.read_here(self._ref))
        return self._root

    def _stored(self, start: int, end: int) -> Stored:
        return Stored(self._blobs, self._ref, start, end)

    def extent(self, section: Section) -> Extent | None:
        """The section before any partial is cut out of it; None where the message has no such part."""
        if not section.parts:
            return self._outer(section)
        part = find_part(self.root, section.parts)
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
        return self._header_section(self._stored(inner.start, inner.body), section)

    def _outer(self, section: Section) -> Extent:
        if not section.text:
            return self._stored(0, self._ref.size)
        if section.text == "TEXT":
            return self._stored(self._header_size, self._ref.size)
        return self._header_section(self._stored(0, self._header_size), section)

    def binary(self, section: Section) -> tuple[Extent | None, bool]:
        """A part without its transfer encoding, and whether a NUL is in it. Raises StoreFull."""
        if not section.parts:
            return self._searched(self._stored(0, self._ref.size))
        if section.parts in self._decoded:
            return self._decoded[section.parts]
        part = find_part(self.root, section.parts)
        if part is None:
            return None, False
        stored = self._stored(part.body, part.end)
        if part.multipart:
            return self._searched(stored)
        decoded = decode_transfer(stored.read(0, stored.size), part.encoding)
        if decoded is None:
            raise No("[UNKNOWN-CTE] the part's transfer encoding is not known")
        self._decoded[section.parts] = self._kept(decoded), b"\x00" in decoded
        return self._decoded[section.parts]

    def _header_section(self, header: Extent, section: Section) -> Extent:
        if section.text == "HEADER":
            return header
        names = frozenset(name.lower() for name in section.fields)
        octets = header.read(0, HEADER_OCTETS_MAX)
        return self._kept(headers.subset(octets, names, without=section.text == "HEADER.FIELDS.NOT"))

    @staticmethod
    def _searched(extent: Extent) -> tuple[Extent, bool]:
        starts = range(0, extent.size, SEND_OCTETS)
        return extent, any(b"\x00" in extent.read(start, SEND_OCTETS) for start in starts)


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

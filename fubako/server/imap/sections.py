"""BODY[…] and BINARY[…]: the octets of a section of a message (RFC 9051 §6.4.5, RFC 3516)."""

from fubako.message import headers, mime
from fubako.message.mime import Part
from fubako.message.words import decode_transfer
from fubako.protocol.imap.types import Section
from fubako.server.imap.outcome import No
from fubako.store.interface import BlobRef, Blobs


class Content:
    """One message during one FETCH: read and scanned only as far as its sections ask."""

    def __init__(self, blobs: Blobs, ref: BlobRef, header_size: int) -> None:
        self._blobs = blobs
        self._ref = ref
        self._header_size = header_size
        self._whole: bytes | None = None
        self._root: Part | None = None

    @property
    def whole(self) -> bytes:
        if self._whole is None:
            self._whole = self._blobs.read(self._ref)
        return self._whole

    @property
    def root(self) -> Part:
        if self._root is None:
            self._root = mime.scan(self.whole)
        return self._root

    def header(self) -> bytes:
        if self._whole is not None:
            return self._whole[: self._header_size]
        return self._blobs.read(self._ref, 0, self._header_size)

    def octets(self, section: Section) -> bytes | None:
        """The section before any partial is cut out of it; None where the message has no such part."""
        if not section.parts:
            return self._outer(section)
        part = find_part(self.root, section.parts)
        if part is None:
            return None
        if section.text == "MIME":
            return self.whole[part.start : part.body]
        if not section.text:
            return self.whole[part.body : part.end]
        if not part.message:
            return None
        inner = part.children[0]
        if section.text == "TEXT":
            return self.whole[inner.body : inner.end]
        return _header_section(self.whole[inner.start : inner.body], section)

    def _outer(self, section: Section) -> bytes:
        if not section.text:
            if section.partial and self._whole is None:  # read no more than asked
                return self._blobs.read(self._ref, 0, min(self._ref.size, sum(section.partial)))
            return self.whole
        if section.text == "TEXT":
            return self._blobs.read(self._ref, self._header_size)
        return _header_section(self.header(), section)

    def binary(self, section: Section) -> bytes | None:
        """A part without its transfer encoding."""
        if not section.parts:
            return self.whole
        part = find_part(self.root, section.parts)
        if part is None:
            return None
        octets = self.whole[part.body : part.end]
        if part.multipart:
            return octets
        decoded = decode_transfer(octets, part.encoding)
        if decoded is None:
            raise No("[UNKNOWN-CTE] the part's transfer encoding is not known")
        return decoded


def _header_section(header: bytes, section: Section) -> bytes:
    if section.text == "HEADER":
        return header
    names = frozenset(name.lower() for name in section.fields)
    return headers.subset(header, names, without=section.text == "HEADER.FIELDS.NOT")


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

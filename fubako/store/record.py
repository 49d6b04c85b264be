"""Records of a segment: a header that says what the content is, checksums of its pieces, the content.

    mark "FBR2" | pieces: u32 | blob id: u64 | size: u64 | SHA-256 of the content: 32 octets | checksum of the header: u64
    checksum of each piece of 64 KiB: u64 …
    content

All numbers are big-endian; checksums are XXH3-64, the header's over all that stands before the content but itself. A record
proves its own identity: it is read only as the content that was asked for, never as what happens to lie in its place.
Format 1 (`FBR1`: mark, size: u64, CRC-32 of the content, CRC-32 of the header) named no content and is only read.
"""

import hashlib
import struct
import zlib
from collections.abc import Sequence

from msgspec import Struct
from xxhash import xxh3_64_intdigest

PIECE_OCTETS = 64 * 1024
MARK = b"FBR2"
_HEAD = struct.Struct(">4sIQQ32s")
_SUM = struct.Struct(">Q")
HEADER_OCTETS = _HEAD.size + _SUM.size
_HEAD_1 = struct.Struct(">4sQII")
HEADER_1_OCTETS = _HEAD_1.size
MARK_1 = b"FBR1"


class Header(Struct, frozen=True, kw_only=True):
    """What a record says of itself. `sums`: XXH3-64 of each piece. `digest`: SHA-256 of the content."""

    blob_id: int
    size: int
    digest: bytes
    sums: tuple[int, ...]


def pieces(size: int) -> int:
    """How many pieces a content of so many octets has."""
    return -(-size // PIECE_OCTETS)


def prelude(size: int) -> int:
    """Octets of a record before its content."""
    return HEADER_OCTETS + pieces(size) * _SUM.size


def occupied(size: int) -> int:
    """Octets of the whole record."""
    return prelude(size) + size


def encode(blob_id: int, chunks: Sequence[bytes]) -> bytes:
    """What stands before the content."""
    content = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    size = len(content)
    if size <= PIECE_OCTETS:
        sums = _SUM.pack(xxh3_64_intdigest(content)) if size else b""
    else:
        view = memoryview(content)
        sums = b"".join(
            _SUM.pack(xxh3_64_intdigest(view[start : start + PIECE_OCTETS])) for start in range(0, size, PIECE_OCTETS)
        )
    head = _HEAD.pack(MARK, pieces(size), blob_id, size, hashlib.sha256(content).digest())
    return b"".join([head, _SUM.pack(xxh3_64_intdigest(head + sums)), sums])


def decode(octets: bytes) -> Header | None:
    """The header at the beginning of `octets`, which hold `prelude` or more; None where there is none, or a damaged one."""
    if len(octets) < HEADER_OCTETS or octets[:4] != MARK:
        return None
    _mark, count, blob_id, size, digest = _HEAD.unpack_from(octets)
    end = HEADER_OCTETS + count * _SUM.size
    if count != pieces(size) or len(octets) < end:
        return None
    sums = octets[HEADER_OCTETS:end]
    if _SUM.unpack_from(octets, _HEAD.size)[0] != xxh3_64_intdigest(octets[: _HEAD.size] + sums):
        return None
    return Header(blob_id=blob_id, size=size, digest=digest, sums=struct.unpack(f">{count}Q", sums))


def announced(octets: bytes) -> int | None:
    """Octets that the prelude of a record would have, by the first HEADER_OCTETS; None: no record begins here."""
    if len(octets) < HEADER_OCTETS or octets[:4] != MARK:
        return None
    count, size = int(_HEAD.unpack_from(octets)[1]), int(_HEAD.unpack_from(octets)[3])
    return prelude(size) if count == pieces(size) else None


def damaged_piece(header: Header, first: int, octets: bytes) -> int | None:
    """The first piece that is not what was put, counted from 0; `octets` begin at the piece `first`."""
    view = memoryview(octets)
    for number, start in enumerate(range(0, len(octets), PIECE_OCTETS), first):
        if number >= len(header.sums) or xxh3_64_intdigest(view[start : start + PIECE_OCTETS]) != header.sums[number]:
            return number
    return None


def is_whole(header: Header, content: bytes) -> bool:
    """By the hash, which a damage cannot hit by chance."""
    return len(content) == header.size and hashlib.sha256(content).digest() == header.digest


def decode_1(octets: bytes) -> tuple[int, int] | None:
    """(size, CRC-32 of the content) of a record of format 1."""
    if len(octets) < HEADER_1_OCTETS:
        return None
    mark, size, checksum, own = _HEAD_1.unpack_from(octets)
    if mark != MARK_1 or zlib.crc32(octets[: HEADER_1_OCTETS - 4]) != own:
        return None
    return size, checksum

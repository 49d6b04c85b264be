"""A single file out of gzip or zip, as reports come (RFC 9990 §2.6, RFC 8460 §5.3): `unpacked(octets)`. Pure.

What an archive says of itself (sizes, counts) is not believed: what comes out is counted, and ends at a limit of octets and of
ratio. Nothing is written anywhere, so a member's name leads nowhere. A packed file in a packed file is not unpacked.
"""

import io
import zipfile
import zlib

OCTETS_MAX = 10 * 1024 * 1024
RATIO_MAX = 200  # XML of reports packs to a tenth or a twentieth
RATIO_FREE_OCTETS = 256 * 1024  # below that, a ratio says nothing
MEMBERS_MAX = 10
_ENTRY = b"PK\x01\x02"  # of the central directory
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_STEP = 64 * 1024


class ArchiveError(ValueError):
    """It cannot be unpacked; the message says why."""


def is_packed(octets: bytes) -> bool:
    return octets[:2] == b"\x1f\x8b" or octets[:2] == b"PK"


def unpacked(octets: bytes) -> bytes:
    """The file in it, or the octets themselves where they are not packed. Raises ArchiveError, and nothing else."""
    if octets[:2] == b"\x1f\x8b":
        plain = _gunzipped(octets)
    elif octets[:2] == b"PK":
        plain = _unzipped(octets)
    else:
        plain = octets
    if len(plain) > OCTETS_MAX:
        raise ArchiveError(f"it is larger than {OCTETS_MAX} octets")
    if plain is not octets and is_packed(plain):
        raise ArchiveError("it is packed more than once")
    return plain


def _allowed(packed: int) -> int:
    """How much may come out of so many octets."""
    return min(OCTETS_MAX, max(RATIO_FREE_OCTETS, packed * RATIO_MAX))


def _too_large(packed: int) -> str:
    return f"it is larger than {_allowed(packed)} octets, which is the most for {packed} packed ones"


def _gunzipped(octets: bytes) -> bytes:
    out, left = [], _allowed(len(octets))
    rest = octets
    for _ in range(MEMBERS_MAX):  # RFC 1952 §2.2: a file may have several members
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            plain = unpacker.decompress(rest, left + 1)
        except zlib.error as error:
            raise ArchiveError(f"it cannot be unpacked: {error}") from None
        if len(plain) > left:
            raise ArchiveError(_too_large(len(octets)))
        if not unpacker.eof:
            raise ArchiveError("it cannot be unpacked: it ends too early")
        out.append(plain)
        left -= len(plain)
        rest = unpacker.unused_data.lstrip(b"\0")
        if rest[:2] != b"\x1f\x8b":  # padding, or anything else behind it, is passed over
            return b"".join(out)
    raise ArchiveError(f"it has more than {MEMBERS_MAX} members")


def _unzipped(octets: bytes) -> bytes:
    if octets.count(_ENTRY) > MEMBERS_MAX:  # before the library makes an object of each
        raise ArchiveError(f"it has more than {MEMBERS_MAX} members")
    try:
        with zipfile.ZipFile(io.BytesIO(octets)) as archive:
            return _member(archive, octets)
    except ArchiveError:
        raise
    except (
        Exception
    ) as error:  # a damaged directory brings a dozen kinds out of the library, struct.error and LZMAError too
        raise ArchiveError(f"it cannot be unpacked: {str(error) or type(error).__name__}") from None


def _member(archive: zipfile.ZipFile, octets: bytes) -> bytes:
    members = [one for one in archive.infolist() if not one.is_dir()]
    if not members:
        raise ArchiveError("it is empty")
    first = members[0]
    if first.flag_bits & _ENCRYPTED:
        raise ArchiveError("it is encrypted")
    if first.compress_type not in _METHODS:
        raise ArchiveError("it is packed by a method that reports do not use")
    size = min(len(octets), first.compress_size)
    left = _allowed(size)
    out: list[bytes] = []
    with archive.open(first) as file:
        while part := file.read(_STEP):
            left -= len(part)
            if left < 0:
                raise ArchiveError(_too_large(size))
            out.append(part)
    return b"".join(out)

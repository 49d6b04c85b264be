"""`Decoding`: content without its transfer encoding (RFC 2045 §6), a piece at a time, in time and memory linear in the piece."""

import binascii
import quopri
import re

IDENTITY = frozenset({b"", b"7bit", b"8bit", b"binary"})
LINE_OCTETS_MAX = 1024 * 1024  # of quoted-printable without a line end that are decoded together
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_FOREIGN = bytes(set(range(256)) - set(_ALPHABET))
_TRAILING = re.compile(rb"(?<![ \t])[ \t]++(\r?\n|\Z)")  # put there on the way (RFC 2045 §6.7 rule 3)


class Identity:
    """7bit, 8bit and binary."""

    def feed(self, octets: bytes) -> bytes:
        return octets

    def end(self) -> bytes:
        return b""


class Base64:
    """As mail carries it: line ends and foreign characters are skipped, all ends at the padding, what is cut off at the end is
    dropped."""

    def __init__(self) -> None:
        self._held = b""  # fewer than four
        self._over = False

    def feed(self, octets: bytes) -> bytes:
        if self._over:
            return b""
        kept = self._held + octets.translate(None, _FOREIGN)
        pad = kept.find(b"=")
        while pad >= 0 and pad % 4 < 2:  # it completes nothing
            kept = kept[:pad] + kept[pad:].lstrip(b"=")
            pad = kept.find(b"=", pad)
        if pad >= 0:
            self._over, self._held = True, kept[:pad]
            return self.end()
        whole = len(kept) - len(kept) % 4
        self._held = kept[whole:]
        return binascii.a2b_base64(kept[:whole])

    def end(self) -> bytes:
        kept, self._held = self._held, b""
        kept = kept[:-1] if len(kept) % 4 == 1 else kept
        return binascii.a2b_base64(kept + b"=" * (-len(kept) % 4))


class QuotedPrintable:
    """Whole lines at a time; one without an end is decoded where nothing depends on what follows."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._octets = 0

    def feed(self, octets: bytes) -> bytes:
        end = octets.rfind(b"\n") + 1
        if not end and (self._octets + len(octets) < LINE_OCTETS_MAX or not octets.strip(b" \t")):
            self._hold(octets)
            return b""
        whole = b"".join([*self._held, octets])
        cut = len(whole) - len(octets) + end if end else _safe(whole)
        self._held, self._octets = [], 0
        self._hold(whole[cut:])
        return _quoted(whole[:cut])

    def _hold(self, octets: bytes) -> None:
        self._held.append(octets)
        self._octets += len(octets)

    def end(self) -> bytes:
        held, self._held, self._octets = b"".join(self._held), [], 0
        return _quoted(held)


def _safe(line: bytes) -> int:
    """Where a line may be parted: not inside of =XX, and not before blanks that may turn out to be trailing."""
    cut = len(line.rstrip(b" \t"))
    sign = line.rfind(b"=", max(0, cut - 2), cut)
    return sign if sign >= 0 else cut


def _quoted(octets: bytes) -> bytes:
    return quopri.decodestring(_TRAILING.sub(rb"\1", octets))


Decoding = Identity | Base64 | QuotedPrintable


def decoding(encoding: bytes) -> Decoding | None:
    """For the value of Content-Transfer-Encoding; None where it is not known."""
    name = encoding.lower().strip()
    if name in IDENTITY:
        return Identity()
    if name == b"base64":
        return Base64()
    return QuotedPrintable() if name == b"quoted-printable" else None


def decode(octets: bytes, encoding: bytes) -> bytes | None:
    """All of it at once; None where the encoding is not known."""
    made = decoding(encoding)
    if made is None:
        return None
    first = made.feed(octets)
    rest = made.end()
    return first + rest if rest else first

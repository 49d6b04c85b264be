"""A body in the canonical forms of DKIM and ARC (RFC 6376 §3.4.3, §3.4.4), hashed as it comes: linear, in memory of one slice."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence

Wanted = tuple[str, int | None]  # ("simple" or "relaxed", how many octets of the canonical form; None: all)

SLICE_OCTETS = 64 * 1024
_SPACES = re.compile(rb"[ \t]+")
_EMPTY_LINES_AT_ONCE = 32 * 1024


class CanonicalBody:
    """`size` is in octets of the canonical form, once it is finished. Slices may end anywhere."""

    def __init__(self, form: str, write: Callable[[bytes], None]) -> None:
        self._relaxed = form == "relaxed"
        self._write = write
        self._held = b""  # may be part of a line's end: " ", " \r" or "\r"
        self._empty_lines = 0  # that count only if something comes after them
        self._after_space = False
        self.size = 0

    def update(self, octets: bytes) -> None:
        if self._relaxed:
            octets = self._spaced(octets)
        octets = self._held + octets
        keep = 1 if octets.endswith((b"\r", b" ") if self._relaxed else b"\r") else 0
        if keep and self._relaxed and octets.endswith(b" \r"):
            keep = 2
        self._held = octets[len(octets) - keep :]
        octets = octets[: len(octets) - keep]
        self._put(octets.replace(b" \r\n", b"\r\n") if self._relaxed else octets)

    def _spaced(self, octets: bytes) -> bytes:
        octets = _SPACES.sub(b" ", octets)
        if self._after_space and octets[:1] == b" ":
            octets = octets[1:]
        if octets:
            self._after_space = octets[-1:] == b" "
        return octets

    def _put(self, octets: bytes) -> None:
        end = len(octets)
        while octets.endswith(b"\r\n", 0, end):
            end -= 2
        if end:
            self._empty()
            self._out(octets[:end])
        self._empty_lines += (len(octets) - end) // 2

    def _empty(self) -> None:
        while self._empty_lines:
            count = min(self._empty_lines, _EMPTY_LINES_AT_ONCE)
            self._out(b"\r\n" * count)
            self._empty_lines -= count

    def _out(self, octets: bytes) -> None:
        self.size += len(octets)
        self._write(octets)

    def finish(self) -> None:
        """Empty lines at the end count for nothing; a last line has its end."""
        self._put(self._held.removesuffix(b" ") if self._relaxed else self._held)
        if self.size or not self._relaxed:
            self._out(b"\r\n")


class _Digest:
    """SHA-256 of the first octets, or of all."""

    def __init__(self, length: int | None) -> None:
        self._hash, self._left = hashlib.sha256(), length

    def update(self, octets: bytes) -> None:
        if self._left is not None:
            octets = octets[: self._left]
            self._left -= len(octets)
        self._hash.update(octets)

    def digest(self) -> bytes:
        return self._hash.digest()


class BodyHashes:
    """All that the signatures of one message want to know of its body: a digest each, and the size of each form."""

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self._digests = {one: _Digest(one[1]) for one in wanted}
        self._bodies = {form: CanonicalBody(form, self._writer(form)) for form in {form for form, _ in wanted}}

    def _writer(self, form: str) -> Callable[[bytes], None]:
        digests = [one for (of, _), one in self._digests.items() if of == form]

        def write(octets: bytes) -> None:
            for one in digests:
                one.update(octets)

        return write

    def steps(self, body: bytes) -> Iterator[None]:
        """Hashes a slice at each step; who iterates may let others have their turn in between."""
        for start in range(0, len(body), SLICE_OCTETS):
            octets = body[start : start + SLICE_OCTETS]
            for one in self._bodies.values():
                one.update(octets)
            yield
        for one in self._bodies.values():
            one.finish()

    def digests(self) -> dict[Wanted, bytes]:
        return {one: digest.digest() for one, digest in self._digests.items()}

    def sizes(self) -> dict[str, int]:
        return {form: one.size for form, one in self._bodies.items()}


def body_hashes(body: bytes, wanted: Sequence[Wanted]) -> BodyHashes:
    made = BodyHashes(wanted)
    for _ in made.steps(body):
        pass
    return made

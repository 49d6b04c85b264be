"""`SegmentCore`: content in append-only files of 64 MiB, records as `store/record.py` has them. Without threads, without rows.

Invariant: what was acknowledged lies in a synced file whose name is synced. A file is appended to by the process that made it,
while it holds its lock, and by nobody afterwards; nothing is read as another content than the one that was asked for.
"""

import errno
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from msgspec import Struct

from fubako.store import record
from fubako.store.interface import BlobRef, Damaged, Disk, Gone, Handle, StoreError, StoreFull, StoreUnavailable

MAGIC = b"fubako-segment-2\n"
MAGIC_1 = b"fubako-segment-1\n"
SEGMENT_OCTETS_MAX = 64 * 1024 * 1024
RESERVE_OCTETS = 1024 * 1024  # zeros written ahead of a busy stream of messages: half the work of each sync
SEEK_OCTETS = 1024 * 1024  # a piece of a file in which the next record is looked for
_OPEN_MAX = 64
_PROVED_MAX = 16
_STEP_OCTETS = 256 * 1024
_COUNT_BITS = 24
_FRESH = 1 << 62  # ids of format 1 were places: below this


def segment_name(number: int) -> str:
    return f"{number:012x}.segment"


class Record(Struct, frozen=True, kw_only=True):
    """One record of a file. `whole`: its content is what was put. `blob_id`: None where its format names none."""

    blob_id: int | None
    place: int
    size: int
    whole: bool


class Open(Struct, frozen=True):
    """A file that is read. `first`: of format 1."""

    handle: Handle
    first: bool


class SegmentCore:
    """The files."""

    def __init__(self, disk: Disk, directory: str, *, segment_max: int = SEGMENT_OCTETS_MAX) -> None:
        self._disk = disk
        self._directory = directory
        self._segment_max = segment_max
        self._active: Handle | None = None
        self._number = self._count = 0
        self._end = 0  # of what was placed in the active one
        self._reserved = 0  # where the zeros written ahead end
        self._open: OrderedDict[int, Open] = OrderedDict()
        self._proved_1: dict[BlobRef, None] = {}
        self._opening = threading.Lock()  # threads read beside the loop

    def numbers(self) -> list[int]:
        names = self._disk.names(self._directory)
        return [int(name.partition(".")[0], 16) for name in names if name.endswith(".segment")]

    def _path(self, number: int) -> str:
        return f"{self._directory}/{segment_name(number)}"

    # -- writing

    @property
    def active(self) -> int:
        """The number of the segment that is appended to; 0 when there is none."""
        return self._number if self._active is not None else 0

    @property
    def full(self) -> bool:
        """Whether a segment has to be begun before anything can be placed."""
        return self._active is None or self._end >= self._segment_max or self._count >= 1 << _COUNT_BITS

    def begin(self, number: int) -> bool:
        """Make the file of a segment that the rows gave to this process, and append there from now on; the one before is left.
        False: the number cannot be used (a file of that name, or somebody who holds it). Raises StoreFull."""
        self.leave()
        handle = None
        try:
            handle = self._disk.create(self._path(number))
            if not handle.lock():  # somebody who cleans up came between: he has it
                handle.close()
                return False
            handle.append([MAGIC])
            handle.sync()
            self._disk.sync_directory(self._directory)
        except FileExistsError:
            return False
        except OSError as error:
            if handle is not None:  # it is ours, and nobody else's row or lock is on it
                with suppress(OSError):
                    self._disk.remove(self._path(number))
                handle.close()
            raise StoreFull(f"the store cannot write: {error.strerror or error}") from None
        self._active, self._number, self._count = handle, number, 0
        self._end = self._reserved = len(MAGIC)
        return True

    def leave(self) -> int:
        """Append no more; the number of the segment that was left, 0 when there was none."""
        handle, self._active = self._active, None
        if handle is None:
            return 0
        if self._reserved > handle.size():
            with suppress(OSError):
                handle.truncate(handle.size())
        handle.close()
        return self._number

    def place(self, sizes: Sequence[int]) -> list[BlobRef]:
        """Where contents of these sizes will lie. There must be room (`full`)."""
        assert self._active is not None
        refs: list[BlobRef] = []
        for size in sizes:
            refs.append(BlobRef(_FRESH | self._number << _COUNT_BITS | self._count, self._number, self._end, size))
            self._end += record.occupied(size)
            self._count += 1
        return refs

    def write(self, refs: Sequence[BlobRef], contents: Sequence[Sequence[bytes]]) -> None:
        """Append what has a place, under the ids of `refs`, and sync. Raises StoreFull; then the segment is left, and nothing
        of the batch is there."""
        handle = self._active
        if handle is None or not refs or handle.size() != refs[0].offset:
            raise StoreError("the segment was left meanwhile")
        buffers: list[bytes] = []
        for ref, chunks in zip(refs, contents, strict=True):
            buffers.append(record.encode(ref.blob_id, chunks))
            buffers.extend(chunks)
        try:
            handle.append_synced(buffers)
        except OSError as error:
            # fsync reports an error once: nobody knows what is on the disk from here on
            self._reserved = max(self._reserved, refs[0].offset + 1)
            with suppress(OSError):
                handle.truncate(refs[0].offset)
            self.leave()
            raise StoreFull(f"the store cannot write: {error.strerror or error}") from None

    def put(self, contents: Sequence[Sequence[bytes]]) -> list[BlobRef]:
        """Append all, sync once."""
        refs = self.place([sum(map(len, chunks)) for chunks in contents])
        self.write(refs, contents)
        return refs

    def put_as(self, olds: Sequence[BlobRef], contents: Sequence[bytes]) -> list[BlobRef]:
        """Content that is moved keeps its id."""
        refs = [
            BlobRef(old.blob_id, new.segment, new.offset, new.size)
            for old, new in zip(olds, self.place([len(one) for one in contents]), strict=True)
        ]
        self.write(refs, [[one] for one in contents])
        return refs

    @property
    def runs_out(self) -> bool:
        """Whether `reserve` has something to do."""
        if self._active is None:
            return False
        end = self._active.size()
        return self._reserved - end < RESERVE_OCTETS // 4 and end < self._segment_max

    def reserve(self) -> None:
        """Write zeros ahead where they run out. May run beside `place`; without room on the disk it does nothing."""
        handle = self._active
        if handle is None:
            return
        end = handle.size()
        octets = min(RESERVE_OCTETS, self._segment_max - end)
        if self._reserved - end >= RESERVE_OCTETS // 4 or octets <= 0:
            return
        self._reserved = end + octets
        with suppress(OSError):
            handle.reserve(octets)

    # -- reading

    def _file(self, number: int) -> Open:
        with self._opening:
            found = self._open.get(number)
            if found is None:
                found = self._open[number] = self._opened(number)
                if len(self._open) > _OPEN_MAX:
                    self._open.popitem(last=False)  # closed once nobody reads it
            else:
                self._open.move_to_end(number)
            return found

    def _opened(self, number: int) -> Open:
        try:
            handle = self._disk.open(self._path(number))
            return Open(handle, handle.read(0, len(MAGIC_1)) == MAGIC_1)
        except FileNotFoundError:
            raise Gone(f"segment {number:x} is not there") from None
        except OSError as error:
            raise StoreUnavailable(f"segment {number:x} cannot be read: {error.strerror or error}") from None

    def read(self, ref: BlobRef, start: int = 0, length: int | None = None) -> bytes:
        """Octets of the content, proved. Raises Damaged, Gone where the file is not there, StoreError where it cannot be read."""
        return self._read(ref, start, length, lambda handle, place, octets: handle.read(place, octets))

    def read_now(self, ref: BlobRef, start: int = 0, length: int | None = None) -> bytes | None:
        """The same, as far as it is in memory; None: the disk has to be waited for."""
        try:
            return self._read(ref, start, length, _cached)
        except _NotCached:
            return None

    def _read(self, ref: BlobRef, start: int, length: int | None, get: Callable[[Handle, int, int], bytes]) -> bytes:
        end = ref.size if length is None else max(start, min(start + length, ref.size))
        start = min(start, end)
        file = self._file(ref.segment)
        try:
            if file.first:
                self._prove_1(file.handle, ref, get)
                return _range_1(file.handle, ref, start, end, get)
            if ref.size <= record.PIECE_OCTETS or (start == 0 and end == ref.size):
                return _content(file.handle, ref, get)[start:end]
            return _range(file.handle, ref, start, end, get)
        except OSError as error:
            if error.errno == errno.EIO:
                raise Damaged(ref.blob_id, f"segment {ref.segment:x} cannot be read: {error.strerror}") from None
            raise StoreUnavailable(f"segment {ref.segment:x} cannot be read: {error.strerror or error}") from None

    def _prove_1(self, handle: Handle, ref: BlobRef, get: Callable[[Handle, int, int], bytes]) -> None:
        """The one checksum of format 1 is over all of a content: it is looked at once for those that were read last, not for each
        piece of one anew."""
        if ref in self._proved_1:
            return
        _check_1(handle, ref, get)
        if len(self._proved_1) >= _PROVED_MAX:
            self._proved_1.pop(next(iter(self._proved_1)), None)
        self._proved_1[ref] = None

    def check(self, ref: BlobRef) -> str:
        """What is wrong with a content; empty when it is as it was put."""
        try:
            content = self.read(ref)
            file = self._file(ref.segment)
            if not file.first:
                header = record.decode(file.handle.read(ref.offset, record.prelude(ref.size)))
                if header is None or not record.is_whole(header, content):
                    return f"content {ref.blob_id:x}: its hash does not match"
        except StoreError as error:
            return str(error)
        return ""

    def records(self, number: int) -> list[Record]:
        """Every record that can be found in a segment, those behind a damaged one too. Raises StoreError."""
        file = self._file(number)
        return list(_walk_1(file.handle) if file.first else _walk(file.handle))

    # -- what nobody writes any more

    def take(self, number: int) -> Handle | None:
        """A segment, held: nobody else writes, empties or removes it until the handle is closed. None: another one holds it.
        Raises Gone."""
        try:
            handle = self._disk.open(self._path(number))
        except FileNotFoundError:
            raise Gone(f"segment {number:x} is not there") from None
        except OSError as error:
            raise StoreUnavailable(f"segment {number:x} cannot be opened: {error.strerror or error}") from None
        if handle.lock():
            return handle
        handle.close()
        return None

    def torn(self, handle: Handle, known_end: int) -> tuple[int, int]:
        """(where a segment that is held ends, octets behind it that are no zeros): the end of the last record that the rows know or
        that is whole, as nothing whole may be cut off; the whole file where that cannot be told."""
        try:
            end = max(known_end, _last_whole(handle))
        except TooConfusing:
            return handle.size(), 0
        rest = handle.read(end, max(0, handle.size() - end))
        return end, len(rest.rstrip(b"\0"))

    def remove(self, number: int) -> None:
        """The file of a segment that is held and that no row refers to, durably."""
        with self._opening:
            self._open.pop(number, None)
        with suppress(FileNotFoundError):
            self._disk.remove(self._path(number))
        self._disk.sync_directory(self._directory)

    def tidy(self) -> None:
        """Close files that others removed: their room is given back."""
        with self._opening:
            for number in [number for number, file in self._open.items() if file.handle.removed()]:
                del self._open[number]

    def occupied(self, number: int, sizes: Sequence[int]) -> int:
        """Octets that contents of these sizes take in a segment, by its format. Raises Gone, StoreError."""
        if self._file(number).first:
            return sum(sizes) + len(sizes) * record.HEADER_1_OCTETS
        return sum(map(record.occupied, sizes))

    def octets(self, number: int) -> int:
        """As the file is now."""
        handle = self._disk.open(self._path(number))
        try:
            return handle.size()
        finally:
            handle.close()

    def close(self) -> int:
        """Gives the number of the segment that was left, 0 when there was none."""
        for file in self._open.values():
            file.handle.close()
        self._open.clear()
        return self.leave()


def _last_whole(handle: Handle) -> int:
    """Where the last whole record of a file ends. Raises TooConfusing."""
    if handle.read(0, len(MAGIC_1)) == MAGIC_1:
        return max((one.place + one.size for one in _walk_1(handle) if one.whole), default=len(MAGIC_1))
    return max((one.place + record.occupied(one.size) for one in _walk(handle) if one.whole), default=len(MAGIC))


class _NotCached(Exception):
    """The disk has to be waited for."""


def _cached(handle: Handle, place: int, octets: int) -> bytes:
    found = handle.read_cached(place, octets)
    if found is None:
        raise _NotCached
    return found


def _proved(octets: bytes, ref: BlobRef) -> record.Header:
    """The header of this content and no other. Raises Damaged."""
    header = record.decode(octets)
    if header is None:
        raise Damaged(ref.blob_id, f"no whole record begins at its place {ref.offset} in segment {ref.segment:x}")
    if header.blob_id != ref.blob_id or header.size != ref.size:
        raise Damaged(ref.blob_id, f"another content lies at its place {ref.offset} in segment {ref.segment:x}")
    return header


def _content(handle: Handle, ref: BlobRef, get: Callable[[Handle, int, int], bytes]) -> bytes:
    octets = get(handle, ref.offset, record.occupied(ref.size))
    header = _proved(octets, ref)
    content = octets[record.prelude(ref.size) :]
    _prove_pieces(header, 0, content, ref)
    if len(content) != ref.size:
        raise Damaged(ref.blob_id, f"segment {ref.segment:x} ends inside of it")
    return content


def _range(handle: Handle, ref: BlobRef, start: int, end: int, get: Callable[[Handle, int, int], bytes]) -> bytes:
    """Only the pieces that hold what was asked for are read."""
    before = record.prelude(ref.size)
    header = _proved(get(handle, ref.offset, before), ref)
    first = start // record.PIECE_OCTETS
    begin = first * record.PIECE_OCTETS
    stop = min(-(-end // record.PIECE_OCTETS) * record.PIECE_OCTETS, ref.size)
    octets = get(handle, ref.offset + before + begin, max(0, stop - begin))
    _prove_pieces(header, first, octets, ref)
    if len(octets) < stop - begin:
        raise Damaged(ref.blob_id, f"segment {ref.segment:x} ends inside of it")
    return octets[start - begin : end - begin]


def _prove_pieces(header: record.Header, first: int, octets: bytes, ref: BlobRef) -> None:
    number = record.damaged_piece(header, first, octets)
    if number is not None:
        at = number * record.PIECE_OCTETS
        raise Damaged(ref.blob_id, f"octets from {at} on in segment {ref.segment:x} are not what was kept")


def _check_1(handle: Handle, ref: BlobRef, get: Callable[[Handle, int, int], bytes]) -> None:
    """Of format 1, whose places are those of the content. Raises Damaged."""
    header = record.decode_1(get(handle, ref.offset - record.HEADER_1_OCTETS, record.HEADER_1_OCTETS))
    if header is None or header[0] != ref.size:
        raise Damaged(ref.blob_id, f"no whole record begins at its place in segment {ref.segment:x}")
    checksum = 0
    for start in range(0, ref.size, _STEP_OCTETS):
        checksum = zlib.crc32(get(handle, ref.offset + start, min(_STEP_OCTETS, ref.size - start)), checksum)
    if checksum != header[1]:
        raise Damaged(ref.blob_id, f"its checksum in segment {ref.segment:x} does not match")


def _range_1(handle: Handle, ref: BlobRef, start: int, end: int, get: Callable[[Handle, int, int], bytes]) -> bytes:
    octets = get(handle, ref.offset + start, end - start)
    if len(octets) < end - start:
        raise Damaged(ref.blob_id, f"segment {ref.segment:x} ends inside of it")
    return octets


class TooConfusing(StoreError):
    """More octets look like beginnings of records than are worth reading."""


def _walk(handle: Handle) -> Iterator[Record]:
    """Records in order; behind what is none the next one is looked for. What is found so may have been written by a peer inside
    of a content: it only keeps octets from being cut off. Raises TooConfusing."""
    position, size = len(MAGIC), handle.size()
    marks = _Marks(handle, size, record.MARK)
    left = 2 * size  # octets that are read of what only may be records
    certain = True
    while position < size:
        found, cost = _record_at(handle, position, size)
        left -= 0 if certain and found is not None else cost
        if left < 0:
            raise TooConfusing("too much in it looks like the beginning of a record")
        if found is None:
            certain, following = False, marks.after(position + 1)
            if following is None:
                return
            position = following
            continue
        yield found
        position = found.place + record.occupied(found.size)


def _record_at(handle: Handle, position: int, size: int) -> tuple[Record | None, int]:
    """A record, and how many octets had to be read to know."""
    octets = record.announced(handle.read(position, record.HEADER_OCTETS))
    if octets is None or position + octets > size:
        return None, record.HEADER_OCTETS
    header = record.decode(handle.read(position, octets))
    if header is None or position + record.occupied(header.size) > size:
        return None, octets
    content = handle.read(position + record.prelude(header.size), header.size)
    whole = record.is_whole(header, content)
    return Record(blob_id=header.blob_id, place=position, size=header.size, whole=whole), octets + header.size


class _Marks:
    """Where a mark stands next in a file, read once however often it is asked."""

    def __init__(self, handle: Handle, size: int, mark: bytes) -> None:
        self._handle, self._size, self._mark = handle, size, mark
        self._start, self._octets = 0, b""

    def after(self, position: int) -> int | None:
        while position < self._size:
            if not self._start <= position <= self._start + len(self._octets) - len(self._mark):
                self._start = position
                self._octets = self._handle.read(position, SEEK_OCTETS)
                if len(self._octets) < len(self._mark):
                    return None
            found = self._octets.find(self._mark, position - self._start)
            if found >= 0:
                return self._start + found
            position = self._start + len(self._octets) - len(self._mark) + 1
        return None


def _walk_1(handle: Handle) -> Iterator[Record]:
    """Of format 1; places are where the content begins. Raises TooConfusing."""
    position, size = len(MAGIC_1), handle.size()
    marks = _Marks(handle, size, record.MARK_1)
    left = 2 * size
    certain = True
    while position < size:
        header = record.decode_1(handle.read(position, record.HEADER_1_OCTETS))
        place = position + record.HEADER_1_OCTETS
        fits = header is not None and place + header[0] <= size
        left -= 0 if certain and fits else record.HEADER_1_OCTETS + (header[0] if header is not None and fits else 0)
        if left < 0:
            raise TooConfusing("too much in it looks like the beginning of a record")
        if header is None or not fits:
            certain, following = False, marks.after(position + 1)
            if following is None:
                return
            position = following
            continue
        whole = zlib.crc32(handle.read(place, header[0])) == header[1]
        yield Record(blob_id=None, place=place, size=header[0], whole=whole)
        position = place + header[0]

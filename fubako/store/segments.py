"""`SegmentBlobs`: content in append-only files, synced in groups.

A segment begins with MAGIC; each record is a header (mark, length, checksum of the content, checksum of the header) and
the content. Invariant: a record that was acknowledged lies in a synced file whose name is synced; what follows a torn
record was never acknowledged, so a start may cut it off.
"""

import asyncio
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress

from fubako.store.group import GATHER_SECONDS, Gathering, Syncing, settle
from fubako.store.interface import BlobRef, Disk, Handle, StoreError, StoreFull

MAGIC = b"fubako-segment-1\n"
_HEADER = struct.Struct(">4sQII")
_MARK = b"FBR1"
SEGMENT_OCTETS_MAX = 64 * 1024 * 1024
RESERVE_OCTETS = 1024 * 1024  # zeros written ahead of a busy stream of letters: half the work of each sync
_OPEN_MAX = 64
BATCH_MAX = 512
_OFFSET_BITS = 36


def segment_name(number: int) -> str:
    return f"{number:012x}.segment"


def _header(chunks: Sequence[bytes]) -> bytes:
    checksum = size = 0
    for chunk in chunks:
        checksum = zlib.crc32(chunk, checksum)
        size += len(chunk)
    bare = struct.pack(">4sQI", _MARK, size, checksum)
    return bare + struct.pack(">I", zlib.crc32(bare))


def _parse_header(octets: bytes) -> tuple[int, int] | None:
    """(size, checksum) of the content, or None when this is no header."""
    if len(octets) < _HEADER.size:
        return None
    mark, size, checksum, own = _HEADER.unpack(octets)
    if mark != _MARK or zlib.crc32(octets[:16]) != own:
        return None
    return size, checksum


class SegmentCore:
    """The files, without threads."""

    def __init__(self, disk: Disk, directory: str, *, segment_max: int = SEGMENT_OCTETS_MAX) -> None:
        self._disk = disk
        self._directory = directory
        self._segment_max = segment_max
        self._active: Handle | None = None
        self._reserved = 0  # where the zeros written ahead end
        self._number = 0
        self._open: OrderedDict[int, Handle] = OrderedDict()

    def numbers(self) -> list[int]:
        names = self._disk.names(self._directory)
        return [int(name.partition(".")[0], 16) for name in names if name.endswith(".segment")]

    def _path(self, number: int) -> str:
        return f"{self._directory}/{segment_name(number)}"

    def _begin(self) -> Handle:
        """The segment this process appends to: the newest one nobody holds and that has room, mended, or a new one."""
        numbers = self.numbers()
        for number in numbers[-8:][::-1] if self._active is None else ():
            handle = self._disk.open(self._path(number))
            if handle.size() <= self._segment_max and handle.lock():
                self._mend(handle, number)
                self._number = number
                return handle
            handle.close()
        return self._fresh()

    def _fresh(self) -> Handle:
        number = max([self._number, *self.numbers()]) + 1
        while True:
            try:
                handle = self._disk.create(self._path(number))
                break
            except FileExistsError:
                number += 1
        handle.lock()
        handle.append([MAGIC])
        handle.sync()
        self._disk.sync_directory(self._directory)
        self._number = number
        return handle

    def mend(self) -> list[str]:
        """Mend every segment that may still grow and that nobody holds; what was done, in words."""
        done = []
        for number in self.numbers():
            handle = self._disk.open(self._path(number))
            if handle.size() <= self._segment_max and handle.lock():
                done.append(self._mend(handle, number))
            handle.close()
        return [what for what in done if what]

    def _mend(self, handle: Handle, number: int) -> str:
        """Cut off what was being written when the power went; what was done, in words."""
        done = ""
        if handle.read(0, len(MAGIC)) != MAGIC:
            end = 0
        else:
            end = max((record[0] + record[1] for record in self._walk(handle)), default=len(MAGIC))
        if end < handle.size():
            torn = len(handle.read(end, handle.size() - end).rstrip(b"\0"))  # the rest was only written ahead
            done = f"segment {number:x}: {torn} octets of an unfinished write cut off" if torn else ""
            handle.truncate(end)
        if end == 0:
            handle.append([MAGIC])
        handle.sync()
        return done

    def _walk(self, handle: Handle) -> Iterator[tuple[int, int]]:
        """(offset, size) of each whole record's content, up to the first that is not."""
        position = len(MAGIC)
        while True:
            header = _parse_header(handle.read(position, _HEADER.size))
            if header is None:
                return
            offset = position + _HEADER.size
            content = handle.read(offset, header[0])
            if len(content) != header[0] or zlib.crc32(content) != header[1]:
                return
            yield offset, header[0]
            position = offset + header[0]

    def records(self, number: int) -> list[tuple[int, int]]:
        """(offset, size) of each whole record of a segment."""
        return list(self._walk(self._handle(number)))

    def put(self, contents: Sequence[Sequence[bytes]]) -> list[BlobRef]:
        """Append all, sync once. Raises StoreFull; then nothing of the batch is there."""
        refs, buffers = self.place(contents)
        self.write(buffers)
        return refs

    def place(self, contents: Sequence[Sequence[bytes]]) -> tuple[list[BlobRef], list[bytes]]:
        """Where the contents will lie, and what is to be written there. Raises StoreFull."""
        refs: list[BlobRef] = []
        buffers: list[bytes] = []
        try:
            if self._active is None or self._active.size() >= self._segment_max:
                previous, self._active = self._active, self._begin()
                if previous is not None:
                    self._leave(previous)
        except OSError as error:
            raise StoreFull(f"the store cannot write: {error.strerror or error}") from None
        end = self._active.size()
        for chunks in contents:
            header = _header(chunks)
            size = sum(map(len, chunks))
            refs.append(self._ref(end + len(header), size))
            buffers.append(header)
            buffers.extend(chunks)
            end += len(header) + size
        return refs, buffers

    def write(self, buffers: Sequence[bytes]) -> None:
        """Append and sync what `place` gave. Raises StoreFull."""
        assert self._active is not None
        start = self._active.size()
        try:
            self._active.append_synced(buffers)
        except OSError as error:
            self._abandon(start)
            raise StoreFull(f"the store cannot write: {error.strerror or error}") from None

    def rotate(self) -> None:
        """Append to a new segment from now on, so that the one before can be compacted. Raises StoreFull."""
        previous, self._active = self._active, None
        if previous is not None:
            self._leave(previous)
        try:
            self._active = self._fresh()
        except OSError as error:
            raise StoreFull(f"the store cannot write: {error.strerror or error}") from None

    @property
    def active(self) -> int:
        """The number of the segment that is appended to; 0 when there is none."""
        return self._number if self._active is not None else 0

    @staticmethod
    def occupied(sizes: Sequence[int]) -> int:
        """Octets of a segment that holds these contents and nothing else."""
        return len(MAGIC) + sum(sizes) + len(sizes) * _HEADER.size

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

    def _leave(self, handle: Handle) -> None:
        """Nothing more is appended here."""
        if self._reserved > handle.size():
            handle.truncate(handle.size())
        self._reserved = 0
        handle.close()

    def _abandon(self, start: int) -> None:
        """After a failed write or sync nobody knows what is on the disk (fsync reports an error once): leave the file."""
        handle, self._active = self._active, None
        self._reserved = 0
        if handle is not None:
            try:
                handle.truncate(start)
            finally:
                handle.close()
        self._number = max(self.numbers(), default=0)

    def _ref(self, offset: int, size: int) -> BlobRef:
        return BlobRef(self._number << _OFFSET_BITS | offset, self._number, offset, size)

    def _handle(self, number: int) -> Handle:
        handle = self._open.get(number)
        if handle is None:
            try:
                handle = self._disk.open(self._path(number))
            except OSError:
                raise StoreError(f"segment {number:x} is missing") from None
            self._open[number] = handle
            if len(self._open) > _OPEN_MAX:
                self._open.popitem(last=False)[1].close()
        else:
            self._open.move_to_end(number)
        return handle

    def read(self, ref: BlobRef, start: int = 0, length: int | None = None) -> bytes:
        length = ref.size - start if length is None else max(0, min(length, ref.size - start))
        octets = self._handle(ref.segment).read(ref.offset + start, length)
        if len(octets) != length:
            raise StoreError(f"segment {ref.segment:x} is too short")
        return octets

    def check(self, ref: BlobRef) -> str:
        """What is wrong with a record; empty when it is as it was put."""
        try:
            handle = self._handle(ref.segment)
        except StoreError as error:
            return str(error)
        header = _parse_header(handle.read(ref.offset - _HEADER.size, _HEADER.size))
        if header is None or header[0] != ref.size:
            return f"blob {ref.blob_id:x}: no record at its place in segment {ref.segment:x}"
        if zlib.crc32(handle.read(ref.offset, ref.size)) != header[1]:
            return f"blob {ref.blob_id:x}: the checksum does not match, the content is damaged"
        return ""

    def removable(self, number: int, seconds: float) -> bool:
        """Whether nobody appends to a segment and it has been left alone for `seconds`."""
        if number == self._number or self._disk.age(self._path(number)) < seconds:
            return False
        handle = self._disk.open(self._path(number))
        try:
            return handle.lock()
        finally:
            handle.close()

    def remove(self, number: int) -> None:
        handle = self._open.pop(number, None)
        if handle is not None:
            handle.close()
        self._disk.remove(self._path(number))
        self._disk.sync_directory(self._directory)

    def octets(self, number: int) -> int:
        return self._handle(number).size()

    def close(self) -> None:
        for handle in self._open.values():
            handle.close()
        self._open.clear()
        if self._active is not None:
            self._leave(self._active)
            self._active = None


def _nothing(_result: None, _error: BaseException | None) -> None:
    """Nobody waits for it."""


class SegmentBlobs:
    """Group sync: contents gather while the batch before is being written."""

    def __init__(self, core: SegmentCore) -> None:
        self.core = core
        self._loop = asyncio.get_running_loop()
        self._syncing = Syncing("segments")
        self._waiting: list[tuple[Sequence[bytes], asyncio.Future[BlobRef]]] = []
        self._busy = False
        self._idle: asyncio.Future[None] | None = None
        self._gathering = Gathering()
        self._expected = 0
        self._timer: asyncio.TimerHandle | None = None  # a batch waits for company

    def expect(self, change: int) -> None:
        self._expected += change
        if not self._expected and self._timer is not None:
            self._timer.cancel()
            self._begin()

    async def put(self, chunks: Sequence[bytes]) -> BlobRef:
        future: asyncio.Future[BlobRef] = self._loop.create_future()
        self._waiting.append((chunks, future))
        self._gathering.arrived(self._loop.time())
        if not self._busy:
            self._busy = True
            self._gather()
        return await future

    def _gather(self) -> None:
        if self._expected and self._gathering.busy:
            self._timer = self._loop.call_later(GATHER_SECONDS, self._begin)
        else:
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._timer = None
        batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
        try:
            refs, buffers = self.core.place([chunks for chunks, _ in batch])
        except StoreError as error:
            self._end(batch, [], error)
            return
        self._syncing.run(lambda: self.core.write(buffers), lambda _, error: self._end(batch, refs, error))

    def _end(
        self,
        batch: list[tuple[Sequence[bytes], "asyncio.Future[BlobRef]"]],
        refs: list[BlobRef],
        error: BaseException | None,
    ) -> None:
        for (_, future), result in zip(batch, [error] * len(batch) if error else refs, strict=True):
            settle(future, result)
        if self._gathering.busy and not error and self.core.runs_out:
            self._syncing.run(self.core.reserve, _nothing)
        self._go_on()

    def _go_on(self) -> None:
        if self._waiting:
            self._gather()
        else:
            self._busy = False
            if self._idle is not None:
                settle(self._idle, None)

    def rotate(self) -> None:
        """See SegmentCore.rotate; a busy one goes on as it is."""
        if not self._busy:
            self._busy = True  # what comes meanwhile waits
            self._syncing.run(self.core.rotate, lambda _, error: self._go_on())

    def read(self, ref: BlobRef, start: int = 0, length: int | None = None) -> bytes:
        return self.core.read(ref, start, length)

    async def close(self) -> None:
        if self._busy:
            self._idle = self._loop.create_future()
            await self._idle
        await self._syncing.close()
        self.core.close()

"""`Spool`: messages that are still coming, or are made to be sent, lie in files without a name instead of in memory.

Owns how much of them this process holds in memory, all sessions together, and on the disk. Never keeps
anything: a file has no name from the start, so that it is gone with the process whatever ends it.
"""

import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from fubako import modes
from fubako.store.interface import StoreFull

HELD_OCTETS_MAX = 256 * 1024  # of one message, in memory


class Spool:
    """`folder` is made when it is first needed; it should lie where the store has its room."""

    def __init__(self, folder: Path, *, memory_octets: int, disk_octets: int) -> None:
        self._folder = folder
        self._memory_max, self._disk_max = memory_octets, disk_octets
        self.held = 0  # octets in memory
        self.written = 0  # octets on the disk

    def begin(self, held_octets: int = HELD_OCTETS_MAX) -> "Spooled":
        return Spooled(self, held_octets)

    def may_hold(self, octets: int) -> bool:
        return self.held + octets <= self._memory_max

    def file(self) -> BinaryIO:
        """Raises OSError."""
        modes.folder(self._folder)
        return tempfile.TemporaryFile(dir=self._folder, buffering=0)

    def write(self, file: BinaryIO, octets: bytes) -> None:
        """Raises StoreFull."""
        if self.written + len(octets) > self._disk_max:
            raise StoreFull("too much is coming in at once")
        view = memoryview(octets)
        while view:
            view = view[file.write(view) :]
        self.written += len(octets)


class Spooled:
    """Octets that were appended, in the order of their coming. Whoever lets go of it gives its room back."""

    __slots__ = ("_file", "_held", "_held_max", "_spool", "size")

    def __init__(self, spool: Spool, held_max: int) -> None:
        self.size = 0
        self._held_max = held_max
        self._spool = spool
        self._held: list[bytes] = []
        self._file: BinaryIO | None = None

    def append(self, octets: bytes) -> None:
        """Raises StoreFull; then nothing of these octets is there."""
        if self._file is None:
            if self.size + len(octets) <= self._held_max and self._spool.may_hold(len(octets)):
                self._held.append(octets)
                self._spool.held += len(octets)
                self.size += len(octets)
                return
            self._to_disk()
        assert self._file is not None
        try:
            self._spool.write(self._file, octets)
        except OSError as error:
            raise StoreFull(f"the store cannot write: {error.strerror or error}") from None
        self.size += len(octets)

    def _to_disk(self) -> None:
        try:
            file = self._spool.file()
            if self._held:
                self._spool.write(file, b"".join(self._held))
        except OSError as error:
            raise StoreFull(f"the store cannot write: {error.strerror or error}") from None
        self._file = file
        self._let_go()

    def _let_go(self) -> None:
        self._spool.held -= sum(map(len, self._held))
        self._held = []

    def read(self, start: int, length: int) -> bytes:
        if self._file is None:
            return b"".join(self._held)[start : start + length]
        return os.pread(self._file.fileno(), max(0, min(length, self.size - start)), start)

    def whole(self) -> bytes:
        return self.read(0, self.size)

    def close(self) -> None:
        """May be called twice."""
        self._let_go()
        if self._file is not None:
            self._spool.written -= self.size
            self._file.close()
            self._file = None
        self.size = 0

    def __del__(self) -> None:
        self.close()

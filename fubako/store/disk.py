"""`OsDisk`: the real file system. Nothing is durable until it was synced, the name of a new file included."""

import errno
import fcntl
import os
import time
from collections.abc import Sequence

from fubako import modes

_IOV_MAX = 512
_RWF_DSYNC: int = getattr(os, "RWF_DSYNC", 0)
_RWF_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)


class OsHandle:
    """One file, appended to and read at offsets."""

    __slots__ = ("_dsync", "_end", "_fd", "_nowait")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._end = os.fstat(fd).st_size
        self._dsync = bool(_RWF_DSYNC)
        self._nowait = True

    def size(self) -> int:
        return self._end

    def append_synced(self, buffers: Sequence[bytes]) -> None:
        """With RWF_DSYNC the write returns when it is on the disk; what does not fit one call is synced behind it."""
        if len(buffers) <= _IOV_MAX and self._dsync:
            wanted = sum(map(len, buffers))
            try:
                if os.pwritev(self._fd, buffers, self._end, _RWF_DSYNC) == wanted:
                    self._end += wanted
                    return
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
                self._dsync = False
        self.append(buffers)
        self.sync()

    def append(self, buffers: Sequence[bytes]) -> None:
        """Write all at the end; a short write is continued, a failed one leaves garbage that `truncate` takes away."""
        for start in range(0, len(buffers), _IOV_MAX):
            part = buffers[start : start + _IOV_MAX]
            wanted = sum(map(len, part))
            written = os.pwritev(self._fd, part, self._end)
            if written < wanted:
                rest = memoryview(b"".join(part))[written:]
                while rest:
                    count = os.pwrite(self._fd, rest, self._end + wanted - len(rest))
                    rest = rest[count:]
            self._end += wanted

    def reserve(self, octets: int) -> None:
        rest = memoryview(bytes(octets))
        while rest:
            rest = rest[os.pwrite(self._fd, rest, self._end + octets - len(rest)) :]
        os.fdatasync(self._fd)

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def read_cached(self, offset: int, length: int) -> bytes | None:
        if not _RWF_NOWAIT or not self._nowait:
            return self.read(offset, length)
        buffer = bytearray(length)
        try:
            count = os.preadv(self._fd, [buffer], offset, _RWF_NOWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            self._nowait = False  # a file system in memory, mostly
            return self.read(offset, length)
        if count == length:
            return bytes(buffer)
        return None if offset + count < os.fstat(self._fd).st_size else bytes(buffer[:count])

    def removed(self) -> bool:
        return os.fstat(self._fd).st_nlink == 0

    def truncate(self, length: int) -> None:
        os.ftruncate(self._fd, length)
        self._end = length

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def lock(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close  # a thread may read while the file is left by others


class OsDisk:
    """Files by path."""

    def names(self, directory: str) -> list[str]:
        return sorted(os.listdir(directory))

    def create(self, path: str) -> OsHandle:
        return OsHandle(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, modes.FILE))

    def open(self, path: str) -> OsHandle:
        return OsHandle(os.open(path, os.O_RDWR | os.O_CLOEXEC))

    def sync_directory(self, directory: str) -> None:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def age(self, path: str) -> float:
        return time.time() - os.stat(path).st_mtime

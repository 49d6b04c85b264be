"""A disk that forgets: files, directory entries and sectors are lost in a crash unless they were synced.

The strictest reading of POSIX: of the sectors written since the last sync any subset survives, of the operations on a
directory since its last sync any prefix does. `cut_after` ends the power at a chosen operation. The same disk carries
segments (as a `Disk`) and SQLite (through an apsw VFS).
"""

import random

import apsw

SECTOR = 512


class PowerCut(BaseException):
    """The power went out: nothing of the program runs any more."""


class File:
    """Current content, and what is certain of it."""

    __slots__ = ("data", "dirty", "durable", "durable_size", "holder", "locked")

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = bytearray()
        self.durable_size = 0
        self.dirty: set[int] = set()
        self.locked = False
        self.holder = ""  # who has the lock, where several processes use the disk


class SimDisk:
    """Files by path in one directory tree of flat names."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.files: dict[str, File] = {}
        self.durable_names: dict[str, File] = {}
        self.pending: dict[str, list[tuple[str, str, File | None]]] = {}  # directory -> operations since its sync
        self.operations = 0
        self.cut_at = -1
        self.dead = False
        self.lazy_sync = False  # a mutant: sync does nothing
        self.lazy_directory = ""  # a mutant: syncs of this directory do nothing

    def who(self) -> str:
        """Whose call this is."""
        return ""

    # -- power

    def step(self) -> None:
        if self.dead:
            raise PowerCut
        self.operations += 1
        if self.operations == self.cut_at:
            self.dead = True
            raise PowerCut

    def crash(self) -> None:
        """Lose what may be lost; afterwards the disk works again."""
        names = dict(self.durable_names)
        for operations in self.pending.values():
            kept = self.rng.randint(0, len(operations))
            for kind, path, file in operations[:kept]:
                if kind == "create":
                    names[path] = file
                else:
                    names.pop(path, None)
        for file in {id(file): file for file in names.values()}.values():
            self._forget(file)
        self.files = names
        self.durable_names = dict(names)
        self.pending.clear()
        self.dead, self.cut_at, self.operations = False, -1, 0

    def _forget(self, file: File) -> None:
        size = self.rng.choice(
            (file.durable_size, len(file.data), self.rng.randint(0, max(len(file.data), file.durable_size)))
        )
        size = max(size, min(file.durable_size, len(file.data)))
        content = bytearray(size)
        content[: min(size, file.durable_size)] = file.durable[: min(size, file.durable_size)]
        style = self.rng.random()
        for sector in file.dirty:
            if style < 0.2 or (style < 0.9 and self.rng.random() < 0.5):
                start = sector * SECTOR
                piece = file.data[start : start + SECTOR]
                end = min(size, start + len(piece))
                if start < end:
                    content[start:end] = piece[: end - start]
        file.data = content
        file.durable = bytearray(content)
        file.durable_size = size
        file.dirty.clear()
        file.locked = False

    # -- files

    @staticmethod
    def directory(path: str) -> str:
        return path.rpartition("/")[0]

    def make(self, path: str) -> File:
        self.step()
        file = self.files[path] = File()
        self.pending.setdefault(self.directory(path), []).append(("create", path, file))
        return file

    def write(self, file: File, offset: int, octets: bytes) -> None:
        self.step()
        end = offset + len(octets)
        if end > len(file.data):
            file.data.extend(bytes(end - len(file.data)))
        file.data[offset:end] = octets
        file.dirty.update(range(offset // SECTOR, (end + SECTOR - 1) // SECTOR))

    def cut(self, file: File, length: int) -> None:
        self.step()
        del file.data[length:]
        file.dirty = {sector for sector in file.dirty if sector * SECTOR < length}
        if length < file.durable_size:
            file.dirty.add(length // SECTOR)

    def sync(self, file: File) -> None:
        self.step()
        if self.lazy_sync:
            return
        for sector in file.dirty:
            start = sector * SECTOR
            end = min(len(file.data), start + SECTOR)
            if len(file.durable) < end:
                file.durable.extend(bytes(end - len(file.durable)))
            file.durable[start:end] = file.data[start:end]
        if len(file.durable) < len(file.data):
            file.durable.extend(bytes(len(file.data) - len(file.durable)))
        del file.durable[len(file.data) :]
        file.durable_size = len(file.data)
        file.dirty.clear()

    # -- store.interface.Disk

    def names(self, directory: str) -> list[str]:
        return sorted(path.rpartition("/")[2] for path in self.files if self.directory(path) == directory)

    def create(self, path: str) -> "SimHandle":
        if path in self.files:
            raise FileExistsError(path)
        return SimHandle(self, self.make(path))

    def open(self, path: str) -> "SimHandle":
        if path not in self.files:
            raise FileNotFoundError(path)
        return SimHandle(self, self.files[path])

    def sync_directory(self, directory: str) -> None:
        self.step()
        if directory == self.lazy_directory:
            return
        for kind, path, file in self.pending.pop(directory, []):
            if kind == "create":
                self.durable_names[path] = file
            else:
                self.durable_names.pop(path, None)

    def remove(self, path: str) -> None:
        self.step()
        if path not in self.files:
            raise FileNotFoundError(path)
        file = self.files.pop(path)
        self.pending.setdefault(self.directory(path), []).append(("remove", path, file))


class SimHandle:
    """store.interface.Handle."""

    def __init__(self, disk: SimDisk, file: File) -> None:
        self.disk, self.file, self.held = disk, file, False
        self.end = len(file.data)

    def size(self) -> int:
        return self.end

    def append(self, buffers) -> None:
        for buffer in buffers:  # each may be torn off by itself
            self.disk.write(self.file, self.end, buffer)
            self.end += len(buffer)

    def reserve(self, octets: int) -> None:
        self.disk.write(self.file, self.end, bytes(octets))
        self.sync()

    def append_synced(self, buffers) -> None:
        self.append(buffers)
        self.sync()

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.file.data[offset : offset + length])

    def read_cached(self, offset: int, length: int) -> bytes:
        return self.read(offset, length)

    def removed(self) -> bool:
        return all(file is not self.file for file in self.disk.files.values())

    def truncate(self, length: int) -> None:
        self.disk.cut(self.file, length)
        self.end = length

    def sync(self) -> None:
        self.disk.sync(self.file)

    def lock(self) -> bool:
        if self.file.locked and not self.held:
            return False
        self.file.locked = self.held = True
        self.file.holder = self.disk.who()
        return True

    def close(self) -> None:
        if self.held:
            self.file.locked = False


class SimVfs(apsw.VFS):
    """SQLite on a SimDisk, with locking_mode=EXCLUSIVE (no shared memory)."""

    def __init__(self, name: str) -> None:
        self.disk: SimDisk | None = None
        super().__init__(name, base="")

    def xOpen(self, name, flags):  # noqa: N802
        path = name.filename() if isinstance(name, apsw.URIFilename) else (name or "temporary")
        if path not in self.disk.files:
            if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                raise apsw.CantOpenError
            self.disk.make(path)
        return SimVfsFile(self.disk, path)

    def xAccess(self, path, flags):  # noqa: N802
        return path in self.disk.files

    def xDelete(self, path, sync):  # noqa: N802
        if path not in self.disk.files:
            raise apsw.IOError
        self.disk.remove(path)
        if sync:
            self.disk.sync_directory(self.disk.directory(path))

    def xFullPathname(self, name):  # noqa: N802
        return name


class SimVfsFile:
    def __init__(self, disk: SimDisk, path: str) -> None:
        self.disk, self.path, self.file = disk, path, disk.files[path]

    def xRead(self, amount, offset):  # noqa: N802
        return bytes(self.file.data[offset : offset + amount])

    def xWrite(self, data, offset):  # noqa: N802
        self.disk.write(self.file, offset, bytes(data))

    def xTruncate(self, size):  # noqa: N802
        self.disk.cut(self.file, size)

    def xSync(self, flags):  # noqa: N802
        self.disk.sync(self.file)
        # SQLite syncs the directory after it makes a journal; the strict model wants it for the WAL's name too
        self.disk.sync_directory(self.disk.directory(self.path))

    def xFileSize(self):  # noqa: N802
        return len(self.file.data)

    def xLock(self, level): ...  # noqa: N802
    def xUnlock(self, level): ...  # noqa: N802
    def xCheckReservedLock(self):  # noqa: N802
        return False

    def xFileControl(self, op, ptr):  # noqa: N802
        return False

    def xSectorSize(self):  # noqa: N802
        return SECTOR

    def xDeviceCharacteristics(self):  # noqa: N802
        return 0

    def xClose(self): ...  # noqa: N802

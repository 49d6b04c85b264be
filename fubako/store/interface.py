"""The seams of storage. Semantics live above them and are written once."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from fubako.store.faults import DAMAGED, DISK_FAILED, NO_ROOM, OUTDATED, Fault, of_errno

T = TypeVar("T")
Row = tuple[Any, ...]
Place = tuple[int, int]  # (account_id, mailbox_id)


class StoreError(Exception):
    """The store cannot do this; the message says why, in words for an administrator."""


class StoreUnavailable(StoreError):
    """The store cannot do it now, whatever was asked: the peer may try again later. `fault` says why, and what is answered."""

    usual = DISK_FAILED

    def __init__(self, reason: str, fault: Fault | None = None) -> None:
        super().__init__(reason)
        self._fault = fault

    @property
    def fault(self) -> Fault:
        """As it was given; else what the system said, where this was raised because of that."""
        if self._fault is not None:
            return self._fault
        system = self.__cause__ or self.__context__
        return of_errno(system.errno) if isinstance(system, OSError) else self.usual


class StoreOutdated(StoreUnavailable):
    """An older Fubako wrote the rows: they have to be brought to the format of this one before they can be used."""

    usual = OUTDATED


class StoreFull(StoreUnavailable):
    """Something could not be written: there is no room, unless the system said something else."""

    usual = NO_ROOM


class Damaged(StoreError):
    """Content that is not what was kept: it is told of, and never served."""

    fault = DAMAGED

    def __init__(self, blob_id: int, reason: str) -> None:
        super().__init__(f"content {blob_id:x} is damaged: {reason}")
        self.blob_id = blob_id


class Gone(StoreError):
    """The file is not there: what lived in it was moved elsewhere, or it is lost."""


class Transaction(Protocol):
    """One transaction, as a unit of work sees it. SQL is the common part of SQLite and PostgreSQL."""

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]: ...
    def row(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None: ...
    def run(self, sql: str, parameters: Sequence[Any] = ()) -> None: ...
    def many(self, sql: str, parameters: Iterable[Sequence[Any]]) -> None: ...

    def touched(self, place: Place) -> None:
        """Say that a mailbox changed: others get a hint once the commit is durable."""


class Database(Protocol):
    """Runs units of work. A unit is a function of the transaction alone: it may be run again."""

    async def write(self, unit: Callable[[Transaction], T], *, patient: bool = False) -> T:
        """Commit with whatever else is waiting; returns when it is durable. Raises StoreFull, or what the unit raised. `patient`:
        no peer waits for it, so that it may wait a few milliseconds for company."""
        ...

    async def read(self, unit: Callable[[Transaction], T]) -> T:
        """One consistent view of what is committed."""
        ...

    async def close(self) -> None: ...


class BlobRef(Struct, frozen=True):
    """Where content of `size` octets lies, the record's place in a segment, and its name, which is never given again."""

    blob_id: int
    segment: int
    offset: int
    size: int


class Blobs(Protocol):
    """Immutable content."""

    async def put(self, chunks: Sequence[bytes]) -> BlobRef:
        """Durable on return. Raises StoreFull."""
        ...

    def expect(self, change: int) -> None:
        """A hint: one more letter is on its way (+1), or one less (-1). A batch waits for nobody who is not expected."""
        ...

    async def read(self, ref: BlobRef, start: int = 0, length: int | None = None) -> bytes:
        """Octets of the content, proved to be what was put, wherever it was moved since `ref` was asked for. The loop is not
        held while a disk is waited for. Raises Damaged, and StoreError where it cannot be read now."""
        ...

    async def close(self) -> None: ...


class Changes(Protocol):
    """Hints that a mailbox may have changed. One may be missed: MODSEQ is the truth."""

    def publish(self, places: Iterable[Place]) -> None: ...
    def subscribe(self, account_id: int, wake: Callable[[int], None]) -> Callable[[], None]:
        """`wake(mailbox_id)` on the loop at each hint; returns the function that ends it."""
        ...


class Handle(Protocol):
    """An open file of a `Disk`. All amounts are octets."""

    def size(self) -> int: ...
    def append(self, buffers: Sequence[bytes]) -> None: ...
    def append_synced(self, buffers: Sequence[bytes]) -> None:
        """`append` and `sync`, in one system call where there is one."""
        ...

    def reserve(self, octets: int) -> None:
        """Durable zeros behind the end, which stays where it is: appending into them changes no metadata to be synced.
        Who opens the file anew takes them for content; `truncate` takes them away."""
        ...

    def read(self, offset: int, length: int) -> bytes: ...
    def read_cached(self, offset: int, length: int) -> bytes | None:
        """The same, as far as it is in memory; None: the disk has to be waited for."""
        ...

    def removed(self) -> bool:
        """Whether the file has no name any more."""
        ...

    def truncate(self, length: int) -> None: ...
    def sync(self) -> None: ...
    def lock(self) -> bool:
        """Take the file for this process; False when another one has it."""
        ...

    def close(self) -> None:
        """Also done when nobody holds the handle any more."""
        ...


class Disk(Protocol):
    """What the segments need of a file system; a simulated one forgets what was not synced."""

    def names(self, directory: str) -> list[str]: ...
    def create(self, path: str) -> Handle:
        """A new file; FileExistsError when there is one. Its name is durable only after `sync_directory`."""
        ...

    def open(self, path: str) -> Handle: ...
    def sync_directory(self, directory: str) -> None: ...
    def remove(self, path: str) -> None: ...
    def age(self, path: str) -> float:
        """Seconds since the file was last written."""
        ...

"""The store, opened for a server or for a command."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fubako import modes
from fubako.accounts import aliases
from fubako.admin import transfer
from fubako.app.permitted import permitted
from fubako.app.privileges import act_as_owner, owner_of, user_name
from fubako.config import Config
from fubako.message.target import File, Program
from fubako.scan.pool import Pool
from fubako.store import faults, lease, migration
from fubako.store.blobs import SegmentBlobs
from fubako.store.changes import LocalChanges, WorkerChanges
from fubako.store.compaction import Compacted, Keeper
from fubako.store.disk import OsDisk
from fubako.store.indexer import Indexer
from fubako.store.interface import BlobRef, StoreError, StoreFull, StoreOutdated, StoreUnavailable
from fubako.store.migration import Back, Migration
from fubako.store.reserve import Reserve
from fubako.store.segments import SegmentCore
from fubako.store.sqlite import SqliteCore, SqliteDatabase
from fubako.store.verify import Report, verify
from fubako.telemetry import Telemetry


class StoreInUse(StoreUnavailable):
    """Another server runs on this store."""

    usual = faults.IN_USE


def _rows(directory: Path) -> Path:
    return directory / "mail.sqlite"


@dataclass(slots=True)
class Store:
    """The three seams and the search index, opened."""

    database: SqliteDatabase
    blobs: SegmentBlobs
    changes: LocalChanges
    indexer: Indexer
    pool: Pool
    directory: Path

    async def close(self) -> None:
        await self.blobs.close()
        self.indexer.close()
        self.pool.close()
        await self.database.close()
        if isinstance(self.changes, WorkerChanges):
            self.changes.close()


class ReservedBlobs(SegmentBlobs):
    """No content is taken while the room that is kept back for rows is given back."""

    def __init__(self, core: SegmentCore, database: SqliteDatabase, owner: str, reserve: Reserve) -> None:
        super().__init__(core, database, owner)
        self._reserve = reserve

    async def put(self, chunks: Sequence[bytes]) -> BlobRef:
        if not self._reserve.hold():
            raise StoreFull(f"the disk is full: what is left of it is for making room; {faults.NO_ROOM.remedy}")
        return await super().put(chunks)


def _reserve(directory: Path) -> Reserve:
    return Reserve(directory / "run" / "reserve")


def prepare(directory: Path) -> None:
    """The folders of a store. Raises StoreError in words for a person."""
    try:
        for part in ("segments", "run", "search"):
            modes.folder(directory / part)
    except OSError as error:
        raise StoreError(f"{directory} cannot be used by {_me()}: {error.strerror}{_remedy(directory)}") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise StoreError(f"{directory} cannot be written to by {_me()}{_remedy(directory)}")


def _me() -> str:
    return user_name(os.geteuid())


def _remedy(directory: Path) -> str:
    """What to type, where a store is not there yet or belongs to somebody else."""
    if not directory.exists():
        return f"; `install -d -m 700 -o {_me()} {directory}` makes it"
    owner = directory.stat().st_uid
    if owner == os.geteuid():
        return ""
    return f"; it belongs to {user_name(owner)}: `chown -hR {_me()}: {directory}` gives it away"


def require_own(directory: Path) -> None:
    """A server serves a store of its own user only. Raises StoreError, which says what to type."""
    owner, _group = owner_of(directory)
    if directory.exists():
        owner = directory.stat().st_uid if os.geteuid() else owner
    if owner == os.geteuid() or not directory.exists():
        return
    if os.geteuid() == 0:
        raise StoreError(f'{directory} belongs to {user_name(owner)}: set `user = "{user_name(owner)}"` to serve it')
    raise StoreError(f"{directory} is not {_me()}'s{_remedy(directory)}")


def open_store(directory: Path, *, shared: bool = True, pool: Pool | None = None) -> Store:
    """`shared`: other processes may change the same store, and are told of changes. `pool`: who reads messages, one of its own when
    not given; its workers are made when they are first needed."""
    act_as_owner(directory)
    prepare(directory)
    changes: LocalChanges = WorkerChanges(directory / "run") if shared else LocalChanges()
    database = SqliteDatabase(_open_rows_now(directory), changes)
    reserve = _reserve(directory)
    reserve.hold()
    segments = SegmentCore(OsDisk(), str(directory / "segments"))
    blobs = ReservedBlobs(segments, database, f"{os.getpid()}-{secrets.token_hex(8)}", reserve)
    pool = pool or Pool()
    return Store(database, blobs, changes, Indexer(directory / "search", database, blobs, pool), pool, directory)


def _open_rows(directory: Path) -> SqliteCore:
    """Raises StoreUnavailable; StoreOutdated for those of an older format."""
    _require_rows(directory)
    return SqliteCore(str(_rows(directory)), reserve=_reserve(directory))


def _open_rows_now(directory: Path) -> SqliteCore:
    """The same; those of an older format are migrated first, while no server has them, and that is told."""
    try:
        return _open_rows(directory)
    except StoreOutdated as error:
        try:
            os.close(claim(directory, _tell_log))
        except StoreInUse:
            raise StoreOutdated(f"a server of an older Fubako runs on {directory}: {error}") from None
        return _open_rows(directory)


def _tell_log(done: Migration) -> None:
    Telemetry().event("store.migrated", found=done.found, version=done.version, copy=str(done.copy))


def _require_rows(directory: Path) -> None:
    """Segments without rows are no new store. Raises StoreUnavailable."""
    path, segments = _rows(directory), directory / "segments"
    try:
        size = path.stat().st_size if path.exists() else -1
        empty = size <= 0 and not (segments.is_dir() and any(segments.iterdir()))
    except OSError as error:
        fault = faults.of_errno(error.errno)
        raise StoreUnavailable(
            f"{directory} cannot be read by {_me()}: {error.strerror}; {fault.remedy}", fault
        ) from None
    if size > 0 or empty:
        return
    fault = faults.MALFORMED if size == 0 else faults.MISSING
    what = "is empty" if size == 0 else "is missing"
    raise StoreUnavailable(f"the database {path} {what}, and there are segments: {fault.remedy}", fault)


def _cores(directory: Path) -> tuple[SqliteCore, SegmentCore]:
    act_as_owner(directory)
    _require_rows(directory)
    if not _rows(directory).exists():
        raise StoreError(f"there is no store in {directory}")
    return _open_rows(directory), SegmentCore(OsDisk(), str(directory / "segments"))


def migrate_store(directory: Path, *, dry_run: bool = False) -> Migration | None:
    """Bring a store to the format of this Fubako; None when it has that already. Raises StoreInUse, StoreUnavailable."""
    act_as_owner(directory)
    with _claimed(directory):
        if not _rows(directory).exists():
            raise StoreError(f"there is no store in {directory}")
        return migration.migrate(_rows(directory), dry_run=dry_run)


def look_back(directory: Path) -> Back:
    """Raises StoreError."""
    act_as_owner(directory)
    return migration.look_back(_rows(directory))


def back_store(directory: Path) -> Back:
    """The rows as they were before the last migration. Raises StoreInUse, StoreError."""
    act_as_owner(directory)
    with _claimed(directory):
        return migration.back(_rows(directory), lambda needed: needed <= _segments(directory))


def _segments(directory: Path) -> set[int]:
    return {int(one.stem, 16) for one in (directory / "segments").glob("*.segment")}


def mend(directory: Path) -> list[str]:
    """Before a server starts: put right what an unclean end left; what was done, in words."""
    if not (directory / "mail.sqlite").exists():
        return []
    database, segments = _cores(directory)
    try:
        return Keeper(database, segments).seal()
    finally:
        segments.close()
        database.close()


def verify_store(directory: Path, progress: Callable[[int, int], None]) -> Report:
    return verify(*_cores(directory), directory / "search", progress)


def compact_store(directory: Path, *, erase: bool = False) -> Compacted:
    """What was given back, and what could not be moved. May run beside a server. `erase`: nothing that was removed stays in
    segments that nobody writes."""
    database, segments = _cores(directory)
    try:
        done = Keeper(database, segments).compact(erase=erase, free=lambda: shutil.disk_usage(directory).free)
        database.empty_wal()
        return done
    finally:
        segments.close()
        database.close()


def backup_store(directory: Path, target: Path, progress: Callable[[int, int], None]) -> int:
    database, _ = _cores(directory)
    return transfer.backup(database.backup, directory, target, progress)


def runs_as_root(config: Config, directory: Path) -> list[str]:
    """What a server that runs as root would run or write as root, in words: it must not start with such."""
    named = permitted(config)
    found = [f"[[route]] run_as is needed for the program {one.words[0]}" for one in named.routes if not one.user]
    found += [
        f"[[route]] run_as is needed for the password_command {one.words[0]}"
        for one in named.password_commands
        if not one.run_as
    ]
    found += [f"[filter] program: {one[0]} would run as root" for one in named.filters]
    found += [f"[[password_backend]] {one.kind}: run_as is needed" for one in named.checkers if not one.run_as]
    if _rows(directory).exists():
        core = _open_rows(directory)
        try:
            for alias in core.read(aliases.everything):
                handed = [one for one in alias.targets if isinstance(one, Program | File) and not one.user]
                found += [f"alias {alias.address}: {one.shown} has no --user" for one in handed]
        finally:
            core.close()
    return found


def mend_modes(directory: Path) -> int:
    """Before a server starts: what is in the store is its user's alone; how many modes were changed. Raises StoreError where
    something in it belongs to somebody else."""
    changed, foreign = modes.mend(directory)
    if foreign:
        raise StoreError(
            f"{foreign[0]} in the store does not belong to {_me()}{_foreign_remedy(foreign[0], directory)}"
        )
    return changed


def _foreign_remedy(found: Path, directory: Path) -> str:
    owner = user_name(found.lstat().st_uid)
    return f" but to {owner}: look at it, then `chown -hR {_me()}: {directory}` while no server runs"


def _tell_nobody(_done: Migration) -> None:
    """Where nobody asked to be told."""


def claim(directory: Path, tell: Callable[[Migration], None] = _tell_nobody) -> int:
    """Take a store for one server, and bring it to this Fubako's format: `tell` hears of that. Returns a descriptor that holds
    it; raises StoreInUse, and StoreError where the store is another user's, or cannot be used."""
    fd = _claim(directory)
    try:
        _require_rows(directory)
        done = migration.migrate(_rows(directory)) if _rows(directory).exists() else None
        if _rows(directory).exists():
            _release_servers(_rows(directory))
    except BaseException:
        os.close(fd)
        raise
    if done is not None:
        tell(done)
    return fd


def _release_servers(path: Path) -> None:
    """What the servers before held; they are gone, because the store was to be had."""
    core = SqliteCore(str(path))
    try:
        core.commit([lease.release_servers])
    finally:
        core.close()


@contextmanager
def _claimed(directory: Path) -> Iterator[None]:
    fd = _claim(directory)
    try:
        yield
    finally:
        os.close(fd)


def _claim(directory: Path) -> int:
    require_own(directory)
    prepare(directory)
    fd = os.open(directory / "run" / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, modes.FILE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise StoreInUse(f"another Fubako serves {directory} already: {faults.IN_USE.remedy}", faults.IN_USE) from None
    return fd

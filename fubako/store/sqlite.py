"""`SqliteDatabase`: the embedded `Database`. One writer thread commits every waiting unit together.

Invariant: `write` returns only after COMMIT with synchronous=FULL on a WAL, so the rows are on the disk.
"""

import fcntl
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import apsw

from fubako.store import schema
from fubako.store.group import Group
from fubako.store.interface import Changes, Place, Row, StoreError, StoreFull, Transaction

T = TypeVar("T")
Unit = Callable[[Transaction], Any]

_BUSY_MILLISECONDS = 30_000
_CACHE_KIB = 32 * 1024
_CHECKPOINT_PAGES = 4000


class SqliteTransaction:
    """A connection inside BEGIN … COMMIT."""

    __slots__ = ("_execute", "_many", "places")

    def __init__(self, connection: apsw.Connection) -> None:
        self._execute = connection.execute
        self._many = connection.executemany
        self.places: set[Place] = set()

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        return cast("list[Row]", self._execute(sql, parameters).fetchall())

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        return cast("Row | None", self._execute(sql, parameters).fetchone())

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        self._execute(sql, parameters)

    def many(self, sql: str, parameters: Iterable[Sequence[Any]]) -> None:
        self._many(sql, parameters)

    def touched(self, place: Place) -> None:
        self.places.add(place)


class SqliteCore:
    """The connections, without threads. `exclusive` uses one connection and no shared memory (a simulated disk)."""

    def __init__(
        self, path: str, *, vfs: str | None = None, exclusive: bool = False, synchronous: str = "FULL"
    ) -> None:
        self._path, self._vfs, self._exclusive = path, vfs, exclusive
        try:
            self._writer = self._connect()
            self._writer.execute("PRAGMA journal_mode=WAL")
            self._writer.execute(f"PRAGMA synchronous={synchronous}")
            self._writer.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
            found = self._writer.execute("SELECT 1 FROM sqlite_master WHERE name='format'").fetchone()
            self.commit([lambda tx: schema.migrate(tx, found is not None)])[0]
        except apsw.Error as error:
            raise StoreError(f"the database {path} cannot be opened: {error}") from None
        self._reader = self._writer if exclusive else self._connect()
        self._lock_fd = -1 if exclusive else os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(self._path, vfs=self._vfs, statementcachesize=300)
        connection.set_busy_timeout(_BUSY_MILLISECONDS)
        if self._exclusive:  # before the file is looked at: its WAL would ask for shared memory
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        return connection

    def commit(self, units: Sequence[Unit]) -> tuple[list[Any], set[Place]]:
        """Run the units in one transaction; a unit that fails is left out and its exception is its result."""
        locked = getattr(self, "_lock_fd", -1)
        if locked >= 0:  # SQLite polls for the write lock; this wakes at once and takes turns between processes
            fcntl.flock(locked, fcntl.LOCK_EX)
        try:
            return self._commit(units)
        except (apsw.FullError, apsw.IOError, apsw.ReadOnlyError) as error:
            raise StoreFull(f"the store cannot write: {error}") from None
        finally:
            if locked >= 0:
                fcntl.flock(locked, fcntl.LOCK_UN)

    def _commit(self, units: Sequence[Unit]) -> tuple[list[Any], set[Place]]:
        try:
            return self._attempt(units)
        except (apsw.FullError, apsw.IOError, apsw.ReadOnlyError):
            raise
        except Exception as error:  # it belongs to one unit: find out whose it is
            if len(units) == 1:
                return [error], set()
        results: list[Any] = []
        places: set[Place] = set()
        for unit in units:
            result, touched = self._commit([unit])
            results += result
            places |= touched
        return results, places

    def _attempt(self, units: Sequence[Unit]) -> tuple[list[Any], set[Place]]:
        transaction = SqliteTransaction(self._writer)
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            results = [unit(transaction) for unit in units]
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise
        return results, transaction.places

    def read(self, unit: Callable[[Transaction], T]) -> T:
        self._reader.execute("BEGIN")
        try:
            return unit(SqliteTransaction(self._reader))
        finally:
            self._reader.execute("COMMIT")

    def integrity(self) -> list[str]:
        """SQLite's own check; empty when all is well."""
        found = [str(row[0]) for row in self._reader.execute("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found

    def backup(self, target: Path) -> None:
        """A consistent copy of the rows while others write."""
        copy = apsw.Connection(str(target))
        with copy.backup("main", self._reader, "main") as backup:
            backup.step()
        copy.execute("PRAGMA journal_mode=DELETE")
        copy.close()

    def close(self) -> None:
        if self._reader is not self._writer:
            self._reader.close()
        self._writer.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


class SqliteDatabase:
    """The core behind a writer thread; reads run where they are asked for, because they take microseconds."""

    def __init__(self, core: SqliteCore, changes: Changes | None = None) -> None:
        self.core = core
        self._changes = changes
        self._group: Group[Unit, tuple[Any, set[Place]]] = Group("database", self._work)

    def _work(self, units: Sequence[Unit]) -> Sequence[tuple[Any, set[Place]] | BaseException]:
        results, places = self.core.commit(units)
        shared: set[Place] = places
        return [result if isinstance(result, Exception) else (result, shared) for result in results]

    async def write(self, unit: Callable[[Transaction], T]) -> T:
        result, places = await self._group.submit(unit)
        if places and self._changes is not None:
            self._changes.publish(places)
            places.clear()  # one batch is told of once
        return cast("T", result)

    async def read(self, unit: Callable[[Transaction], T]) -> T:
        return self.core.read(unit)

    async def close(self) -> None:
        await self._group.close()
        self.core.close()

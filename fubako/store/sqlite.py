"""`SqliteDatabase`: the embedded `Database`. All units that wait are committed together.

Invariant: `write` returns only after COMMIT with synchronous=FULL on a WAL, so the rows are on the disk. The loop never waits for
another process's lock: a thread does, and who waits for that longer than BUSY_SECONDS is told that the store is busy.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import apsw
from msgspec import Struct

from fubako import modes
from fubako.clock import Clock, SystemClock
from fubako.owed import OWED, Owed
from fubako.store import faults, schema
from fubako.store.faults import Fault
from fubako.store.group import Syncing, settle
from fubako.store.interface import Changes, Place, Row, StoreFull, StoreOutdated, StoreUnavailable, Transaction
from fubako.store.reserve import Reserve

T = TypeVar("T")
Unit = Callable[[Transaction], Any]
Waiting = tuple[Unit, "asyncio.Future[Any]", Owed | None]  # and whose conversation waits for it

_BUSY_MILLISECONDS = 30_000  # a command, or a thread, waits so long for another process
_READ_MILLISECONDS = 20  # and a look, on the loop
_POLL_SECONDS = 0.01
CLOSE_SECONDS = 5.0  # and so long at the end
BUSY_SECONDS = 10.0  # a unit waits so long for another process
_EMPTY_MILLISECONDS = 200  # in which others wait
_CACHE_KIB = 32 * 1024
_CHECKPOINT_PAGES = 4000
_MMAP_OCTETS = 1 << 30
BATCH_MAX = 512
# a disk that syncs in less is waited for on the loop: handing the wait to a thread and back costs more
QUICK_SECONDS = 0.002
TRY_AGAIN = 100  # after so many commits on the thread it is looked at again whether the disk is quick
PATIENCE_SECONDS = 0.005  # so long a patient unit waits for others, when the last one came as lately as that
_FAULTS: dict[type[apsw.Error], Fault] = {
    apsw.FullError: faults.NO_ROOM,
    apsw.IOError: faults.DISK_FAILED,
    apsw.ReadOnlyError: faults.READ_ONLY,
    apsw.PermissionsError: faults.NOT_PERMITTED,
    apsw.CantOpenError: faults.MISSING,
    apsw.BusyError: faults.BUSY,
    apsw.LockedError: faults.BUSY,
    apsw.ProtocolError: faults.BUSY,
    apsw.NoMemError: faults.NO_MEMORY,
    apsw.CorruptError: faults.MALFORMED,
    apsw.NotADBError: faults.MALFORMED,
}
_STORE = tuple(_FAULTS)  # errors of the store, not of a unit
_BY_SYSTEM = (apsw.IOError, apsw.CantOpenError)  # here the system's own number says more


def unavailable(error: apsw.Error, doing: str, connection: apsw.Connection | None = None) -> StoreUnavailable:
    """What SQLite says, in words and with its fault; `doing` is what could not be done."""
    fault = _FAULTS.get(type(error), faults.MALFORMED)
    number = connection.system_errno if connection is not None and isinstance(error, _BY_SYSTEM) else 0
    fault = faults.of_errno(number) if number else fault
    reason = f"{doing}: {os.strerror(number) if number else error}; {fault.remedy}"
    return StoreFull(reason, fault) if fault is faults.NO_ROOM else StoreUnavailable(reason, fault)


class Failed(Struct, frozen=True):
    """What became of a unit that raised, among those that were committed with it."""

    error: BaseException


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
    """The connections, without threads. `exclusive` uses one connection and no shared memory (a simulated disk). `older`: rows of
    an older format are opened as they are, to be migrated (`migration`).

    Once the WAL holds `checkpoint_pages` it is due to be copied back: SQLite itself would do so inside any COMMIT.
    """

    def __init__(
        self,
        path: str,
        *,
        vfs: str | None = None,
        exclusive: bool = False,
        synchronous: str = "FULL",
        checkpoint_pages: int = _CHECKPOINT_PAGES,
        older: bool = False,
        reserve: Reserve | None = None,
    ) -> None:
        self._reserve = reserve
        self._path, self._vfs, self._exclusive = path, vfs, exclusive
        self._checkpoint_pages, self._wal_pages = checkpoint_pages, 0
        self._lock_fd = -1
        connections: list[apsw.Connection] = []
        try:
            if vfs is None:
                modes.ensure(Path(path))
            if not exclusive:
                self._lock_fd = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, modes.FILE)
            # not mapped: it would be mapped anew whenever another process has written
            self._writer = self._connect(_BUSY_MILLISECONDS, connections, mapped=False)
            self._writer.execute("PRAGMA journal_mode=WAL")
            self._writer.execute("PRAGMA secure_delete=ON")  # rows that are removed are overwritten
            self._writer.execute(f"PRAGMA synchronous={synchronous}")
            self._writer.set_wal_hook(self._committed)
            self.format = self._known_format(older=older)
            self._reader = self._writer if exclusive else self._connect(_READ_MILLISECONDS, connections, mapped=True)
        except OSError as error:
            raise self._unopened(connections, self._cannot_open(error)) from None
        except apsw.Error as error:
            broken = connections[-1] if connections else None
            raise self._unopened(
                connections, unavailable(error, f"the database {path} cannot be opened", broken)
            ) from None
        except Exception as error:
            raise self._unopened(connections, error) from None

    def _known_format(self, *, older: bool) -> int:
        """The format of what is there; a store that is new is made. Raises StoreUnavailable, StoreOutdated."""
        look = SqliteTransaction(self._writer)
        if not self._has_format(look):
            self.commit([lambda tx: schema.migrate(tx, self._has_format(tx))])
        found = schema.version(look)
        if found > schema.VERSION:
            schema.migrate(look, table_exists=True)  # raises, and says why
        if found < schema.VERSION and not older:
            reason = f"the store has format {found}, and this Fubako needs {schema.VERSION}: {faults.OUTDATED.remedy}"
            raise StoreOutdated(reason)
        missing = schema.tables() - {row[0] for row in look.rows("SELECT name FROM sqlite_master WHERE type='table'")}
        if found == schema.VERSION and missing:
            what = f"the database {self._path} has no table {min(missing)}"
            raise StoreUnavailable(f"{what}; {faults.MALFORMED.remedy}", faults.MALFORMED)
        return found

    @staticmethod
    def _has_format(tx: Transaction) -> bool:
        return tx.row("SELECT 1 FROM sqlite_master WHERE name='format'") is not None

    def _unopened(self, connections: Sequence[apsw.Connection], error: Exception) -> Exception:
        """Nothing is held by a store that could not be opened."""
        for connection in connections:
            connection.close(True)
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
        return error

    def _cannot_open(self, error: OSError) -> StoreUnavailable:
        fault = faults.of_errno(error.errno)
        return StoreUnavailable(f"the database {self._path} cannot be opened: {error.strerror}; {fault.remedy}", fault)

    def _connect(self, busy: int, connections: list[apsw.Connection], *, mapped: bool) -> apsw.Connection:
        connection = apsw.Connection(self._path, vfs=self._vfs, statementcachesize=300)
        connections.append(connection)
        connection.set_busy_timeout(busy)
        if self._exclusive:  # before the file is looked at: its WAL would ask for shared memory
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        if mapped:
            connection.execute(f"PRAGMA mmap_size={_MMAP_OCTETS}")
        return connection

    def _committed(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return 0

    @property
    def checkpoint_due(self) -> bool:
        return self._wal_pages >= self._checkpoint_pages

    def checkpoint(self) -> None:
        """Copy the WAL back into the database. When that fails the WAL is as good as before."""
        self._wal_pages = 0
        self.lock(wait=True)
        try:
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except _STORE:
            pass
        finally:
            self.unlock()

    def empty_wal(self) -> None:
        """Copy all of the WAL back and leave nothing in it. A reader may be in the way: then the next time does it."""
        self.lock(wait=True)
        self._writer.set_busy_timeout(_EMPTY_MILLISECONDS)
        try:
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except _STORE:
            pass
        finally:
            self._writer.set_busy_timeout(_BUSY_MILLISECONDS)
            self.unlock()

    def lock(self, *, wait: bool) -> bool:
        """Take turns with other processes. SQLite would poll; this wakes at once."""
        if self._lock_fd < 0:
            return True
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def give_room(self, failure: BaseException) -> bool:
        """Whether what failed is to be tried again, in room that was kept back for it."""
        full = isinstance(failure, StoreFull) and failure.fault is faults.NO_ROOM
        return full and self._reserve is not None and self._reserve.give_back()

    def begin(self, *, wait: bool) -> bool:
        """Take turns with other processes and begin a transaction. Without `wait` False, when another one is at it; with it, for a
        thread, that is waited for. Raises StoreUnavailable; then nothing is held."""
        if not self.lock(wait=wait):
            return False
        try:
            self._writer.set_busy_timeout(_BUSY_MILLISECONDS if wait else 0)
            self._writer.execute("BEGIN IMMEDIATE")
        except apsw.BusyError as error:  # a program that does not take turns with us
            self.abandon()
            if wait:
                raise self._cannot_write(error) from None
            return False
        except _STORE as error:
            self.abandon()
            raise self._cannot_write(error) from None
        return True

    def _cannot_write(self, error: apsw.Error) -> StoreUnavailable:
        return unavailable(error, "the store cannot write", self._writer)

    def run(self, units: Sequence[Unit]) -> tuple[list[Any], set[Place]]:
        """In the transaction that was begun run the units; one that fails is left out, and Failed is its result."""
        transaction = SqliteTransaction(self._writer)
        try:
            try:
                return [unit(transaction) for unit in units], transaction.places
            except _STORE:
                raise
            except Exception:  # it belongs to one unit: begin again, and let each one fail alone
                self._writer.execute("ROLLBACK")
                self._writer.execute("BEGIN IMMEDIATE")
                return [self._alone(unit, transaction) for unit in units], transaction.places
        except _STORE as error:
            self.abandon()
            raise self._cannot_write(error) from None

    def _alone(self, unit: Unit, transaction: SqliteTransaction) -> Any:
        self._writer.execute("SAVEPOINT unit")
        try:
            result = unit(transaction)
        except _STORE:
            raise
        except Exception as error:
            self._writer.execute("ROLLBACK TO unit")
            result = Failed(error)
        self._writer.execute("RELEASE unit")
        return result

    def finish(self) -> None:
        """COMMIT: returns when the rows are on the disk; lets the next process have its turn. Raises StoreUnavailable."""
        try:
            self._writer.execute("COMMIT")
        except _STORE as error:
            self.abandon()
            raise self._cannot_write(error) from None
        self.unlock()

    def abandon(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")
        self.unlock()

    def unlock(self) -> None:
        if self._lock_fd >= 0:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def commit(self, units: Sequence[Unit]) -> tuple[list[Any], set[Place]]:
        """All of it at once, for who may wait. Raises what a unit raised, and then nothing of any of them is written."""
        try:
            return self._commit(units)
        except StoreFull as failure:
            if not self.give_room(failure):
                raise
        return self._commit(units)

    def _commit(self, units: Sequence[Unit]) -> tuple[list[Any], set[Place]]:
        self._take_turn()
        self.begin(wait=True)
        transaction = SqliteTransaction(self._writer)
        try:
            results = [unit(transaction) for unit in units]
        except _STORE as error:
            self.abandon()
            raise self._cannot_write(error) from None
        except Exception:
            self.abandon()
            raise
        self.finish()
        if self.checkpoint_due:
            self.checkpoint()
        return results, transaction.places

    def _take_turn(self) -> None:
        """Wait for other processes, but not for ever. Raises StoreUnavailable."""
        ends = time.monotonic() + _BUSY_MILLISECONDS / 1000
        while not self.lock(wait=False):
            if time.monotonic() > ends:
                raise StoreUnavailable(f"another process works on the database; {faults.BUSY.remedy}", faults.BUSY)
            time.sleep(_POLL_SECONDS)

    def read(self, unit: Callable[[Transaction], T]) -> T:
        """Raises StoreUnavailable."""
        try:
            self._reader.execute("BEGIN")
            try:
                return unit(SqliteTransaction(self._reader))
            finally:
                if self._reader.in_transaction:
                    self._reader.execute("COMMIT")
        except _STORE as error:
            raise unavailable(error, "the store cannot be read", self._reader) from None

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


class Pace:
    """Whether the disk syncs quickly enough to be waited for: by a moving mean of the last commits."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._skipped = 0

    @property
    def quick(self) -> bool:
        if self._mean < QUICK_SECONDS:
            return True
        self._skipped += 1
        return self._skipped % TRY_AGAIN == 0

    def took(self, seconds: float) -> None:
        """One that was slow by chance does not count for more than twice the limit."""
        self._mean += (min(seconds, 2 * QUICK_SECONDS) - self._mean) / 8


class SqliteDatabase:
    """Group commit: units gather while the one before is being synced, run on the loop together, and wake together.

    Reads run where they are asked for, because they take microseconds; so do commits while the disk is quick. A commit costs nearly
    the same for one unit as for ten: units for which no peer waits go with those that come next.
    """

    def __init__(self, core: SqliteCore, changes: Changes | None = None, clock: Clock | None = None) -> None:
        self.core = core
        self._clock = clock or SystemClock()
        self._changes = changes
        self._loop = asyncio.get_running_loop()
        self._syncing = Syncing("database")
        self._waiting: list[Waiting] = []
        self._busy = False
        self._pressing = False  # a unit that waits is not patient
        self._last_pressing = float("-inf")  # when the last of those came
        self._timer: asyncio.TimerHandle | None = None  # patient units wait for company
        self._watch: asyncio.TimerHandle | None = None  # while another process has the database
        self._pace = Pace()
        self._closed = False
        self._idle: asyncio.Future[None] | None = None

    async def write(self, unit: Callable[[Transaction], T], *, patient: bool = False) -> T:
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append((unit, future, OWED.get()))
        if not patient:
            self._pressing, self._last_pressing = True, self._loop.time()
        if not self._busy:
            self._start()
        return await future

    def _start(self) -> None:
        """Begin at once, or a little later when all that waits is patient and others are likely to come."""
        if not self._pressing and self._idle is None and self._loop.time() - self._last_pressing < PATIENCE_SECONDS:
            if self._timer is None:
                self._timer = self._loop.call_later(PATIENCE_SECONDS, self._patience_ended)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._busy = True
        self._loop.call_soon(self._begin)

    def _patience_ended(self) -> None:
        self._timer = None
        self._busy = True
        self._begin()

    def _begin(self) -> None:
        try:
            begun = self.core.begin(wait=False)
        except StoreUnavailable as failure:
            self._run(None, failure)
            return
        if begun:
            self._run(None, None)
        else:
            self._watch = self._loop.call_later(BUSY_SECONDS, self._too_long)
            self._syncing.run(lambda: self.core.begin(wait=True), self._run)

    def _too_long(self) -> None:
        """Another process keeps the database: who waits is told so. The thread waits on, for who comes later."""
        waiting, self._waiting = self._waiting, []
        reason = f"another process has kept the database for {BUSY_SECONDS:.0f} seconds; {faults.BUSY.remedy}"
        for _, future, _ in waiting:
            settle(future, StoreUnavailable(reason, faults.BUSY))
        self._watch = self._loop.call_later(BUSY_SECONDS, self._too_long)

    def _run(self, _begun: Any, error: BaseException | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
        # who was cancelled before his unit began has nothing done; everybody else is owed an answer
        batch = [waiting for waiting in batch if not waiting[1].done()]
        for _, _, owed in batch:
            if owed is not None:
                owed.begun = True
        self._pressing = bool(self._waiting)  # of a batch that was too large, nobody knows who waits
        try:
            if error is not None:
                raise error
            results, places = self.core.run([unit for unit, _, _ in batch])
        except Exception as failure:
            if not self._tried_again(batch, failure):
                self._end(batch, [Failed(failure)] * len(batch), set())
            return
        if not self._pace.quick:
            self._syncing.run(self.core.finish, lambda _, failed: self._finished(batch, results, places, failed))
            return
        failed: BaseException | None = None
        before = self._clock.monotonic()
        try:
            self.core.finish()
        except Exception as failure:
            failed = failure
        self._pace.took(self._clock.monotonic() - before)
        self._finished(batch, results, places, failed)

    def _finished(
        self,
        batch: list[Waiting],
        results: list[Any],
        places: set[Place],
        failed: BaseException | None,
    ) -> None:
        if failed is not None and self._tried_again(batch, failed):
            return
        if failed is not None:
            results, places = [Failed(failed)] * len(batch), set()
        self._end(batch, results, places)

    def _tried_again(self, batch: list[Waiting], failure: BaseException) -> bool:
        """Once, on a disk that has just become full."""
        if not self.core.give_room(failure):
            return False
        self._waiting[:0] = batch
        self._pressing = True
        self._go_on()
        return True

    def _end(self, batch: list[Waiting], results: list[Any], places: set[Place]) -> None:
        for (_, future, _), result in zip(batch, results, strict=True):
            settle(future, result.error if isinstance(result, Failed) else result)
        if places and self._changes is not None:
            self._changes.publish(places)
        if self.core.checkpoint_due:
            self._syncing.run(self.core.checkpoint, lambda _, error: self._go_on())
        else:
            self._go_on()

    def _go_on(self) -> None:
        self._busy = False
        if self._waiting:
            self._start()
        elif self._idle is not None:
            settle(self._idle, None)

    async def read(self, unit: Callable[[Transaction], T]) -> T:
        return self.core.read(unit)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._busy or self._waiting:
            self._idle = self._loop.create_future()
            if not self._busy:
                self._start()
            while not self._idle.done():
                await asyncio.wait([self._idle], timeout=CLOSE_SECONDS)
                if not self._idle.done() and self._watch is not None:
                    self._too_long()  # another process has the database: nothing was begun, and the thread ends with us
                    return
        await self._syncing.close()
        self.core.close()

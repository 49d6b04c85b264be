"""From an older format of the rows to this one, and back.

Invariant: what was there stays as it was, as a copy beside, until the new rows are on the disk, and a while longer. All steps
are one transaction: a migration that ends in the middle has not begun.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from fubako.store import faults, schema
from fubako.store.interface import StoreError, StoreFull, StoreUnavailable, Transaction
from fubako.store.sqlite import SqliteCore

KEPT_SECONDS = 7 * 24 * 3600  # the copy; it holds what was removed since, too


class Migration(Struct, frozen=True, kw_only=True):
    """What was done, or would be: `statements` lead from `found` to `version`; `copy`: the rows as they were, of `octets`."""

    found: int
    version: int
    statements: int
    copy: Path
    octets: int


class _Tried(Exception):
    """Ends the transaction of a dry run: nothing of it is written."""


def copy_of(path: Path, found: int) -> Path:
    return path.with_name(f"{path.name}.format-{found}")


def copies(path: Path) -> list[Path]:
    """The newest first."""
    found = path.parent.glob(f"{path.name}.format-*")
    return sorted((one for one in found if one.suffix.removeprefix(".format-").isdigit()), key=_format_of, reverse=True)


def _format_of(copy: Path) -> int:
    return int(copy.suffix.removeprefix(".format-"))


def migrate(path: Path, *, dry_run: bool = False) -> Migration | None:
    """None: it has this format already. Nobody else may use the store meanwhile. Raises StoreUnavailable; then
    the rows are as they were."""
    core = SqliteCore(str(path), older=True)
    try:
        if core.format == schema.VERSION:
            return None
        plan = _plan(path, core.format)
        if dry_run:
            _run_all(core, write=False)
            return plan
        _require_room(plan)
        _copy(core, plan.copy)
        _run_all(core, write=True)
        core.checkpoint()
        return plan
    finally:
        core.close()


def _plan(path: Path, found: int) -> Migration:
    return Migration(
        found=found,
        version=schema.VERSION,
        statements=len(list(schema.statements(found))),
        copy=copy_of(path, found),
        octets=path.stat().st_size,
    )


def _run_all(core: SqliteCore, *, write: bool) -> None:
    def unit(tx: Transaction) -> None:
        schema.migrate(tx, table_exists=True)
        if not write:
            raise _Tried

    try:
        core.commit([unit])
    except _Tried:
        return
    except StoreError:
        raise
    except Exception as error:  # a step does not fit these rows
        reason = (
            f"the rows cannot be brought from format {core.format} to {schema.VERSION}, and are as they were: {error}"
        )
        raise StoreUnavailable(f"{reason}; {faults.MALFORMED.remedy}", faults.MALFORMED) from error


def _require_room(plan: Migration) -> None:
    """The copy, and rows written anew."""
    free = shutil.disk_usage(plan.copy.parent).free
    if free < 2 * plan.octets:
        raise StoreFull(
            f"a migration from format {plan.found} needs {2 * plan.octets} octets for a copy, and {free} are free",
            faults.NO_ROOM,
        )


def _copy(core: SqliteCore, copy: Path) -> None:
    """Made beside, and named once it is whole and on the disk."""
    part = copy.with_name(copy.name + ".part")
    _remove(part)
    try:
        core.backup(part)
        _sync(part)
        part.rename(copy)
        _sync(copy.parent)
    except OSError as error:
        fault = faults.of_errno(error.errno)
        raise StoreUnavailable(f"{copy} cannot be made: {error.strerror}; {fault.remedy}", fault) from None


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(path: Path) -> None:
    for end in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{end}").unlink(missing_ok=True)


def forget_copies(path: Path, now: float) -> None:
    """Those that have been kept for long enough go: what people remove is not to stay in them."""
    for one in [*copies(path), _aside(path)]:
        with suppress(OSError):
            if now - one.stat().st_mtime > KEPT_SECONDS:
                _remove(one)


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ".newer")


class Back(Struct, frozen=True, kw_only=True):
    """What going back means: to `found`, without the `messages` that came since."""

    found: int
    messages: int


def look_back(path: Path) -> Back:
    """Raises StoreError where there is nothing to go back to."""
    copy = next(iter(copies(path)), None)
    if copy is None:
        raise StoreError(f"no copy of an older format stands beside {path}")
    old, new = _messages(copy, alone=True), _messages(path, alone=False)
    return Back(found=_format_of(copy), messages=len(new - old))


def _messages(path: Path, *, alone: bool) -> set[tuple[int, int, int]]:
    """`alone`: nobody else uses it, so that no file of locks is made beside it."""
    core = SqliteCore(str(path), older=True, exclusive=alone)
    try:
        return {
            (a, m, u) for a, m, u in core.read(lambda tx: tx.rows("SELECT account_id, mailbox_id, uid FROM message"))
        }
    finally:
        core.close()


def back(path: Path, there: Callable[[set[int]], bool]) -> Back:
    """The rows as they were before the last migration take the place of those of now, which are kept beside as `.newer`.
    `there`: whether segments of these numbers are all there still. Nobody else may use the store meanwhile. Raises StoreError."""
    done = look_back(path)
    copy = copy_of(path, done.found)
    core = SqliteCore(str(copy), older=True, exclusive=True)
    try:
        needed = {int(row[0]) for row in core.read(lambda tx: tx.rows("SELECT DISTINCT segment FROM blob"))}
    finally:
        core.close()
    if not there(needed):
        raise StoreError(f"contents have been moved since {copy.name} was made: only a backup leads back")
    newer = SqliteCore(str(path), older=True)
    newer.empty_wal()
    newer.close()
    aside = _aside(path)
    aside.unlink(missing_ok=True)
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    os.link(path, aside)
    copy.replace(path)  # at no moment there are no rows
    _sync(path.parent)
    return done

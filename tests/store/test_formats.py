"""Stores of older formats, written by the statements of their time, become stores of this one: at once, after being ended at any
statement, not at all in a dry run, and back again.

Left out: the power, which `tests/sim` cuts; here a migration ends as it does when its process is killed.
"""

import asyncio
import re
import shutil
from pathlib import Path

import apsw
import pytest

from fubako import app
from fubako.store import faults, migration, schema
from fubako.store.interface import StoreError, StoreOutdated, StoreUnavailable
from fubako.store.sqlite import SqliteCore, SqliteTransaction

FORMATS = Path(__file__).parent / "formats"
OLD = [int(re.sub(r"\D", "", path.name.partition(".")[0])) for path in sorted(FORMATS.glob("format-*.sql"))]


def written(directory: Path, found: int) -> Path:
    """A store as that Fubako left it."""
    app.prepare(directory)
    shutil.copy(FORMATS / "000000000001.segment", directory / "segments")
    path = directory / "mail.sqlite"
    old = apsw.Connection(str(path))
    old.execute((FORMATS / f"format-{found}.sql").read_text())
    old.close()
    return path


def rows(path: Path) -> dict[str, list]:
    """All of it, by table."""
    connection = apsw.Connection(str(path))
    try:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        return {name: sorted(map(repr, connection.execute(f"SELECT * FROM {name}"))) for name in names}
    finally:
        connection.close()


class Killed(BaseException):
    pass


def test_every_older_format_has_a_fixture():
    assert list(range(1, schema.VERSION)) == OLD


@pytest.mark.parametrize("found", OLD)
def test_a_store_of_an_older_format_is_whole_after_its_migration(tmp_path, found):
    path = written(tmp_path / "store", found)
    before = rows(path)
    done = app.migrate_store(tmp_path / "store")
    assert (done.found, done.version) == (found, schema.VERSION)
    after = rows(path)
    assert set(after) == schema.tables()
    kept = [repr(row) for row in ((1, "bob@here.test"), (2, "eve@here.test"))]
    assert [row[: len(one) - 1] for row, one in zip(after["account"], kept, strict=True)] == [one[:-1] for one in kept]
    assert len(after["message"]) == len(before["message"]) == 4
    assert rows(done.copy) == before
    report = app.verify_store(tmp_path / "store", lambda _done, _all: None)
    assert report.faults == [] and report.messages == 4
    assert app.migrate_store(tmp_path / "store") is None


@pytest.mark.parametrize("found", OLD)
def test_one_that_is_killed_at_any_statement_runs_again(tmp_path, monkeypatch, found):
    path = written(tmp_path / "straight", found)
    before = rows(path)
    migration.migrate(path)
    expected, run, counted = rows(path), SqliteTransaction.run, [0]

    def counting(tx, sql, parameters=()):
        counted[0] -= 1
        if not counted[0]:
            raise Killed
        run(tx, sql, parameters)

    monkeypatch.setattr(SqliteTransaction, "run", counting)
    killed = 0
    while True:
        path = written(tmp_path / f"at{killed + 1}", found)
        counted[0] = killed + 1
        try:
            migration.migrate(path)
            break
        except Killed:
            killed += 1
        counted[0] = 0
        assert rows(path) == before
        migration.migrate(path)
        assert rows(path) == expected, f"killed at statement {killed}"
    statements = [one for one in schema.statements(found) if isinstance(one, str)]
    assert killed >= len(statements) + 2  # those, and the version


def test_one_that_is_killed_while_the_copy_is_made_runs_again(tmp_path, monkeypatch):
    path = written(tmp_path / "store", 4)
    before = rows(path)
    rename = Path.rename

    def killed(*_paths):
        raise Killed

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(Killed):
        migration.migrate(path)
    assert rows(path) == before and migration.copies(path) == []
    monkeypatch.setattr(Path, "rename", rename)
    assert rows(migration.migrate(path).copy) == before


def test_a_dry_run_writes_nothing_and_finds_what_fails(tmp_path, monkeypatch):
    path = written(tmp_path / "store", 2)
    before = rows(path)
    plan = app.migrate_store(tmp_path / "store", dry_run=True)
    assert (plan.found, plan.version) == (2, schema.VERSION)
    assert plan.statements > 20
    assert rows(path) == before and migration.copies(path) == []
    monkeypatch.setitem(schema._STEPS, 4, ("CREATE TABLE account (nonsense BIGINT)",))
    for dry_run in (True, False):
        with pytest.raises(StoreUnavailable, match="cannot be brought from format 2"):
            migration.migrate(path, dry_run=dry_run)
        assert rows(path) == before


def test_back_to_the_rows_as_they_were(tmp_path):
    directory = tmp_path / "store"
    path = written(directory, 4)
    before = rows(path)
    app.migrate_store(directory)
    assert app.look_back(directory).messages == 0
    assert app.back_store(directory).found == 4
    assert rows(path) == before
    with pytest.raises(StoreError, match="no copy"):
        app.look_back(directory)
    app.migrate_store(directory)
    (directory / "segments" / "000000000001.segment").unlink()  # as a compaction does
    with pytest.raises(StoreError, match="only a backup leads back"):
        app.back_store(directory)


def test_copies_go_after_their_time(tmp_path):
    path = written(tmp_path / "store", 3)
    copy = app.migrate_store(tmp_path / "store").copy
    made = copy.stat().st_mtime
    migration.forget_copies(path, made + migration.KEPT_SECONDS - 1)
    assert copy.exists()
    migration.forget_copies(path, made + migration.KEPT_SECONDS + 1)
    assert not copy.exists() and path.exists()


def test_messages_that_came_since_are_counted(tmp_path):
    path = written(tmp_path / "store", 4)
    app.migrate_store(tmp_path / "store")
    columns = [row[1] for row in apsw.Connection(str(path)).execute("PRAGMA table_info(message)")]
    one = ", ".join("77" if name == "uid" else name for name in columns)
    apsw.Connection(str(path)).execute(f"INSERT INTO message SELECT {one} FROM message WHERE account_id=2")
    assert app.look_back(tmp_path / "store").messages == 1


async def opened(directory) -> None:
    await app.open_store(directory).close()


def test_commands_do_not_migrate_beside_an_older_server(tmp_path):
    path = written(tmp_path / "store", 4)
    with pytest.raises(StoreOutdated):
        SqliteCore(str(path))
    before = rows(path)
    held = app.storage._claim(tmp_path / "store")
    with pytest.raises(StoreOutdated, match="a server of an older Fubako runs"):
        asyncio.run(opened(tmp_path / "store"))
    app.storage.os.close(held)
    with pytest.raises(StoreOutdated, match="fubako store migrate"):  # it says that it changes nothing
        app.verify_store(tmp_path / "store", lambda _done, _all: None)
    assert rows(path) == before
    asyncio.run(opened(tmp_path / "store"))
    assert app.verify_store(tmp_path / "store", lambda _done, _all: None).faults == []


def test_a_store_of_a_newer_format_does_not_open(tmp_path):
    path = str(tmp_path / "mail.sqlite")
    SqliteCore(path).close()
    apsw.Connection(path).execute("UPDATE format SET version=version+1")
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="a newer Fubako wrote it") as raised:
            SqliteCore(path)
        assert raised.value.fault is faults.NEWER


def test_what_a_step_raises_is_raised(tmp_path, monkeypatch):
    """And of several units that are committed at once for somebody who waits, none is written."""
    monkeypatch.setitem(schema._STEPS, 3, ("CREATE TABLE account (nonsense BIGINT)",))
    with pytest.raises(StoreUnavailable):
        SqliteCore(str(tmp_path / "mail.sqlite"))
    monkeypatch.undo()
    core = SqliteCore(str(tmp_path / "mail.sqlite"))
    with pytest.raises(ZeroDivisionError):
        core.commit([lambda tx: tx.run("INSERT INTO domain (name, created) VALUES ('a.test', 1)"), lambda _tx: 1 / 0])
    assert core.read(lambda tx: tx.rows("SELECT * FROM domain")) == []
    core.close()

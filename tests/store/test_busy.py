"""Another process has the database: the loop goes on, who waits is told so in time, and nothing stays held afterwards.

The other process is another connection in this one, which SQLite and flock keep apart just as well. Left out: how long a person's
patience lasts; the limits are set to almost nothing.
"""

import asyncio

import apsw
import pytest
from memory_server import MemoryServer

from fubako.store import faults, sqlite
from fubako.store.interface import StoreUnavailable
from fubako.store.sqlite import SqliteCore, SqliteDatabase


class Other:
    """Holds the database, by SQLite's lock or by taking a turn that does not end."""

    def __init__(self, path: str, how: str) -> None:
        self.how = how
        self.core = SqliteCore(path)
        self.connection = apsw.Connection(path)

    def hold(self) -> None:
        if self.how == "flock":
            assert self.core.lock(wait=False)
        else:
            self.connection.execute("BEGIN IMMEDIATE")

    def let_go(self) -> None:
        if self.how == "flock":
            self.core.unlock()
        else:
            self.connection.execute("ROLLBACK")

    def close(self) -> None:
        self.connection.close()
        self.core.close()


def note(tx):
    tx.run("INSERT INTO domain (name, created) VALUES ('new.test', 1)")


@pytest.mark.parametrize("how", ["flock", "sqlite"])
def test_the_loop_goes_on_and_who_waits_is_told(monkeypatch, how):
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)

    async def test():
        async with MemoryServer("smtp", {"service": "smtp"}) as server:
            other = Other(str(server.store.directory / "mail.sqlite"), how)
            client = await server.connect()
            for line in (b"EHLO x", b"MAIL FROM:<a@b.test>", b"RCPT TO:<bob@gcd.org>", b"DATA"):
                client.send(line + b"\r\n")
            while not (await client.line()).startswith("354"):
                pass
            other.hold()
            turns = 0
            waiting = asyncio.ensure_future(server.store.database.write(note))
            client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
            while not waiting.done():
                await asyncio.sleep(0)
                turns += 1
            assert turns > 10
            with pytest.raises(StoreUnavailable) as raised:
                waiting.result()
            assert raised.value.fault is faults.BUSY
            assert await client.line() == "451 4.3.2 the store is busy, try again later"
            later = asyncio.ensure_future(server.store.database.write(note))
            await asyncio.sleep(0)
            other.let_go()
            await later
            client.send(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@gcd.org>\r\nDATA\r\n")
            while not (await client.line()).startswith("354"):
                pass
            client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
            assert (await client.line()).startswith("250 ")
            other.close()

    asyncio.run(asyncio.wait_for(test(), 60))


@pytest.mark.parametrize("how", ["flock", "sqlite"])
def test_a_command_that_waited_in_vain_holds_nothing(tmp_path, monkeypatch, how):
    path = str(tmp_path / "mail.sqlite")
    core, other = SqliteCore(path), Other(path, how)
    other.hold()
    monkeypatch.setattr(sqlite, "_BUSY_MILLISECONDS", 1)
    with pytest.raises(StoreUnavailable) as raised:
        core.commit([note])
    assert raised.value.fault is faults.BUSY
    other.let_go()
    assert other.core.lock(wait=False)
    other.core.unlock()
    core.commit([note])
    core.close()
    other.close()


def test_a_server_that_ends_does_not_wait_for_the_other_one(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "CLOSE_SECONDS", 0.01)

    async def test():
        path = str(tmp_path / "mail.sqlite")
        database, other = SqliteDatabase(SqliteCore(path)), Other(path, "flock")
        other.hold()
        waiting = asyncio.ensure_future(database.write(note))
        await asyncio.sleep(0)
        await database.close()
        with pytest.raises(StoreUnavailable):
            await waiting
        other.let_go()
        other.close()

    asyncio.run(asyncio.wait_for(test(), 20))


def test_who_is_cancelled_before_his_turn_has_nothing_done():
    async def test():
        async with MemoryServer("smtp", {}) as server:
            database = server.store.database
            first = asyncio.ensure_future(database.write(note))
            await asyncio.sleep(0)
            second = asyncio.ensure_future(database.write(lambda tx: tx.run("DELETE FROM domain")))
            await asyncio.sleep(0)
            second.cancel()
            await first
            await database.write(lambda _tx: None)
            assert await database.read(lambda tx: len(tx.rows("SELECT name FROM domain"))) == 2

    asyncio.run(asyncio.wait_for(test(), 20))

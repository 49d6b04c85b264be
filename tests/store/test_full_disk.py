"""A full disk, and one that fails to sync: 452 and nothing half-written; the next letter goes when there is room again."""

import asyncio
import errno

import pytest
from memory_server import MemoryServer

from fubako.store import disk


async def send(client) -> str:
    for command in (b"MAIL FROM:<a@b.test>", b"RCPT TO:<bob@gcd.org>", b"DATA"):
        client.send(command + b"\r\n")
        await client.line()
    client.send(b"Subject: x\r\n\r\nbody\r\n.\r\n")
    return await client.line()


async def letters(server) -> int:
    return (await server.store.database.read(lambda tx: tx.row("SELECT count(*) FROM message")))[0]


REPLIES = {errno.ENOSPC: "452 4.3.1 no room", errno.EIO: "451 4.3.0 the disk fails", errno.EDQUOT: "452 4.3.1 no room"}


@pytest.mark.parametrize("code", REPLIES)
def test_segments_cannot_be_written(monkeypatch, code):
    async def test():
        async with MemoryServer("smtp", {"service": "smtp"}) as server:
            client = await server.connect()
            client.send(b"EHLO x\r\n")
            while not (await client.line()).startswith("250 "):
                pass
            assert (await send(client)).startswith("250 ")
            real = disk.OsHandle.append_synced

            def torn(handle, buffers):
                handle.append([b"".join(buffers)[:20]])
                raise OSError(code, "no room")

            monkeypatch.setattr(disk.OsHandle, "append_synced", torn)
            assert await send(client) == REPLIES[code] + ", try again later"
            monkeypatch.setattr(disk.OsHandle, "append_synced", real)
            assert (await send(client)).startswith("250 ")
            assert await letters(server) == 2
            segments = server.store.blobs.core
            assert all(record.whole for number in segments.numbers() for record in segments.records(number))

    asyncio.run(asyncio.wait_for(test(), 20))


def test_rows_cannot_be_committed(monkeypatch):
    from fubako.store.interface import StoreFull
    from fubako.store.sqlite import SqliteCore

    async def test():
        async with MemoryServer("smtp", {"service": "smtp"}) as server:
            client = await server.connect()
            client.send(b"EHLO x\r\n")
            while not (await client.line()).startswith("250 "):
                pass
            real = SqliteCore.finish

            def fail(core):
                core.abandon()
                raise StoreFull("the store cannot write: disk full")

            monkeypatch.setattr(SqliteCore, "finish", fail)
            assert await send(client) == "452 4.3.1 no room, try again later"
            assert await letters(server) == 0
            monkeypatch.setattr(SqliteCore, "finish", real)
            assert (await send(client)).startswith("250 ")
            assert await letters(server) == 1

    asyncio.run(asyncio.wait_for(test(), 20))


def test_one_unit_that_fails_does_not_spoil_the_others():
    async def test():
        async with MemoryServer("smtp", {}) as server:
            database = server.store.database

            def good(name):
                return lambda tx: tx.run("INSERT INTO domain (name, created) VALUES (?, 1)", (name,))

            def bad(tx):
                tx.run("INSERT INTO domain (name, created) VALUES ('bad', 1)")
                raise ValueError("mine alone")

            results = await asyncio.gather(
                database.write(good("one")), database.write(bad), database.write(good("two")), return_exceptions=True
            )
            assert isinstance(results[1], ValueError) and results[0] is results[2] is None
            names = {row[0] for row in await database.read(lambda tx: tx.rows("SELECT name FROM domain"))}
            assert {"one", "two"} <= names and "bad" not in names

    asyncio.run(asyncio.wait_for(test(), 20))

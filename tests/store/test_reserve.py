"""On a full disk people can make room: flags, EXPUNGE, DELE and logins go on, letters wait, and come once there is room again.

The disk is a tmpfs where this user may mount one; else, and for the moments that it does not hit, a commit that is made to fail.
Left out: a disk so full that not even the reserve could be made.
"""

import asyncio
import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from memory_server import MemoryServer
from server import without

from fubako import app
from fubako.accounts import directory, secrets
from fubako.store import faults
from fubako.store.interface import StoreFull
from fubako.store.reserve import RESERVE_OCTETS, Reserve
from fubako.store.sqlite import SqliteCore


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(disk)], check=False).returncode:
        without("only root can mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Everything but nothing."""
    path = disk / "filler"
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return path


async def smtp_letter(client, size=100) -> str:
    client.send(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@gcd.org>\r\nDATA\r\n")
    while not (line := await client.line()).startswith(("354", "4", "5")):
        pass
    assert line.startswith("354"), line
    client.send(b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n" * (size // 72 + 1) + b".\r\n")
    return await client.line()


class OnDisk(MemoryServer):
    def __init__(self, protocol, given, disk: Path) -> None:
        super().__init__(protocol, given)
        self._folder.cleanup()

        class Folder:
            name = str(disk)

            @staticmethod
            def cleanup():
                pass

        self._folder = Folder


async def say(client, *lines: bytes) -> list[str]:
    """The tagged or single answers to each."""
    heard = []
    for line in lines:
        client.send(line + b"\r\n")
        tag = line.split(b" ")[0].decode()
        while not (answer := await client.line()).startswith((tag + " ", "+OK", "-ERR")):
            pass
        heard.append(answer)
    return heard


@pytest.mark.timeout(120)
def test_on_a_full_disk_people_make_room(small_disk):
    async def test():
        async with OnDisk("imap", {"channel": "local"}, small_disk) as server:
            made = app.storage.Reserve(server.store.directory / "run" / "reserve")
            assert made.held
            imap = await server.connect()
            await imap.line()
            assert "OK" in (await say(imap, b'a LOGIN bob@gcd.org "pw"'))[0]
            body = b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 40
            for number in range(20):
                assert "OK" in (await say(imap, b"%d APPEND INBOX {%d+}\r\n%b" % (number, len(body), body)))[0]
            filler = fill(small_disk)
            server.protocol, server.given = "smtp", {"service": "smtp"}
            smtp = await server.connect()
            smtp.send(b"EHLO x\r\n")
            refused = 0
            for _ in range(500):  # until what lies ready, and the WAL, are full as well
                refused = refused + 1 if (await smtp_letter(smtp, 50_000)).startswith("452 4.3.1") else 0
                if refused == 3:
                    break
            assert refused == 3
            said = await say(
                imap,
                b"b SELECT INBOX",
                b"c STORE 1:10 +FLAGS (\\Deleted)",
                b"d EXPUNGE",
                b"e STORE 1:* +FLAGS (\\Seen)",
            )
            assert all(" OK " in one for one in said), said
            server.protocol, server.given = "pop3", {"channel": "local"}
            pop3 = await server.connect()
            await pop3.line()
            said = await say(
                pop3, b"USER sengoku@gcd.org", b"PASS secret phrase", b"QUIT"
            )  # the first login of an account
            assert all(one.startswith("+OK") for one in said), said
            pop3 = await server.connect()
            await pop3.line()
            said = await say(pop3, b"USER bob@gcd.org", b"PASS pw", b"DELE 1", b"QUIT")
            assert all(one.startswith("+OK") for one in said), said
            assert (await smtp_letter(smtp)).startswith("452 4.3.1")  # the room is for rows
            filler.unlink()
            assert (await smtp_letter(smtp)).startswith("250 ")
            assert made.held

    asyncio.run(test())


def failing(monkeypatch, reserve: Reserve, where: str) -> None:
    """No room at `where`, as long as the reserve is held, or once it is held again."""
    real = getattr(SqliteCore, where)

    def fail(core, *arguments, **options):
        if reserve.held:
            core.abandon()
            raise StoreFull("no room", faults.NO_ROOM)
        return real(core, *arguments, **options)

    monkeypatch.setattr(SqliteCore, where, fail)


@pytest.mark.parametrize("where", ["run", "finish"])
def test_what_found_no_room_is_done_once_in_the_room_that_was_kept_back(monkeypatch, where):
    async def test():
        async with MemoryServer("smtp", {}) as server:
            reserve = Reserve(server.store.directory / "run" / "reserve")
            assert reserve.held
            failing(monkeypatch, reserve, where)
            units = [
                server.store.database.write(
                    lambda tx, name=name: tx.run("INSERT INTO domain (name, created) VALUES (?,1)", (name,))
                )
                for name in ("one.test", "two.test")
            ]
            await asyncio.gather(*units)
            assert not reserve.held
            monkeypatch.undo()
            rows = await server.store.database.read(lambda tx: tx.rows("SELECT name FROM domain ORDER BY name"))
            assert rows == [("gcd.org",), ("one.test",), ("two.test",)]

    asyncio.run(asyncio.wait_for(test(), 20))


def test_a_disk_that_stays_full_is_told_as_one(monkeypatch):
    async def test():
        async with MemoryServer("smtp", {}) as server:

            def full(core):
                core.abandon()
                raise StoreFull("no room", faults.NO_ROOM)

            monkeypatch.setattr(SqliteCore, "finish", full)
            with pytest.raises(StoreFull):
                await server.store.database.write(lambda tx: tx.run("DELETE FROM domain"))
            with pytest.raises(StoreFull):
                server.store.database.core.commit([lambda tx: tx.run("DELETE FROM domain")])
            monkeypatch.undo()

    asyncio.run(asyncio.wait_for(test(), 20))


def test_no_content_is_taken_while_the_reserve_is_given_back(monkeypatch):
    async def test():
        async with MemoryServer("smtp", {}) as server:
            reserve = Reserve(server.store.directory / "run" / "reserve")
            assert reserve.give_back() and not reserve.give_back()
            real = os.statvfs

            class Full:
                f_bavail, f_frsize = RESERVE_OCTETS // 4096, 4096

            monkeypatch.setattr(os, "statvfs", lambda _path: Full)
            with pytest.raises(StoreFull) as raised:
                await server.store.blobs.put([b"content"])
            assert raised.value.fault is faults.NO_ROOM
            monkeypatch.setattr(os, "statvfs", real)
            await server.store.blobs.put([b"content"])
            assert reserve.held

    asyncio.run(asyncio.wait_for(test(), 20))


def test_the_first_login_of_an_imported_user_does_not_need_to_write(monkeypatch):
    async def test():
        async with MemoryServer("imap", {"channel": "local"}) as server:

            def unit(tx):
                account = directory.add_account(tx, "old@gcd.org", 1)
                secrets.keep(tx, account.account_id, secrets.taken_over("{SSHA}Qok01W1ecPvQ1TnjvhhmxBvEr9xhYmNk", 1))

            await server.store.database.write(unit)

            def full(core):
                core.abandon()
                raise StoreFull("no room", faults.NO_ROOM)

            client = await server.connect()
            await client.line()
            monkeypatch.setattr(SqliteCore, "finish", full)
            assert " OK " in (await say(client, b"a LOGIN old@gcd.org words"))[0]
            monkeypatch.undo()

    asyncio.run(asyncio.wait_for(test(), 20))

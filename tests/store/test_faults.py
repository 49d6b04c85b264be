"""Every state in which the rows can be found has one sentence and one exit code; every error number has its own answer.

Left out: disks that really fail. The states are made by hand, the error numbers by a system call that is replaced.
"""

import asyncio
import errno
import os
import re

import apsw
import pytest
from memory_server import MemoryServer

from fubako import app
from fubako.cli.exits import code_of
from fubako.store import disk, faults
from fubako.store.faults import Fault
from fubako.store.interface import StoreFull, StoreUnavailable
from fubako.store.sqlite import SqliteCore, unavailable

TABLE = [fault for fault in vars(faults).values() if isinstance(fault, Fault)]


def store_with_mail(directory):
    """As far as these tests look at it."""
    app.prepare(directory)
    SqliteCore(str(directory / "mail.sqlite")).close()
    (directory / "segments" / "000000000001.segment").write_bytes(b"content")
    return directory / "mail.sqlite"


def missing(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def nonsense(path):
    path.write_bytes(b"nonsense" * 1000)


def torn(path):
    os.truncate(path, 8192)


def malformed(path):
    octets = bytearray(path.read_bytes())
    octets[100:4096] = b"\xff" * 3996  # the page of the tables' names
    path.write_bytes(octets)


def newer(path):
    apsw.Connection(str(path)).execute("UPDATE format SET version=99")


def no_format(path):
    apsw.Connection(str(path)).execute("DELETE FROM format")


def no_table(path):
    apsw.Connection(str(path)).execute("DROP TABLE mailbox")


def half_migrated(path):
    apsw.Connection(str(path)).execute("UPDATE format SET version=version-1")


def a_folder(path):
    path.unlink()
    path.mkdir()


def held(path):
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def started(directory):
    """As a server, and then a command, would."""
    os.close(app.claim(directory))
    app.verify_store(directory, lambda _done, _all: None)


STATES = {
    missing: (os.EX_NOINPUT, "mail.sqlite is missing, and there are segments"),
    empty: (os.EX_DATAERR, "mail.sqlite is empty, and there are segments"),
    nonsense: (os.EX_DATAERR, "file is not a database"),
    torn: (os.EX_DATAERR, "malformed"),
    malformed: (os.EX_DATAERR, "malformed"),
    newer: (os.EX_CONFIG, "a newer Fubako wrote it"),
    no_format: (os.EX_DATAERR, "0 formats instead of one"),
    no_table: (os.EX_DATAERR, "has no table mailbox"),
    half_migrated: (os.EX_DATAERR, "already exists"),
    a_folder: (os.EX_NOINPUT, "cannot be opened"),
    held: (os.EX_TEMPFAIL, "database is locked"),
}


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_each_state_has_a_sentence_and_an_exit_code(tmp_path, monkeypatch, state):
    monkeypatch.setattr("fubako.store.sqlite._BUSY_MILLISECONDS", 1)
    keep = state(store_with_mail(tmp_path / "store"))
    code, words = STATES[state]
    with pytest.raises(StoreUnavailable) as raised:
        started(tmp_path / "store")
    del keep
    found, sentence = code_of(raised.value)
    assert found == code, sentence
    assert words in sentence and "\n" not in sentence and "Error(" not in sentence
    assert raised.value.fault.remedy in sentence


def test_a_new_store_is_not_a_lost_one(tmp_path):
    os.close(app.claim(tmp_path / "store"))
    assert app.migrate_store  # nothing was asked for
    core = SqliteCore(str(tmp_path / "store" / "mail.sqlite"))
    core.close()
    os.close(app.claim(tmp_path / "store"))


def test_the_table_is_whole():
    """Answers are temporary, codes are those of the RFCs, and each number of `errno` has one row."""
    for fault in TABLE:
        assert 450 <= fault.status.code < 460 and fault.status.enhanced.startswith("4.3.")
        assert fault.imap in ("OVERQUOTA", "CONTACTADMIN", "UNAVAILABLE", "INUSE", "SERVERBUG")
        assert fault.pop3 in ("SYS/TEMP", "SYS/PERM")
        assert 64 <= fault.exit_code <= 78
        assert fault.words.isascii() and fault.remedy
    for code in errno.errorcode:
        assert faults.of_errno(code) in TABLE
    assert faults.of_errno(errno.EIO) is not faults.of_errno(errno.ENOSPC)


NUMBERS = {
    errno.ENOSPC: "452 4.3.1 no room, try again later",
    errno.EDQUOT: "452 4.3.1 no room, try again later",
    errno.EIO: "451 4.3.0 the disk fails, try again later",
    errno.EMFILE: "451 4.3.0 too much is open at once, try again later",
    errno.EROFS: "451 4.3.2 the store cannot be written to, try again later",
    errno.EACCES: "451 4.3.5 the store cannot be used, try again later",
}


@pytest.mark.parametrize("code", NUMBERS, ids=errno.errorcode.get)
def test_each_error_number_is_answered_by_what_it_means(monkeypatch, code):
    def fail(_handle, _buffers):
        raise OSError(code, os.strerror(code))

    async def smtp() -> str:
        async with MemoryServer("smtp", {"service": "smtp"}) as server:
            client = await server.connect()
            for line in (b"EHLO x", b"MAIL FROM:<a@b.test>", b"RCPT TO:<bob@gcd.org>", b"DATA"):
                client.send(line + b"\r\n")
            while not (await client.line()).startswith("354"):
                pass
            monkeypatch.setattr(disk.OsHandle, "append_synced", fail)
            client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
            return await client.line()

    async def imap() -> str:
        monkeypatch.undo()
        async with MemoryServer("imap", {"channel": "local"}) as server:
            client = await server.connect()
            await client.line()
            client.send(b'a LOGIN bob@gcd.org "pw"\r\n')
            while not (await client.line()).startswith("a OK"):
                pass
            monkeypatch.setattr(disk.OsHandle, "append_synced", fail)
            client.send(b"b APPEND INBOX {8+}\r\nA: b\r\n\r\n\r\n")
            return await client.line()

    assert asyncio.run(asyncio.wait_for(smtp(), 20)) == NUMBERS[code]
    fault = faults.of_errno(code)
    assert asyncio.run(asyncio.wait_for(imap(), 20)) == f"b NO [{fault.imap}] {fault.words}"


def test_what_sqlite_says_has_a_row(tmp_path):
    seen = {
        type(apsw.exception_for(code)): unavailable(apsw.exception_for(code), "x") for code in range(1, 27) if code != 4
    }
    assert seen[apsw.FullError].fault is faults.NO_ROOM and isinstance(seen[apsw.FullError], StoreFull)
    assert seen[apsw.CorruptError].fault is faults.MALFORMED
    assert seen[apsw.BusyError].fault is faults.BUSY
    assert seen[apsw.ReadOnlyError].fault is faults.READ_ONLY
    assert all(re.match("x: .*; ", str(one)) for one in seen.values())

"""Messages that their worker fails at, and indexes that are damaged: search goes on for everybody. Workers go wrong by a plant
(tests/scan/planted.py), so that no fault of a parser is needed. The world leaves out a server that is killed in the middle: the
index is left by hand as it would have been."""

import asyncio
import sqlite3
import sys
from pathlib import Path

import pytest
from memory_server import MemoryServer

from fubako.app.storage import verify_store
from fubako.scan.jobs import Failure, JobFailed
from fubako.scan.limits import ScanLimits
from fubako.scan.nursery import Nursery
from fubako.store.indexer import Indexer
from fubako.store.quiet import QuietIndexing
from fubako.store.search import SearchIndex
from fubako.telemetry import Telemetry

BOB, INBOX = 2, 1


def planted():
    folder = str(Path(__file__).parent.parent / "scan")
    sys.path.insert(0, folder)
    try:
        return Nursery.start("planted")
    finally:
        sys.path.remove(folder)


class Told(Telemetry):
    def __init__(self):
        super().__init__(quiet=True)
        self.events = []

    def event(self, name, trace_id="", **facts):
        self.events.append((name, facts))


class Ended(BaseException):
    """The end of the process, as far as an index can see."""


class Mailbox:
    """Somebody at his INBOX, in memory."""

    def __init__(self, client):
        self.client = client

    @classmethod
    async def of(cls, server, user="bob", password="pw"):
        self = cls(await server.connect())
        await self.client.line()
        await self.said(f'LOGIN {user} "{password}"')
        return self

    async def said(self, command, octets=b""):
        """The untagged lines of a command and its end."""
        self.client.send(b"t " + command.encode() + octets + b"\r\n")
        lines = []
        while not (line := await self.client.line()).startswith("t "):
            lines.append(line)
        return [*lines, line[2:]]

    async def append(self, *messages):
        block = b"".join(b" {%d+}\r\n%b" % (len(one), one) for one in messages)
        assert (await self.said("APPEND INBOX", block))[-1].startswith("OK")
        assert (await self.said("SELECT INBOX"))[-1].startswith("OK")

    async def search(self, text):
        lines = await self.said(f"UID SEARCH BODY {text}")
        assert lines[-1].startswith("OK"), lines
        return [int(uid) for line in lines if line.startswith("* SEARCH") for uid in line.split()[2:]]


def message(number, fault=""):
    return f"Subject: {number}\r\n\r\nplanted: {fault} \r\nword{number}x everywhere\r\n".encode()


def run(test, **limits):
    async def whole():
        async with MemoryServer("imap", {"channel": "tls"}) as server:
            store = server.store
            store.pool._start = planted
            store.pool.limits = ScanLimits(**{"cpu_seconds": 1.0, "memory_octets": 400 << 20, **limits})
            store.indexer.telemetry = store.pool.telemetry = Told()
            return await test(server)

    return asyncio.run(asyncio.wait_for(whole(), 100))


def events(server, name):
    return [facts for told, facts in server.store.indexer.telemetry.events if told == name]


@pytest.mark.parametrize("fault", ["die", "loop", "grow", "raise"])
@pytest.mark.parametrize("count", [60, 5])  # by the index, and read one by one
def test_a_message_that_its_worker_fails_at_is_passed_over(fault, count):
    async def test(server):
        bob = await Mailbox.of(server)
        await bob.append(*(message(n, fault if n == 3 else "") for n in range(1, count + 1)))
        assert await bob.search("everywhere") == [n for n in range(1, count + 1) if n != 3]
        (told,) = events(server, "index.skipped")
        assert told["uid"] == 3
        asked = len(events(server, "scan.worker_ended"))
        assert await bob.search("word4x") == [4]
        assert await bob.search('"ord4x every"') == [4]  # candidates are read
        assert len(events(server, "scan.worker_ended")) == asked  # it was not tried again
        report = verify_store(server.store.directory, lambda *_: None)
        assert not report.faults and len(report.passed_over) == 1 and "UID 3 " in report.passed_over[0]

    run(test)


def test_after_a_restart_it_is_not_tried_again():
    async def test(server):
        bob = await Mailbox.of(server)
        await bob.append(*(message(n, "die" if n == 3 else "") for n in range(1, 61)))
        await bob.search("everywhere")
        store = server.store
        again = Indexer(store.directory / "search", store.database, store.blobs, store.pool)
        ended = len(events(server, "scan.worker_ended"))
        found = await again.find(BOB, INBOX, range(1, 61), "everywhere", "body")
        assert found.uids == set(range(1, 61)) - {3}
        assert len(events(server, "scan.worker_ended")) == ended
        again.close()

    run(test)


def test_a_message_at_which_the_server_itself_ended_is_tried_once_more_and_alone(monkeypatch):
    """As the index stands after the server was killed: in a batch, then at the message."""

    async def test(server):
        bob = await Mailbox.of(server)
        await bob.append(*(message(n) for n in range(1, 61)))
        store = server.store
        path = store.directory / "search" / f"{BOB}.sqlite"

        def killed(*uids):
            index = SearchIndex(path)
            times = index.begin(INBOX, uids[0], uids[-1])
            index.close()
            return times

        assert killed(*range(1, 51)) == 1
        asked = []
        original = store.pool.index

        async def index(content, header_size, asker):
            asked.append(content)
            if len(asked) == 3:
                raise Ended
            return await original(content, header_size, asker)

        store.pool.index = index
        monkeypatch.setattr(SearchIndex, "release", lambda *_: None)
        with pytest.raises(Ended):
            await store.indexer.catch_up(BOB, INBOX, range(1, 61))
        monkeypatch.undo()
        index_file = SearchIndex(path)
        assert index_file.standing(INBOX) == (2, (3, 3))  # 1 and 2 are done, each by itself
        index_file.close()
        store.pool.index = original
        await store.indexer.catch_up(BOB, INBOX, range(1, 61))
        assert set(await store.indexer.passed_over(BOB, INBOX)) == {3}
        assert await bob.search("everywhere") == [n for n in range(1, 61) if n != 3]

    run(test)


def test_an_end_in_good_order_is_no_try():
    async def test(server):
        bob = await Mailbox.of(server)
        await bob.append(*(message(n, "sleep" if n == 3 else "") for n in range(1, 61)))
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await server.store.indexer.catch_up(BOB, INBOX, range(1, 61))
            index = SearchIndex(server.store.directory / "search" / f"{BOB}.sqlite")
            while index.standing(INBOX)[1] is not None:
                await asyncio.sleep(0.01)
            index.close()
        assert not await server.store.indexer.passed_over(BOB, INBOX)

    run(test)


def test_others_are_served_while_a_message_is_read():
    """The sessions' loop turns on: another user says NOOP as often as he likes before the search has its answer."""

    async def test(server):
        bob, other = await Mailbox.of(server), await Mailbox.of(server, "sengoku", "secret phrase")
        await bob.append(message(1, "loop"), message(2))
        searching = asyncio.ensure_future(bob.search("everywhere"))
        served = 0
        while not searching.done():
            assert (await other.said("NOOP"))[-1].startswith("OK")
            served += 1
            await asyncio.sleep(0.001)
        assert searching.result() == [2]
        return served

    assert run(test) > 50


def test_fifty_thousand_blanks_and_an_x():
    async def test(server):
        bob = await Mailbox.of(server)
        blanks = (
            b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"
            + (b" " * 50_000 + b"x\r\n") * 4
            + b"needle everywhere\r\n"
        )
        await bob.append(blanks, *(message(n) for n in range(2, 61)))
        found = await bob.search("everywhere")
        assert found[-59:] == list(range(2, 61))  # whatever became of the first

    run(test, cpu_seconds=5.0)


def test_where_no_worker_can_be_had_the_session_is_told():
    async def test(server):
        def start():
            raise OSError("no processes left")

        server.store.pool._start = start
        bob = await Mailbox.of(server)
        await bob.append(*(message(n) for n in range(1, 4)))
        assert (await bob.said("UID SEARCH BODY everywhere"))[-1].startswith("NO [UNAVAILABLE]")
        await bob.append(*(message(n) for n in range(4, 61)))
        assert (await bob.said("UID SEARCH BODY everywhere"))[-1].startswith("NO [UNAVAILABLE]")
        assert (await bob.said("UID SEARCH SUBJECT 7"))[-1].startswith("OK")
        server.store.pool._start, server.store.pool._rest_until = planted, 0.0
        assert len(await bob.search("everywhere")) == 60
        assert not events(server, "index.skipped")

    run(test)


def test_a_search_has_an_end(monkeypatch):
    monkeypatch.setattr("fubako.server.imap.search.SEARCH_SECONDS", 0.2)

    async def test(server):
        bob = await Mailbox.of(server)
        await bob.append(message(1, "sleep"))
        due = []
        server.store.indexer.unfinished = due.append
        assert (await bob.said("UID SEARCH BODY everywhere"))[-1].startswith("NO [UNAVAILABLE]")
        assert due == [{(BOB, INBOX)}]

    run(test)


def scribbled(path):
    octets = bytearray(path.read_bytes())
    octets[2048:] = b"\xa5" * (len(octets) - 2048)
    path.write_bytes(octets)


def foreign(path):
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version=2")
    other.execute("CREATE TABLE progress (something TEXT)")
    other.commit()
    other.close()


def old(path):
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version=1")
    other.commit()
    other.close()


DAMAGES = {
    "garbage": lambda path: path.write_bytes(b"no database at all" * 1000),
    "scribbled": scribbled,
    "foreign": foreign,
    "old": old,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("opened", [False, True])
def test_a_damaged_index_is_made_anew(damage, opened):
    async def test(server):
        bob, other = await Mailbox.of(server), await Mailbox.of(server, "sengoku", "secret phrase")
        for one in (bob, other):
            await one.append(*(message(n) for n in range(1, 61)))
        assert len(await bob.search("everywhere")) == 60
        store = server.store
        path = store.directory / "search" / f"{BOB}.sqlite"
        index = store.indexer._open[BOB]
        index._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if not opened:
            store.indexer._open.pop(BOB).close()
        DAMAGES[damage](path)
        await bob.append(message(61))
        assert len(await bob.search("everywhere")) == 61
        assert len(await bob.search("everywhere")) == 61
        assert len(await other.search("everywhere")) == 60

    run(test)


def test_others_are_indexed_beside_a_damaged_index():
    async def test(server):
        store = server.store
        await server.app.indexing.close()
        (store.directory / "search" / "1.sqlite").mkdir()  # nothing can be done about that
        (store.directory / "search" / f"{BOB}.sqlite").write_bytes(b"no database" * 1000)
        for who in (("sengoku", "secret phrase"), ("bob", "pw")):
            await (await Mailbox.of(server, *who)).append(message(1))
        indexing = QuietIndexing(store.indexer, store.database, quiet_seconds=0.01)
        indexing.noticed({(1, INBOX), (BOB, INBOX)})
        while indexing._due:
            await asyncio.sleep(0.01)
        assert events(server, "index.failed")[0]["account"] == 1
        assert events(server, "index.rebuilt")[0]["account"] == BOB
        assert (await store.indexer._on(BOB, SearchIndex.standing, INBOX))[0] == 1
        await indexing.close()

    run(test)


def test_kinds_of_failure_that_say_nothing_of_the_content():
    kinds = {kind for kind in Failure if not JobFailed(kind, "").of_content}
    assert kinds == {Failure.BUSY, Failure.UNAVAILABLE}

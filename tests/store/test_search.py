"""The index finds what reading finds, and is made while nobody waits."""

import asyncio

import pytest
from memory_server import MemoryServer

from fubako.scan.pool import Pool
from fubako.scan.terms import prepared
from fubako.store.quiet import QuietIndexing
from fubako.store.search import SearchIndex

TEXTS = {
    1: "The committee meets on Tuesday; bring the budget.",
    2: "会議の資料を送ります。監査は来週です。",
    3: "Straße and STRASSE, naïve café",
    4: "foo_bar-baz 12345 x@y.example",
    5: "カタカナとひらがなと漢字",
    6: "한국어 편지",
}


@pytest.fixture
def index(tmp_path):
    made = SearchIndex(tmp_path / "1.sqlite")
    made.add(1, [(uid, prepared(f"Subject: letter {uid}"), prepared(text)) for uid, text in TEXTS.items()], max(TEXTS))
    yield made
    made.close()


@pytest.mark.parametrize("needle", [
    "committee", "ommitte", "COMMITTEE", "会議", "監査", "議", "資料を", "ひらがな", "タカ", "편지", "strasse", "12345", "234",
    "nothing", "無い", "meets on", "eets on Tues", "Tuesday; bring", "y.example", "の資料を送ります", "foo_bar", "budget.",
])  # fmt: skip
def test_the_index_never_misses_and_says_when_it_is_sure(index, needle):
    truth = {uid for uid, text in TEXTS.items() if needle.casefold() in text.casefold()}
    found = index.find(1, needle, "body")
    assert found is not None
    assert truth <= found.uids
    if found.exact:
        assert found.uids == truth
    assert not index.find(2, needle, "body").uids


@pytest.mark.parametrize("needle", ["会議", "監査", "committee", "ommitte"])
def test_single_words_are_decided_by_the_index_alone(index, needle):
    assert index.find(1, needle, "body").exact


def test_a_needle_without_a_word_is_not_for_the_index(index):
    assert index.find(1, "...", "body") is None


def test_another_connection_is_noticed(index, tmp_path):
    assert not index.find(1, "zebra", "body").uids
    other = SearchIndex(tmp_path / "1.sqlite")
    other.add(1, [(7, "subject: x", "a zebra")], 7)
    other.close()
    assert index.find(1, "zebra", "body").uids == {7}


def test_letters_are_indexed_when_it_is_quiet():
    async def test():
        async with MemoryServer("smtp", {"service": "smtp"}) as server:
            await server.app.indexing.close()
            indexing = QuietIndexing(server.store.indexer, server.store.database, quiet_seconds=0.05)
            server.store.changes.watch = indexing.noticed
            client = await server.connect()
            client.send(b"EHLO x\r\n")
            while not (await client.line()).startswith("250 "):
                pass
            for command in (b"MAIL FROM:<a@b.test>", b"RCPT TO:<bob@gcd.org>", b"DATA"):
                client.send(command + b"\r\n")
                await client.line()
            client.send(b"Subject: x\r\n\r\nbody\r\n.\r\n")
            await client.line()
            while server.store.indexer._index(2).indexed(1) != 1:
                await asyncio.sleep(0.01)
            await indexing.close()

    asyncio.run(asyncio.wait_for(test(), 20))


def test_two_processes_may_index_the_same_letters(tmp_path):
    """Two indexers on one folder, as two workers have: both end, nothing is missing, nothing is locked out."""
    from fubako.store.indexer import Indexer

    async def test():
        async with MemoryServer("imap", {"channel": "tls"}) as server:
            client = await server.connect()
            await client.line()
            client.send(b'a LOGIN bob "pw"\r\n')
            while not (await client.line()).startswith("a OK"):
                pass
            block = b"".join(b" {%d+}\r\nSubject: %03d\r\n\r\nword%03d\r\n" % (25, n, n) for n in range(300))
            client.send(
                b"b APPEND INBOX"
                + block.replace(b"{25+}", b"{%d+}" % len(b"Subject: 000\r\n\r\nword000\r\n"))
                + b"\r\n"
            )
            while not (line := await client.line()).startswith("b "):
                pass
            assert line.startswith("b OK"), line
            pair = [Indexer(tmp_path / "search", server.store.database, server.store.blobs, Pool()) for _ in range(2)]
            uids = list(range(1, 301))
            found = await asyncio.gather(*(one.find(2, 1, uids, "word007", "body") for one in pair))
            assert [one.uids for one in found] == [{8}, {8}]
            for one in pair:
                one.close()
                one.pool.close()

    asyncio.run(asyncio.wait_for(test(), 20))

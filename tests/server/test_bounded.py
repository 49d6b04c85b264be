"""What one command may cost: LIST, SEARCH and sets of numbers are no more work than the mailboxes and messages there are.

Counted are the turns that others have meanwhile, and calls; the database itself is one step here.
"""

import asyncio

import pytest
from memory_server import MemoryServer

from fubako.protocol.imap.patterns import NamePatterns
from fubako.protocol.imap.types import SequenceSet, within
from fubako.server.imap import mailboxes as listing
from fubako.store import mailboxes
from fubako.store.mailboxes import DELIMITER

LOGIN = b'a LOGIN sengoku@gcd.org "secret phrase"\r\n'


class Turns:
    """How often something else had its turn."""

    def __init__(self) -> None:
        self.count = 0

    async def run(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)


async def tagged(client, tag: str) -> tuple[list[str], str]:
    lines: list[str] = []
    while not (line := await client.line()).startswith(f"{tag} "):
        lines.append(line)
    return lines, line


async def logged_in(server):
    client = await server.connect()
    client.send(LOGIN)
    await tagged(client, "a")
    return client


def many_mailboxes(count: int):
    def unit(tx):
        account_id = tx.row("SELECT account_id FROM account ORDER BY account_id")[0]
        for number in range(count):
            mailboxes._insert(tx, account_id, f"m{number // 100:04d}/n{number % 100}", 1, "")

    return unit


async def listed(count: int, command: bytes) -> tuple[int, int]:
    """(names shown, names that were matched)."""
    matched = 0
    match = NamePatterns.match

    def counted(self, name):
        nonlocal matched
        matched += 1
        return match(self, name)

    async with MemoryServer("imap", {"channel": "local"}) as server:
        await server.store.database.write(many_mailboxes(count))
        client = await logged_in(server)
        NamePatterns.match = counted
        try:
            client.send(command)
            lines, end = await tagged(client, "b")
        finally:
            NamePatterns.match = match
        assert end.startswith("b OK")
        return len(lines), matched


@pytest.mark.parametrize(
    "command", [b'b LIST "" *\r\n', b'b LIST (SUBSCRIBED RECURSIVEMATCH) "" *\r\n', b'b LSUB "" %\r\n']
)
def test_listing_looks_at_each_name_once(command):
    """Of 2,000 mailboxes; levels and subscriptions add what they are themselves."""
    _shown, matched = asyncio.run(listed(2000, command))
    assert matched < 2 * 2100


def test_children_are_seen_through_levels_that_are_no_mailboxes():
    above = listing._above([f"a{DELIMITER}b{DELIMITER}c", "a-b", "d"])
    assert above == {"a", f"a{DELIMITER}b"}


def test_others_have_turns_while_a_long_list_is_made():
    async def played() -> int:
        async with MemoryServer("imap", {"channel": "local"}) as server:
            await server.store.database.write(many_mailboxes(2000))
            client = await logged_in(server)
            turns = Turns()
            task = asyncio.ensure_future(turns.run())
            client.send(b'b LIST "" *\r\n')
            lines, _ = await tagged(client, "b")
            task.cancel()
            assert len(lines) == 2006
            return turns.count

    assert asyncio.run(played()) >= 2000 // 256


def test_a_search_asks_the_rows_once_for_what_is_said_often():
    async def played() -> tuple[int, str, str]:
        async with MemoryServer("imap", {"channel": "local"}) as server:
            client = await logged_in(server)
            client.send(b"b APPEND inbox {16+}\r\nSubject: x\r\n\r\nyy\r\nc SELECT inbox\r\n")
            await tagged(client, "c")
            asked = 0
            database = server.app.resources.database
            read = database.read

            async def counted(unit):
                nonlocal asked
                asked += 1
                return await read(unit)

            database.read = counted
            client.send(b"d SEARCH" + b" NOT SEEN" * 200 + b" OR SEEN NOT SEEN\r\n")
            _, few = await tagged(client, "d")
            before = asked
            client.send(b"e SEARCH" + b" NOT SEEN" * 251 + b"\r\n")
            _, many = await tagged(client, "e")
            del database.read
            return before, few, many

    asked, few, many = asyncio.run(played())
    assert asked < 10
    assert few.startswith("d OK")
    assert many.startswith("e NO [LIMIT]")


def test_a_set_names_a_number_once_however_often_it_says_it():
    ranges = SequenceSet(((1, 0),) * 10_000 + ((5, 3), (1, 0))).resolve(100)
    assert ranges == [(1, 100)]
    assert SequenceSet(((7, 9), (1, 2), (2, 4), (0, 20))).resolve(30) == [(1, 4), (7, 9), (20, 30)]
    held = [number for number in range(1, 12) if within([(1, 4), (7, 9)], number)]
    assert held == [1, 2, 3, 4, 7, 8, 9]


def test_subscriptions_have_a_limit(monkeypatch):
    monkeypatch.setattr(mailboxes, "SUBSCRIPTIONS_MAX", 8)

    async def played() -> list[str]:
        async with MemoryServer("imap", {"channel": "local"}) as server:
            client = await logged_in(server)
            ends = []
            for number in range(4):
                client.send(b"b SUBSCRIBE gone%d\r\n" % number)
                ends.append((await tagged(client, "b"))[1][:4])
            return ends

    assert asyncio.run(played()) == ["b OK", "b OK", "b NO", "b NO"]  # beside the six that every account has

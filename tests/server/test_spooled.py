"""Messages that come lie on the disk, their memory is counted for all sessions together, and what is too much is refused by a
reply: the connection lives.

Real sessions and store on memory streams; left out are the inbox of a stream (256 KiB) and what asyncio and the kernel hold.
"""

import asyncio
import os
import tracemalloc
from pathlib import Path

import pytest
from jumping import run
from memory_server import MemoryServer

from fubako.server.memory import COPIES, WAIT_SECONDS, Memory, NoMemory
from fubako.store.interface import StoreFull
from fubako.store.spool import HELD_OCTETS_MAX, Spool

LOGIN = b'a LOGIN sengoku@gcd.org "secret phrase"\r\n'
ENVELOPE = b"EHLO me\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<bob@gcd.org>\r\nDATA\r\n"
HEADER = b"From: <a@example.net>\r\nSubject: much\r\n\r\n"
LINES = (b"x" * 76 + b"\r\n") * 800


async def until(client, start: str) -> str:
    while not (line := await client.line()).startswith(start):
        pass
    return line


async def sent(client, octets: bytes) -> None:
    """Sent and heard."""
    client.send(octets)
    client.stream.sent.clear()
    for _ in range(50):
        await asyncio.sleep(0)


def test_strangers_with_unfinished_messages_cost_little_memory():
    """Ten of 4 MB: once 40 MB and more."""

    async def played() -> tuple[int, str]:
        async with MemoryServer("smtp", {"service": "smtp"}) as server:
            clients = [await server.connect() for _ in range(10)]
            for client in clients:
                client.send(ENVELOPE)
                await until(client, "354")
                client.send(HEADER)
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(64):
                for client in clients:
                    await sent(client, LINES)
            held = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
            clients[0].send(b".\r\n")
            return held, await clients[0].line()

    held, answer = asyncio.run(played())
    assert held < 10 * (1 << 20)
    assert answer.startswith("250")


def test_what_has_no_room_is_refused_and_the_session_lives(tmp_path):
    async def played() -> list[str]:
        async with MemoryServer("smtp", {"service": "smtp"}) as server:
            object.__setattr__(
                server.app.resources, "spool", Spool(tmp_path, memory_octets=100_000, disk_octets=200_000)
            )
            client = await server.connect()
            heard = []
            for times in (8, 1):
                client.send(ENVELOPE)
                await until(client, "354")
                client.send(HEADER)
                for _ in range(times):
                    await sent(client, LINES)
                client.send(b".\r\n")
                heard.append(await client.line())
            spool = server.app.resources.spool
            assert (spool.held, spool.written) == (0, 0)
            return heard

    refused, taken = asyncio.run(played())
    assert refused.startswith("452 4.3.1")
    assert taken.startswith("250")


def test_a_spool_counts_what_it_holds_and_leaves_no_names(tmp_path):
    spool = Spool(tmp_path / "spool", memory_octets=2 * HELD_OCTETS_MAX, disk_octets=10 * HELD_OCTETS_MAX)
    small, large = spool.begin(), spool.begin()
    small.append(b"abc")
    for number in range(5):
        large.append(bytes([number]) * HELD_OCTETS_MAX)
    assert (spool.held, spool.written) == (3, 5 * HELD_OCTETS_MAX)
    assert large.read(HELD_OCTETS_MAX - 1, 2) == b"\x00\x01"
    assert small.whole() == b"abc"
    assert os.listdir(tmp_path / "spool") == []
    with pytest.raises(StoreFull):
        large.append(b"x" * 6 * HELD_OCTETS_MAX)
    assert large.size == 5 * HELD_OCTETS_MAX
    del large
    small.close()
    assert (spool.held, spool.written) == (0, 0)


def test_memory_is_given_in_the_order_of_asking_and_not_beyond_its_end():
    async def played() -> tuple[list[int], bool]:
        memory, order = Memory(100 * COPIES), []

        async def one(number: int, size: int) -> None:
            async with memory.held(size):
                order.append(number)
                await asyncio.sleep(10)

        sizes = [60, 60, 30, 5000]
        await asyncio.gather(*(one(number, size) for number, size in enumerate(sizes)))
        holding = asyncio.ensure_future(one(9, 100))
        await asyncio.sleep(0)
        refused = False
        asyncio.get_running_loop().jump = True
        async with memory.held(0):
            pass
        blocked = asyncio.ensure_future(_forever(memory))
        await holding
        await asyncio.sleep(0)
        try:
            async with memory.held(100):
                pass
        except NoMemory:
            refused = True
        blocked.cancel()
        return order, refused

    async def _forever(memory: Memory) -> None:
        async with memory.held(50):
            await asyncio.sleep(WAIT_SECONDS * 10)

    async def started() -> tuple[list[int], bool]:
        asyncio.get_running_loop().jump = True
        return await played()

    order, refused = run(started())
    assert order == [0, 1, 2, 3, 9]
    assert refused


async def conversation(octets: bytes, given: dict[str, str] | None = None) -> bytes:
    async with MemoryServer("imap", {"channel": "local", **(given or {})}) as server:
        client = await server.connect()
        client.send(LOGIN + octets)
        return await client.rest()


def test_several_messages_that_are_large_together_are_kept():
    message = b"Subject: x\r\n\r\n" + LINES * 12
    literal = b"{%d+}\r\n" % len(message) + message
    heard = asyncio.run(
        conversation(b"b APPEND inbox " + literal + b" " + literal + b"\r\nc LOGOUT\r\n", {"message": "1000000"})
    )
    assert b"b OK [APPENDUID" in heard


def test_one_of_several_messages_is_too_big():
    small, large = b"Subject: x\r\n\r\nb", b"Subject: x\r\n\r\n" + b"y" * 100_000
    literals = b" ".join(b"{%d+}\r\n" % len(one) + one for one in (small, large, small))
    heard = asyncio.run(
        conversation(
            b"b APPEND inbox " + literals + b"\r\nc STATUS inbox (MESSAGES)\r\nd LOGOUT\r\n", {"message": "50000"}
        )
    )
    assert b"b NO [TOOBIG]" in heard
    assert b"(MESSAGES 0)" in heard


def test_a_name_may_be_a_literal_beside_a_message():
    heard = asyncio.run(conversation(b"b APPEND {5+}\r\ninbox {15+}\r\nSubject: x\r\n\r\nb\r\nc LOGOUT\r\n"))
    assert b"b OK [APPENDUID" in heard


def test_a_long_command_is_carried_out_and_one_too_long_is_refused_whole():
    """The second hides commands in its literal and behind its limit: nothing of it is taken for a command."""
    uids = b",".join(b"%d" % number for number in range(1, 38_000, 2))
    hidden = b"x UNSUBSCRIBE Sent\r\n"
    long = b"d UID FETCH " + b"1," * 600_000 + b"1 BODY[{%d+}\r\n" % len(hidden) + hidden + b"]\r\n"
    heard = asyncio.run(
        conversation(b"b SELECT inbox\r\nc UID FETCH " + uids + b" FLAGS\r\n" + long + b"e NOOP\r\nf LOGOUT\r\n")
    )
    assert b"c OK" in heard
    assert b"d BAD [LIMIT]" in heard
    assert b"x OK" not in heard
    assert b"e OK" in heard


def test_the_spool_lies_in_the_store(tmp_path):
    async def played() -> Path:
        async with MemoryServer("smtp", {"service": "smtp"}) as server:
            client = await server.connect()
            client.send(ENVELOPE)
            await until(client, "354")
            for _ in range(6):
                await sent(client, LINES)
            folder = server.store.directory / "spool"
            assert folder.stat().st_mode & 0o777 == 0o700
            assert server.app.resources.spool.written > HELD_OCTETS_MAX
            return folder

    asyncio.run(played())

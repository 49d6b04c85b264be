"""The socket of other programs: who can reach it says no more at once than a login needs. In memory, without the socket."""

import asyncio

from memory_server import MemoryServer

from fubako.net.memory import pair
from fubako.server.authd import DovecotAuthSession


async def heard(said: bytes) -> bytes:
    async with MemoryServer("smtp", {"channel": "plain"}) as server:
        ours, theirs = pair(local=True)
        task = asyncio.ensure_future(DovecotAuthSession(server.app.resources, ours, 1).run())
        theirs.write(b"VERSION\t1\t2\nCPID\t7\n" + said)
        octets = b""
        while piece := await theirs.read():
            octets += piece
        await task
        return octets


def test_answers_to_nothing_end_it():
    said = b"AUTH\t1\tCRAM-MD5\tservice=smtp\tsecured\n" + b"CONT\t1\tAAAA\n" * 50
    assert b"FAIL" not in asyncio.run(heard(said))


def test_logins_that_were_cancelled_still_count():
    said = b"".join(b"AUTH\t%d\tCRAM-MD5\tservice=smtp\tsecured\nCANCEL\t%d\n" % (n, n) for n in range(1, 3000))
    assert asyncio.run(heard(said)).count(b"CONT") <= 1100


def test_a_line_without_an_end_ends_it():
    assert asyncio.run(heard(b"x" * 200_000)).endswith(b"DONE\n")

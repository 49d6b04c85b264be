"""A message whose content is damaged is told as that, in the words of each protocol, and never served; all others are.

Left out: damage of rows (SQLite's own check), of the index (made anew).
"""

import asyncio

import pytest
from memory_server import MemoryServer, MemoryStream

from fubako.store import messages, record
from fubako.store.interface import BlobRef

LOGIN = b"a LOGIN sengoku {13+}\r\nsecret phrase\r\n"
MESSAGES = [
    b"Subject: %d\r\n\r\n" % number + b"%d" % number * size + b"\r\n"
    for number, size in ((1, 50), (2, 300_000), (3, 50))
]


async def _kept(server, damaged: int, at: int) -> None:
    """Three messages, one of which has lost a bit, so many octets from its end."""
    said = b"".join(b"b APPEND inbox {%d+}\r\n%b\r\n" % (len(one), one) for one in MESSAGES)
    await _ask(server, "imap", LOGIN + said + b"c NOOP\r\n", b"\r\nc OK")
    rows = await server.store.database.read(lambda tx: tx.rows(f"SELECT {messages.PLACE} FROM message ORDER BY uid"))
    ref = BlobRef(*rows[damaged - 1])
    (path,) = (server.store.directory / "segments").glob(f"*{ref.segment:x}.segment")
    with path.open("r+b") as file:
        file.seek(ref.offset + record.occupied(ref.size) - at)
        octet = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([octet[0] ^ 4]))


async def _ask(server, protocol: str, said: bytes, end: bytes) -> bytes:
    from fubako.server.session import Arrival
    from fubako.server.sessions import SESSIONS

    ours, theirs = MemoryStream("192.0.2.1:40000", local=True), MemoryStream("server")
    ours.other, theirs.other = theirs, ours
    session = SESSIONS[protocol](server.app.resources, Arrival(ours, protocol, server.server_tls.pump))
    task = asyncio.ensure_future(session.run())
    theirs.write(said)
    async with asyncio.timeout(20):
        while end not in ours.sent:
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return bytes(ours.sent)


@pytest.mark.parametrize(("damaged", "at"), [(1, 3), (2, 5), (2, 299_000), (2, 150_000)])
def test_imap(damaged, at):
    async def test():
        async with MemoryServer("imap", {"channel": "local"}) as server:
            await _kept(server, damaged, at)
            fetch = b"d SELECT inbox\r\ne FETCH 1:* BODY.PEEK[]\r\nf FETCH 1:* FLAGS\r\n"
            said = await _ask(server, "imap", LOGIN + fetch, b"\r\nf OK")
            for number, one in enumerate(MESSAGES, 1):
                assert (one in said) is (number != damaged)
            (answer,) = [line for line in said.split(b"\r\n") if line.startswith(b"e ")]
            assert answer.startswith(b"e NO [SERVERBUG] UID %d is damaged" % damaged)
            assert server.app.telemetry.counters["store.damaged"] == 1

    asyncio.run(test())


@pytest.mark.parametrize(("damaged", "at"), [(1, 3), (2, 150_000)])
def test_pop3(damaged, at):
    async def test():
        async with MemoryServer("imap", {"channel": "local"}) as server:
            await _kept(server, damaged, at)
            said = await _ask(
                server,
                "pop3",
                b"USER sengoku\r\nPASS secret phrase\r\nRETR 1\r\nRETR 2\r\nRETR 3\r\nQUIT\r\n",
                b"+OK bye",
            )
            assert said.count(b"-ERR [SYS/PERM] the message is damaged where it is kept") == 1
            for number, one in enumerate(MESSAGES, 1):
                assert (one in said) is (number != damaged)

    asyncio.run(test())

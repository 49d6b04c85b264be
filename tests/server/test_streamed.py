"""A message of any size is sent in pieces: what a session holds of it does not grow with it, nor with how often it is asked for.

The stream of these tests counts the octets and forgets them; left out are what the kernel holds of a connection, and the moment
in which a message is scanned for its parts, which has it whole, one message at a time in the process.
"""

import asyncio
import tracemalloc

import pytest
from memory_server import MemoryServer

from fubako.net.memory import MemoryStream

MESSAGE = b"Subject: big\r\n\r\n" + (b"x" * 76 + b"\r\n") * 15_000
HELD_MAX = 1 << 20
PLAIN = b"AHNlbmdva3VAZ2NkLm9yZwBzZWNyZXQgcGhyYXNl"


class Counting(MemoryStream):
    """What leaves is counted; the last of it is kept."""

    octets = 0
    last = b""

    def _transmit(self, octets: bytes) -> None:
        self.octets += len(octets)
        self.last = (self.last + octets)[-200:]


def counting() -> tuple[Counting, MemoryStream]:
    ours, theirs = Counting("192.0.2.1:40000", local=True), MemoryStream("server")
    theirs.other = ours
    return ours, theirs


async def delivered(server, ours: Counting, theirs: MemoryStream) -> None:
    theirs.write(
        b'a LOGIN sengoku@gcd.org "secret phrase"\r\nb APPEND inbox {%d+}\r\n' % len(MESSAGE) + MESSAGE + b"\r\n"
    )
    while b"\r\nb OK" not in ours.last:
        await asyncio.sleep(0)


async def held(ask: bytes, end: bytes, protocol: str) -> tuple[int, int]:
    """(octets sent, the most memory meanwhile)."""
    async with MemoryServer("imap", {"channel": "local"}) as server:
        ours, theirs = counting()
        server.sit_down(ours)
        await delivered(server, ours, theirs)
        if protocol == "pop3":
            server.protocol = "pop3"
            ours, theirs = counting()
            server.sit_down(ours)
        ours.octets, theirs.sent = 0, bytearray()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        theirs.write(ask)
        while end not in ours.last:
            await asyncio.sleep(0)
        peak = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        return ours.octets, peak


PARTIALS = b" ".join(b"BODY.PEEK[]<%d.2000000>" % start for start in range(99))


@pytest.mark.parametrize(
    ("protocol", "ask", "end", "times"),
    [
        ("imap", b"c SELECT inbox\r\nd FETCH 1 BODY.PEEK[]\r\n", b"d OK", 1),
        ("imap", b"c SELECT inbox\r\nd FETCH 1 (" + PARTIALS + b")\r\n", b"d OK", 99),
        ("imap", b"c SELECT inbox\r\n" + b"e FETCH 1 BODY.PEEK[TEXT]\r\n" * 20 + b"d NOOP\r\n", b"d OK", 20),
        ("pop3", b"AUTH PLAIN " + PLAIN + b"\r\n" + b"RETR 1\r\n" * 20 + b"QUIT\r\n", b"+OK bye", 20),
        ("pop3", b"AUTH PLAIN " + PLAIN + b"\r\nTOP 1 99999\r\nQUIT\r\n", b"+OK bye", 1),
    ],
)
def test_a_message_is_sent_in_bounded_memory(protocol, ask, end, times):
    octets, most = asyncio.run(held(ask, end, protocol))
    assert octets > times * len(MESSAGE) * 0.99
    assert most < HELD_MAX


def test_parts_and_partials_are_what_they_were():
    """A multipart in base64 with NULs, by every kind of section."""
    inner = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\nAAECAw==\r\n"
    message = (
        b"Content-Type: multipart/mixed; boundary=b\r\nX: y\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n" + inner + b"--b--\r\n"
    )

    async def played() -> bytes:
        async with MemoryServer("imap", {"channel": "local"}) as server:
            client = await server.connect()
            client.send(b'a LOGIN sengoku@gcd.org "secret phrase"\r\nb APPEND inbox {%d+}\r\n' % len(message) + message)
            client.send(
                b"\r\nc SELECT inbox\r\nd FETCH 1 (BODY[1] BODY[2.MIME]<0.12> BINARY[2] BINARY[2]<1.2> BINARY.SIZE[2] BODY[9]"
                b" BODY[HEADER.FIELDS (X)] BODY[]<6.7> UID)\r\ne LOGOUT\r\n"
            )
            return await client.rest()

    assert (
        b"FETCH (BODY[1] {4}\r\ntext BODY[2.MIME]<0> {12}\r\nContent-Type BINARY[2] ~{4}\r\n\x00\x01\x02\x03"
        b" BINARY[2]<1> ~{2}\r\n\x01\x02 BINARY.SIZE[2] 4 BODY[9] NIL BODY[HEADER.FIELDS (X)] {8}\r\nX: y\r\n\r\n"
        b" BODY[]<6> {7}\r\nt-Type: UID 1 FLAGS (\\Seen \\Recent))\r\n"
    ) in asyncio.run(played())

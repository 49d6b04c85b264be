"""What one FETCH or SEARCH makes of a long message is done once, however often the command names it.

The client is a stream in memory: left out are TLS, other sessions and the time that the kernel takes.
"""

import asyncio

import pytest
from memory_server import MemoryServer

from fubako.message import transfer
from fubako.message.limits import HEADER_OCTETS_MAX
from fubako.net.memory import MemoryStream
from fubako.server.imap import sections

LOGIN = b'a LOGIN sengoku@gcd.org "secret phrase"\r\n'
ENCODED = (
    b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + (b"=41" * 20 + b"\r\n") * 200
)
LONG = (
    b"X-Near: here\r\n" + (b"X-Fill: " + b"x" * 900 + b"\r\n") * (HEADER_OCTETS_MAX // 900) + b"X-Far: there\r\n\r\nhi"
)


async def said(message: bytes, commands: bytes, end: bytes) -> bytes:
    """What the server says to somebody who appends this message and gives these commands."""
    async with MemoryServer("imap", {"channel": "local"}) as server:
        ours, theirs = MemoryStream("192.0.2.1:40000", local=True), MemoryStream("server")
        ours.other, theirs.other = theirs, ours
        server.sit_down(ours)
        append = b"b APPEND inbox {%d+}\r\n" % len(message) + message + b"\r\nc SELECT inbox\r\n"
        theirs.write(LOGIN + append + commands)
        while b"\r\n" + end not in ours.sent:
            await asyncio.sleep(0)
        return bytes(ours.sent)


def test_a_part_is_decoded_once_for_all_items_of_a_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []

    def counted(encoding: bytes) -> transfer.Decoding | None:
        decoded.append(1)
        return original(encoding)

    original = transfer.decoding
    monkeypatch.setattr(sections.transfer, "decoding", counted)
    items = b" ".join(b"BINARY.PEEK[1]<%d.1>" % start for start in range(50)) + b" BINARY.SIZE[1]"
    answer = asyncio.run(said(ENCODED, b"d FETCH 1 (" + items + b")\r\n", b"d OK"))
    assert len(decoded) == 1
    assert answer.count(b"BINARY[1]<") == 50


def test_fields_are_searched_in_as_much_of_a_header_as_is_read() -> None:
    answer = asyncio.run(said(LONG, b"d SEARCH HEADER X-Near here\r\ne SEARCH HEADER X-Far there\r\n", b"e OK"))
    assert b"* SEARCH 1\r\nd OK" in answer
    assert b"* SEARCH\r\ne OK" in answer

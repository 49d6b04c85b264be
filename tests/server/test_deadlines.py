"""A peer that drips one octet each 20 seconds is ended when its time is over: no octet moves a deadline.

Real sessions, engines and store on a memory stream and a clock that jumps. Left out: TCP's own windows and timers, TLS records
that arrive in pieces (the handshake's limit is in tests/net/test_stream.py), and several peers at once.
"""

import asyncio

import pytest
from jumping import run
from memory_server import MemoryServer

DRIP_SECONDS = 20
ENDED_MAX = 3000  # where the old code gave up being watched
LOGIN = b"login sengoku@gcd.org {13+}\r\nsecret phrase\r\n"


async def ended_after(protocol: str, service: str, before: list[tuple[bytes, str]], drip: bytes) -> float:
    """Seconds from the first octet of the drip until the server ends the connection. `before`: what is said, and how the last
    line of its answer begins."""
    loop = asyncio.get_running_loop()
    async with MemoryServer(
        protocol, {"channel": "local" if service == "imap" else "plain", "service": service}
    ) as server:
        client = await server.connect()
        for said, answer in [(b"", ""), *before]:
            client.send(said)
            line = await client.line()
            while not line.startswith(answer):
                line = await client.line()
        began, loop.jump = loop.time(), True
        while not client.stream._at_end and loop.time() - began < ENDED_MAX:
            client.send(drip)
            await asyncio.sleep(DRIP_SECONDS)
        loop.jump = False
        return loop.time() - began


ENVELOPE = [(b"EHLO me\r\n", "250 "), (b"MAIL FROM:<a@example.net>\r\n", "250"), (b"RCPT TO:<bob@gcd.org>\r\n", "250")]


@pytest.mark.parametrize(
    ("protocol", "service", "before", "drip", "seconds"),
    [
        ("imap", "imap", [], b"a", 60),  # a command that never ends
        ("imap", "imap", [], b"a NOOP\r\n", 60),  # commands that do, before a login
        ("pop3", "pop3", [], b"U", 60),
        ("pop3", "pop3", [], b"CAPA\r\n", 60),
        ("smtp", "submission", [], b"E", 60),
        ("smtp", "submission", [], b"NOOP\r\n", 60),
        ("smtp", "smtp", [], b"E", 60),
        ("smtp", "smtp", [], b"NOOP\r\n", 600),
        ("smtp", "smtp", [*ENVELOPE, (b"DATA\r\n", "354")], b"x", 120),
        ("smtp", "smtp", ENVELOPE, b"BDAT 1\r\nx", 600),
        ("imap", "imap", [(b"a " + LOGIN, "a OK")], b"x", 60),
        ("imap", "imap", [(b"a " + LOGIN, "a OK"), (b"b append inbox {40}\r\n", "+")], b"x", 120),
        ("imap", "imap", [(b"a " + LOGIN, "a OK"), (b"b idle\r\n", "+")], b"x", 60),
    ],
)
def test_dripping_does_not_move_a_deadline(protocol, service, before, drip, seconds):
    assert run(ended_after(protocol, service, before, drip)) <= seconds + 2 * DRIP_SECONDS


def test_content_that_keeps_the_least_rate_is_waited_for():
    """At a little over the least rate a message of 400 kB takes longer than the time for its first octet."""

    async def played() -> tuple[float, str]:
        loop = asyncio.get_running_loop()
        async with MemoryServer("smtp", {"service": "smtp"}) as server:
            client = await server.connect()
            for said, answer in [(b"", ""), *ENVELOPE, (b"DATA\r\n", "354")]:
                client.send(said)
                while not (await client.line()).startswith(answer):
                    pass
            began, loop.jump = loop.time(), True
            client.send(b"Subject: slow\r\n\r\n")
            for _ in range(20):
                client.send((b"x" * 78 + b"\r\n") * 250)
                await asyncio.sleep(18)
            took, loop.jump = loop.time() - began, False
            client.send(b".\r\n")
            return took, await client.line()

    took, answer = run(played())
    assert took > 300
    assert answer.startswith("250")

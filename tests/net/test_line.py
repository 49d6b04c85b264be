"""What `Line` gives a peer: a turn at a time, no more output than it takes, and time that it cannot renew.

On memory streams and a clock that jumps; left out are the kernel's buffers, which hold some more of the output.
"""

import asyncio

from jumping import run
from memory_server import MemoryServer

from fubako.net.line import Line
from fubako.net.memory import MemoryStream, pair
from fubako.net.pace import EVENTS_A_TURN, Pace
from fubako.protocol.pop3 import Pop3Server


class Narrow(MemoryStream):
    """A peer that takes so many octets and no more; `take` takes the rest."""

    octets_max = 64 * 1024

    def _transmit(self, octets: bytes) -> None:
        super()._transmit(octets)
        if len(self.sent) > self.octets_max:
            self._writing_paused()

    def take(self) -> None:
        self.octets_max = len(self.sent) + 64 * 1024
        self._writing_resumed()


def narrow() -> tuple[Narrow, MemoryStream]:
    ours, theirs = Narrow("192.0.2.1:40000"), MemoryStream("server")
    ours.other, theirs.other = theirs, ours
    return ours, theirs


def test_a_peer_that_says_much_at_once_has_a_turn_at_a_time():
    async def played() -> int:
        ours, theirs = pair()
        line = Line(Pop3Server(), ours, Pace())
        theirs.write(b"CAPA\r\n" * 5000)
        most, handled, since = 0, 0, 0

        async def serve() -> None:
            nonlocal handled, since
            for _ in range(5000):
                await line.event()
                handled, since = handled + 1, since + 1

        task = asyncio.ensure_future(serve())
        while not task.done():
            most, since = max(most, since), 0
            await asyncio.sleep(0)
        await task
        assert handled == 5000
        return max(most, since)

    assert run(played()) <= EVENTS_A_TURN


def test_a_peer_that_takes_nothing_is_not_served_and_ends():
    """20 kB of pipelined commands, each of them with an answer of 200 octets."""

    async def played() -> tuple[int, float]:
        loop = asyncio.get_running_loop()
        async with MemoryServer("pop3", {"channel": "plain"}) as server:
            limits = server.app.resources.limits
            ours, theirs = narrow()
            session = server.sit_down(ours, commands_before_login=10**6)
            theirs.write(b"CAPA\r\n" * 3500)
            began, loop.jump = loop.time(), True
            await session
            loop.jump = False
            assert limits.pace.taking_seconds == 120
            return len(ours.sent), loop.time() - began

    octets, seconds = run(played())
    assert octets < 2 * Narrow.octets_max
    assert seconds < 125


def test_a_peer_that_takes_its_time_gets_everything():
    async def played() -> int:
        loop = asyncio.get_running_loop()
        async with MemoryServer("pop3", {"channel": "plain"}) as server:
            ours, theirs = narrow()
            session = server.sit_down(ours, commands_before_login=10**6)
            theirs.write(b"CAPA\r\n" * 3500 + b"QUIT\r\n")
            loop.jump = True
            while not session.done():
                ours.take()
                await asyncio.sleep(1)
            loop.jump = False
            return bytes(ours.sent).count(b"IMPLEMENTATION")

    assert run(played()) == 3500


def test_commands_before_a_login_are_counted():
    async def played(protocol: str, command: bytes) -> bytes:
        async with MemoryServer(protocol, {"channel": "plain"}) as server:
            client = await server.connect()
            client.send(command * 60)
            return await client.rest()

    assert run(played("imap", b"a CAPABILITY\r\n")).count(b"\r\na OK") == 50
    assert run(played("pop3", b"CAPA\r\n")).count(b"IMPLEMENTATION") == 50
    assert run(played("smtp", b"NOOP\r\n")).endswith(b"421 4.7.0 too many commands before a login\r\n")


def test_refusals_in_a_row_have_an_end_after_the_login_too():
    """Each costs the loop something within one look at the engine, so that no turn ends between them."""

    async def played() -> bytes:
        async with MemoryServer("imap", {"channel": "local"}) as server:
            client = await server.connect()
            client.send(b'a LOGIN sengoku@gcd.org "secret phrase"\r\n' + b"b X\r\n" * 5000 + b"c LOGOUT\r\n")
            return await client.rest()

    assert run(played()).count(b"b BAD") == 100


def test_a_known_user_may_reset_as_often_as_he_likes():
    async def played() -> list[str]:
        async with MemoryServer("smtp", {"channel": "tls", "service": "submission"}) as server:
            client = await server.connect()
            client.send(b"EHLO me\r\n")
            while not (await client.line()).startswith("250 "):
                pass
            client.send(b"AUTH PLAIN AHNlbmdva3VAZ2NkLm9yZwBzZWNyZXQgcGhyYXNl\r\n")
            assert (await client.line()).startswith("235")
            client.send(b"RSET\r\n" * 300)
            return [await client.line() for _ in range(300)]

    assert {line[:3] for line in run(played())} == {"250"}

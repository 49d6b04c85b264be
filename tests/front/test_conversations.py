"""Conversations through a real front that are long, slow, early, or outlive a certificate.

Its world: as in test_dialogues_fronted; deadlines are of the machine's clock, and a test waits for what the server says then, not
for a time. Left out: a peer that takes nothing of what it is sent, for which SMTP has too little to say.
"""

import asyncio
from dataclasses import replace

import msgspec
import pytest
from fronted_server import FrontedServer
from memory_server import certificates

from fubako.clock import Env
from fubako.net.tls import Certificate, ServerTls
from fubako.scan.nursery import Nursery
from fubako.trust.authority import ensure_server

ENVELOPE = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@gcd.org>\r\n"
LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef\r\n" * 300_000  # several windows


@pytest.fixture(scope="module")
def nursery():
    made = Nursery.start("fubako.app.births")
    yield made
    made.close()


@pytest.fixture
def run(nursery):
    """Runs a test with a server; `given` is as in dialogues."""

    def runner(test, **given):
        async def whole():
            async with FrontedServer("smtp", {"service": "smtp", **given}, nursery) as server:
                await test(server)

        asyncio.run(asyncio.wait_for(whole(), 100))

    return runner


async def until(client, start: str) -> str:
    while not (line := await client.line()).startswith(start):
        assert line is not None
    return line


async def sizes(server) -> list[int]:
    return [row[0] for row in await server.store.database.read(lambda tx: tx.rows("SELECT size FROM message"))]


@pytest.mark.parametrize("channel", ["plain", "tls"])
@pytest.mark.parametrize("command", ["DATA", "BDAT"])
def test_a_large_message_arrives_whole(run, channel, command):
    async def test(server):
        client = await server.connect()
        client.send(b"EHLO x\r\n")
        await until(client, "250 ")
        client.send(ENVELOPE)
        await until(client, "250 2.1.5")
        if command == "DATA":
            client.send(b"DATA\r\n")
            await until(client, "354")
        client.send(LARGE + b".\r\n" if command == "DATA" else b"BDAT %d LAST\r\n" % len(LARGE) + LARGE)
        await until(client, "250 ")
        (size,) = await sizes(server)
        assert size >= len(LARGE)  # with our fields

    run(test, channel=channel)


def test_a_command_that_was_begun_is_answered_before_the_server_stops(run):
    async def test(server):
        client = await server.connect()
        client.send(b"EHLO x\r\nMAIL FROM:<a@b.test>\r\n")
        await until(client, "250 2.1.0")
        admission, begun, go_on = server.session.admission, asyncio.Event(), asyncio.Event()
        honest = admission.rcpt

        async def slow(*given):
            begun.set()
            await go_on.wait()
            return await honest(*given)

        admission.rcpt = slow
        client.send(b"RCPT TO:<bob@gcd.org>\r\n")
        await begun.wait()
        server.session.stop()
        await asyncio.sleep(0)
        go_on.set()
        assert await client.line() == "250 2.1.5 ok"
        assert await client.line() == "421 4.3.2 the server is shutting down"

    run(test)


def test_all_is_said_to_a_peer_that_has_ended_its_side(run):
    async def test(server):
        client = await server.connect()
        client.send(b"EHLO x\r\n" + ENVELOPE + b"DATA\r\nSubject: x\r\n\r\nwords\r\n.\r\nQUIT\r\n")
        client.end()
        assert (await until(client, "221")) == "221 2.0.0 bye"
        assert len(await sizes(server)) == 1

    run(test)


def test_who_speaks_before_the_greeting_is_answered_behind_it(run):
    async def test(server):
        client = await server.connect(early=b"EHLO x\r\nNOOP\r\n")
        assert (await client.line()).startswith("220 ")
        assert (await until(client, "250 ")) != "250 2.0.0 ok"
        assert await client.line() == "250 2.0.0 ok"

    run(test)


@pytest.mark.parametrize("begun", [b"EH", b"EHLO x\r\n" + ENVELOPE + b"DATA\r\nSubj"], ids=["command", "content"])
def test_who_does_not_end_what_it_has_begun_is_sent_away(run, begun):
    async def test(server):
        settings = msgspec.structs.replace(
            server.fronts.front.channel.settings, command_seconds=0.2, content_seconds=0.2
        )
        server.fronts.front.channel.follow(settings)
        client = await server.connect()
        client.send(begun)
        assert await until(client, "421") == "421 4.4.2 nothing was said for too long"
        assert await client.rest() == b""

    run(test)


def test_a_new_certificate_is_shown_and_open_connections_go_on(run, tmp_path):
    async def test(server):
        first = await server.connect()
        await first.line()
        root = certificates()
        chain, key = tmp_path / "s.pem", tmp_path / "s.key"
        ensure_server(chain, key, (root / "ca.pem", root / "ca.key"), ["localhost", "new.test"], Env().clock.now())
        offer = ServerTls([Certificate.load(chain, key)]).offer
        server.before = server.fronts.tls.channel
        server.fronts.follow(replace(server.wanted, offers={"smtp": offer}))
        await server.fronts._renewal
        second = await server.connect()
        assert "new.test" in second.stream.tls.peer.dns_names
        assert "new.test" not in first.stream.tls.peer.dns_names
        server.before.shut()  # the first process has only its connection left
        for client in (first, second):
            client.send(b"NOOP\r\n")
            await until(client, "250 2.0.0 ok")

    run(test, channel="tls")


@pytest.mark.parametrize("protocol", ["smtp", "imap", "pop3"])
def test_a_handshake_has_no_more_time_than_the_login(nursery, protocol):
    """Who says nothing after STARTTLS is gone when a stranger's time is over, not when a session's silence is."""

    async def whole():
        async with FrontedServer(protocol, {}, nursery) as server:
            client = await server.connect()
            await client.line()
            if protocol == "smtp":
                client.send(b"EHLO x\r\n")
                await until(client, "250 ")
            server.session.must_come_to_it(0.5)
            client.send({"smtp": b"STARTTLS\r\n", "imap": b"a STARTTLS\r\n", "pop3": b"STLS\r\n"}[protocol])
            await client.line()
            await client.rest()

    asyncio.run(asyncio.wait_for(whole(), 30))

"""What a front that was taken over can say: no more than a stranger could. What no honest front says ends the connection, or all.

Its world: the test itself is the front, at the other end of the owner's channel; the session and the store behind it are real.
Left out: lies that any stranger may tell (another sender, another message), which are judged where strangers' are.
"""

import asyncio
import socket

import pytest
from memory_server import MemoryServer

from fubako.front import frames
from fubako.front.frames import Cutter, Ended, Ending, FrameError, Ready, Released
from fubako.front.judge import Unbelievable, judge
from fubako.message.address import Address
from fubako.message.envelope import Recipient, Sender
from fubako.net.front import FrontChannel
from fubako.protocol import smtp_events as events
from fubako.protocol.smtp import SmtpLimits
from fubako.protocol.smtp_order import verb_of
from fubako.server.session import Arrival
from fubako.server.smtp import SmtpSession

BOB = Address("bob", "gcd.org")
ENVELOPE = [
    events.Hello("EHLO", "x"),
    events.Mail(Sender(Address("a", "b.test"))),
    events.Rcpt(Recipient(BOB)),
    events.Data(),
]
LETTER = b"Subject: x\r\n\r\nwords\r\n"


class PlayedFront:
    """The test's end of a channel with one conversation on it."""

    def __init__(self, server) -> None:
        self._server = server
        ours, self._channel = socket.socketpair()
        connection, self._peer = socket.socketpair()
        self._channel.setblocking(False)
        self._cutter = Cutter()
        self._heard = []
        self._foreseen = None
        self.broken: list[str] = []
        self.channel = FrontChannel(ours, server.app._apart().settings, lambda _channel, why: self.broken.append(why))
        stream = self.channel.open(connection, "192.0.2.1:40000")
        self.session = SmtpSession(server.app.resources, Arrival(stream, "smtp"))
        self.task = asyncio.ensure_future(self.session.run())

    def say(self, said, number=1) -> None:
        self.raw(frames.frame(number, said))

    def raw(self, octets: bytes) -> None:
        self._channel.send(octets)

    async def told(self, kind):
        """The next thing of a kind that the owner says; None when it ends the channel."""
        while True:
            while self._heard:
                said = self._heard.pop(0)
                if isinstance(said, kind):
                    return said
            octets = await asyncio.get_running_loop().sock_recv(self._channel, 65536)
            if not octets:
                return None
            self._heard += [frames.to_front(payload) for _, payload in self._cutter.feed(octets)]

    async def asked(self, said) -> frames.Reply:
        if self._foreseen is None:
            self._foreseen = (await self.told(frames.Foresee)).replies
        self.say(said)
        foreseen = self._foreseen.pop(verb_of(said), None)
        return frames.Reply(foreseen) if foreseen else await self.told(frames.Reply)

    def end(self) -> None:
        self.channel.shut()
        self._channel.close()
        self._peer.close()


def played(test):
    async def whole():
        async with MemoryServer("smtp", {}) as server:
            front = PlayedFront(server)
            try:
                await asyncio.wait_for(test(server, front), 20)
            finally:
                front.end()
                await asyncio.wait([front.task])

    asyncio.run(whole())


async def messages(server) -> int:
    return len(await server.store.database.read(lambda tx: tx.rows("SELECT 1 FROM message")))


def test_an_honest_front_delivers():
    async def test(server, front):
        for event in ENVELOPE:
            assert (await front.asked(event)).status.ok
        front.say(events.Content(LETTER))
        assert (await front.asked(events.ContentEnd())).status.code == 250
        assert await messages(server) == 1

    played(test)


OUT_OF_ORDER = {
    "content before a recipient": [ENVELOPE[0], events.Content(LETTER)],
    "a message that nobody announced": [events.ContentEnd()],
    "a recipient before a sender": [ENVELOPE[0], ENVELOPE[2]],
    "an answer to no question": [ENVELOPE[0], events.AuthResponse(b"x")],
    "a command amid content": [*ENVELOPE, events.Content(b"x"), events.Quit()],
    "TLS before a greeting": [events.StartTls()],
    "irregular content that is called regular": [*ENVELOPE, events.Content(b"a\nb\r\n"), events.ContentEnd()],
    "a descriptor let go that nobody wanted": [ENVELOPE[0], Released()],
}


@pytest.mark.parametrize("said", OUT_OF_ORDER.values(), ids=OUT_OF_ORDER)
def test_what_may_not_come_ends_the_connection(said):
    async def test(server, front):
        for event in said[:-1]:
            if isinstance(event, events.Content):
                front.say(event)
            else:
                assert (await front.asked(event)).status.ok
        front.say(said[-1])
        assert isinstance(await front.told(frames.Close), frames.Close)
        assert await messages(server) == 0
        assert not front.broken  # the others' conversations go on

    played(test)


def test_who_does_not_wait_for_replies_is_not_heard_without_end():
    async def test(server, front):
        await front.told(frames.Open)
        front.raw(frames.frame(1, events.Reset()) * (frames.EVENTS_MAX + 1))
        await front.task
        assert front.broken

    played(test)


UNBELIEVABLE = {
    "a line end in a sender": events.Mail(Sender(Address("a\r\nRCPT TO:<x", "b.test"))),
    "a blank in a domain": events.Rcpt(Recipient(Address("a", "b test"))),
    "a domain in capitals": events.Rcpt(Recipient(Address("a", "B.test"))),
    "no domain": events.Rcpt(Recipient(Address("root", ""))),
    "no address": events.Rcpt(Recipient(Address("", ""))),
    "a line end in ORCPT": events.Rcpt(Recipient(BOB, "", "rfc822;a\r\nx")),
    "a wish that there is not": events.Rcpt(Recipient(BOB, "ALWAYS")),
    "a line end in ENVID": events.Mail(Sender(BOB, envid="x\r\ny")),
    "a body that there is not": events.Mail(Sender(BOB, body="BINARYMIME")),
    "a deadline of ours": events.Mail(Sender(BOB, deliver_by=5)),
    "a negative size": events.Mail(Sender(BOB, size=-1)),
    "a line end in a greeting": events.Hello("EHLO", "x\r\nSubject:"),
    "a greeting that there is not": events.Hello("X", "x"),
    "an attribute that there is not": events.XClient({"SHELL": "x"}),
    "a line end in an attribute": events.XClient({"NAME": "x\ny"}),
    "a line end in a response": events.AuthResponse(b"a\r\nb"),
}


@pytest.mark.parametrize("said", UNBELIEVABLE.values(), ids=UNBELIEVABLE)
def test_values_that_no_parser_makes_are_not_believed(said):
    with pytest.raises(Unbelievable):
        judge(said, SmtpLimits())


BROKEN = {
    "a frame without end": frames.HEAD.pack(1, frames.FRAME_OCTETS_MAX + 1),
    "no struct": frames.HEAD.pack(1, 1) + b"\xc1",
    "a struct of the owner": frames.frame(1, frames.Close()),
    "ready in a conversation": frames.frame(1, Ready(1, (), (), 0)),
    "an end of the process": frames.frame(frames.ITSELF, Ended(Ending.GONE)),
    "a line end in an address": frames.frame(1, UNBELIEVABLE["a line end in a sender"]),
}


@pytest.mark.parametrize("octets", BROKEN.values(), ids=BROKEN)
def test_a_channel_whose_rules_are_broken_ends(octets):
    async def test(server, front):
        await front.told(frames.Open)
        await asyncio.get_running_loop().sock_sendall(front._channel, octets)
        await front.task
        assert front.broken
        assert await messages(server) == 0

    played(test)


def test_more_content_than_was_asked_for_ends_the_channel():
    """Octets that the session has not taken are not kept without end."""

    async def test(server, front):
        for event in ENVELOPE:
            assert (await front.asked(event)).status.ok
        stream = front.session.stream
        stream.hear(events.Content(b"x" * frames.WINDOW_OCTETS))
        with pytest.raises(FrameError):
            stream.hear(events.Content(b"x"))

    played(test)


def test_words_to_a_closed_connection_are_nobodys():
    async def test(server, front):
        front.say(ENVELOPE[0], number=77)
        assert (await front.asked(ENVELOPE[0])).status.ok

    played(test)

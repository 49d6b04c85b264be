"""What streams say in one turn of the loop leaves together, in order, and none of it waits for the next."""

import asyncio
import errno
import socket

import pytest

from fubako.net.tcp import TOGETHER_OCTETS_MAX, TcpStream, why


class Wire(asyncio.Transport):
    """Notes what is written to it."""

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__({"peername": ("192.0.2.1", 25)})
        self.broken, self.written, self.closed = broken, [], False

    def write(self, octets):
        if self.broken:
            raise RuntimeError("the handle is closed")
        self.written.append(octets)

    def close(self):
        self.closed = True


def stream_on(wire: Wire) -> TcpStream:
    stream = TcpStream()
    stream.connection_made(wire)
    return stream


def test_words_of_one_turn_leave_as_one():
    async def story() -> None:
        wires = [Wire(), Wire()]
        streams = [stream_on(wire) for wire in wires]
        for word in (b"250-one\r\n", b"250 two\r\n"):
            for stream in streams:
                stream.write(word)
        assert [wire.written for wire in wires] == [[], []]
        await asyncio.sleep(0)
        assert [wire.written for wire in wires] == [[b"250-one\r\n250 two\r\n"]] * 2
        streams[0].write(b"221 bye\r\n")
        await asyncio.sleep(0)
        assert wires[0].written[1:] == [b"221 bye\r\n"]
        assert len(wires[1].written) == 1

    asyncio.run(story())


def test_who_says_much_learns_at_once_whether_the_peer_takes_it():
    async def story() -> None:
        wire = Wire()
        stream = stream_on(wire)
        stream.write(b"a")
        stream.write(b"b" * TOGETHER_OCTETS_MAX)
        stream.write(b"c")
        assert wire.written == [b"a", b"b" * TOGETHER_OCTETS_MAX]
        await asyncio.sleep(0)
        assert wire.written[2:] == [b"c"]

    asyncio.run(story())


def test_the_last_words_leave_before_the_end():
    async def story() -> None:
        wire = Wire()
        stream = stream_on(wire)
        stream.write(b"221 bye\r\n")
        stream.close()
        assert (wire.written, wire.closed) == ([b"221 bye\r\n"], True)
        await asyncio.sleep(0)
        assert wire.written == [b"221 bye\r\n"]

    asyncio.run(story())


def test_one_that_fails_does_not_silence_the_others():
    async def story() -> list[dict]:
        told: list[dict] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
        broken, sound = Wire(broken=True), Wire()
        for wire in (broken, sound):
            stream_on(wire).write(b"hello\r\n")
        await asyncio.sleep(0)
        assert sound.written == [b"hello\r\n"]
        assert broken.closed
        return told

    assert len(asyncio.run(story())) == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 9)"), "Connection refused"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (OSError("the proxy hung up"), "the proxy hung up"),
        (TimeoutError(), "no answer"),
    ],
)
def test_why_a_connection_was_not_made_is_said_without_numbers(error, words):
    assert why(error) == words

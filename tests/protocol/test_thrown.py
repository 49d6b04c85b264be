"""What is read to find the end of a command that is refused, and kept nowhere, is bounded: octets at any rate end it.

The cutter of commands alone; left out: the session's deadlines (tests/server/test_deadlines.py) and the spool behind an APPEND.
"""

import pytest

from fubako.protocol.engine import ProtocolError
from fubako.protocol.imap.fragments import COMMAND_OCTETS_STRANGER
from fubako.protocol.imap.server import ImapServer

BLOCK = 256 * 1024
MUCH = 64 << 20  # more than is ever read for one command without a message
COMMAND_MAX = 1 << 20


class NoRoom:
    size = 0

    def append(self, _octets):
        return False

    def read(self, _start, _length):
        return b""


def octets_read(begin: bytes, repeat: bytes) -> tuple[int, bytes]:
    """How much was read until the end, and its last words."""
    engine = ImapServer()
    engine.known(COMMAND_MAX, COMMAND_MAX, NoRoom)
    read, blocks = 0, repeat * (BLOCK // len(repeat) or 1)
    engine.receive(begin)
    try:
        while read < MUCH:
            assert engine.next_event() is None
            engine.output()
            engine.receive(blocks)
            read += len(blocks)
    except ProtocolError as error:
        return read, error.farewell
    raise AssertionError("it reads on for ever")


@pytest.mark.parametrize(
    ("begin", "repeat"),
    [
        (b"a FETCH ", b"1,"),  # a line without an end
        (b"a FETCH " + b"1" * (COMMAND_MAX + 5000), b"1 {1000+}\r\n" + b"x" * 1000),  # literals behind it
        (
            b"a APPEND inbox {1000+}\r\n" + b"x" * 1000,
            b" {1000+}\r\n" + b"x" * 1000,
        ),  # messages for which there is no room
    ],
)
def test_a_command_that_is_thrown_away_ends(begin, repeat):
    read, farewell = octets_read(begin, repeat)
    assert read <= (16 << 20) + COMMAND_MAX + 2 * BLOCK
    assert farewell == b"a BAD the command does not end\r\n* BYE the command does not end\r\n"


@pytest.mark.parametrize("plus", [b"", b"+"])
def test_what_a_stranger_says_in_one_command_is_bounded_in_all(plus):
    """Literals that are each small enough are not so together."""
    engine, kept = ImapServer(), 0
    engine.receive(b"a LOGIN {4000" + plus + b"}\r\n")
    ended = b""
    while kept < 64_000 and not ended:
        try:
            assert engine.next_event() is None
            said = engine.output()
            ended = said if b"BAD" in said else b""
            kept += 0 if ended else 4000
            engine.receive(b"" if ended else b"x" * 4000 + b" {4000" + plus + b"}\r\n")
        except ProtocolError as error:
            ended = error.farewell
    assert kept <= COMMAND_OCTETS_STRANGER + 4000
    assert ended.startswith(b"a BAD ")

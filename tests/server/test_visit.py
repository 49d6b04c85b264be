"""A session on port 25 ends, whatever a stranger goes on saying in it: commands, messages, chunks, hours; that of the house stays.

Real sessions, engines and store on a memory stream. Left out: TLS (an attempt where TLS is already there is refused like any other
command), several sessions of one network (`tests/policy/test_limits.py`), and what a message costs.
"""

import asyncio
from dataclasses import replace

import pytest
from jumping import run
from memory_server import MemoryServer

from fubako.net.memory import pair
from fubako.protocol.smtp import SmtpLimits

SMTP = SmtpLimits(recipients=5, empty_commands=10)
ROUNDS = 200
MESSAGE = b"MAIL FROM:<a@example.net>\r\nRCPT TO:<bob@gcd.org>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\n"


async def said(service: str, repeat: bytes, rounds: int = ROUNDS, *, wait: float = 0, **limits) -> list[str]:
    """All that the server says to a stranger who repeats himself, `wait` seconds between; the last line tells how it ended."""
    async with MemoryServer("smtp", {"service": service}) as server:
        loop = asyncio.get_running_loop()
        ours, theirs = pair()
        server.sit_down(ours, **({"smtp": SMTP} | limits))
        theirs.write(b"LHLO me\r\n" if service == "lmtp" else b"EHLO me\r\n")
        heard = b""
        for _ in range(rounds):
            theirs.write(repeat)
            want = heard.count(b"\n") + 1
            while heard.count(b"\n") < want and (octets := await theirs.read()):
                heard += octets
            loop.jump = bool(wait)
            await asyncio.sleep(wait)
            loop.jump = False
            if theirs._at_end and not theirs.pending:
                break
        theirs.write(b"QUIT\r\n")
        while octets := await theirs.read():
            heard += octets
        return heard.decode().splitlines()


@pytest.mark.parametrize(
    "repeat",
    [
        b"NOOP\r\n",
        b"RSET\r\n",
        b"VRFY bob\r\n",
        b"HELO me\r\n",
        b"EHLO me\r\n",
        b"STARTTLS now\r\n",
        b"AUTH PLAIN\r\n",
        b"XCLIENT ADDR=192.0.2.7\r\n",
        b"MAIL FROM:<a@example.net>\r\nRSET\r\n",
        b"MAIL FROM:<a@example.net> SIZE=99999999999\r\n",
        b"MAIL FROM:<a@example.net>\r\nRCPT TO:<who@gcd.org>\r\nRSET\r\n",
        b"MAIL FROM:<a@example.net>\r\nRCPT TO:<bob@gcd.org>\r\nBDAT 0\r\nRSET\r\n",
        b"MAIL FROM:<a@example.net>\r\nRCPT TO:<bob@gcd.org>\r\nBDAT 0\r\nBDAT 0\r\nBDAT 0\r\nBDAT 0\r\n",
        b"MAIL FROM:<a@example.net>\r\nRCPT TO:<bob@gcd.org>\r\nBDAT 1\r\nxBDAT 1\r\nx",
    ],
)
def test_commands_without_a_message_end_the_session(repeat):
    lines = asyncio.run(said("smtp", repeat))
    assert lines[-1].startswith("421 "), lines[-1]
    assert len(lines) < 25 * SMTP.commands_a_message  # a reply has at most so many lines


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (MESSAGE, "250 2.0.0"),
        (MESSAGE.replace(b"Subject: x", b"S\x00"), "554"),  # refused when it has come
        (MESSAGE.replace(b"DATA\r\n", b"BDAT 3 LAST\r\n").partition(b"Subj")[0] + b"x\r\n", "250 2.0.0"),
    ],
)
def test_messages_of_one_session_are_counted(message, answer):
    lines = asyncio.run(said("smtp", message, 20, smtp_session_messages=3))
    assert lines[-1].startswith("421 4.7.0 too many messages")
    assert sum(line.startswith(answer) for line in lines) == 3


def test_a_session_that_lasts_takes_no_further_message():
    """One every 250 seconds keeps within the time of each."""
    lines = run(said("smtp", MESSAGE, 30, wait=250, smtp_session_seconds=3600))
    assert lines[-1].startswith("421 4.7.0 the session has lasted too long")
    assert 13 <= sum(line.startswith("250 2.0.0") for line in lines) <= 16


def test_a_message_is_not_cut_by_the_end_of_the_session():
    before, behind = MESSAGE[:-4], MESSAGE[-4:]

    async def played() -> list[str]:
        async with MemoryServer("smtp", {"service": "smtp"}) as server:
            loop = asyncio.get_running_loop()
            ours, theirs = pair()
            server.sit_down(ours, smtp_session_seconds=10)
            theirs.write(b"EHLO me\r\n" + before)
            heard = b""
            while b"354" not in heard:
                heard += await theirs.read()
            loop.jump = True
            await asyncio.sleep(60)
            loop.jump = False
            theirs.write(behind + MESSAGE)
            while octets := await theirs.read():
                heard += octets
            return heard.decode().splitlines()

    lines = run(played())
    assert (lines[-2][:9], lines[-1][:9]) == ("250 2.0.0", "421 4.7.0")


def test_all_recipients_of_a_message_may_be_named():
    smtp = replace(SMTP, recipients=100)
    many = MESSAGE.replace(b"DATA", b"RCPT TO:<bob@gcd.org>\r\n" * 99 + b"DATA")
    lines = asyncio.run(said("smtp", many, 3, smtp=smtp))
    assert lines[-1].startswith("221")
    assert sum(line.startswith("250 2.0.0") for line in lines) == 3


@pytest.mark.parametrize("repeat", [b"NOOP\r\n", b"RSET\r\n", MESSAGE])
def test_the_house_may_stay(repeat):
    lines = asyncio.run(said("lmtp", repeat, 50, smtp_session_messages=3))
    assert lines[-1].startswith("221")

"""The table where letters come in: refused, thrown away, relayed."""

import asyncio
import tempfile
from pathlib import Path

from peer import House

from fubako.config import Route
from fubako.net.memory import pair
from fubako.server.session import Arrival
from fubako.server.smtp import SmtpSession
from fubako.store.waiting import Selection, entries

TABLE = """\
spammer.test ERROR:"550 5.7.1 We know you"
192.0.2.66 REJECT
thrown.test DISCARD
192.0.2.77 DISCARD
Connect:192.0.2.88 RELAY
To:backup.test RELAY
To:full@here.test 452 4.2.2 come back later
"""


def say(tmp_path, peer, *lines):
    """The replies of the service smtp to a client at `peer`, and what came of it."""

    async def test():
        root = Path(tempfile.mkdtemp(dir=tmp_path))
        (root / "access").write_text(TABLE)
        async with House(root, Route(to="smtp://127.0.0.1:9"), access=str(root / "access")) as house:
            ours, theirs = pair(peer=f"{peer}:40000")
            session = SmtpSession(house.app.resources, Arrival(ours, "smtp", None, False))
            task = asyncio.ensure_future(session.run())
            theirs.write(("\r\n".join(["EHLO x.test", *lines, "QUIT"]) + "\r\n").encode())
            said = b""
            while octets := await theirs.read():
                said += octets
            await task
            replies = [line for line in said.decode().splitlines() if line[3] == " "][2:-1]
            waiting = await house.store.database.read(lambda tx: entries(tx, Selection()))
            return replies, [one.recipient for one in waiting], await house.inbox()

    return asyncio.run(test())


LETTER = ("DATA", "Subject: x", "", "body", ".")


def test_a_sender_and_a_client_are_refused(tmp_path):
    replies, *_ = say(tmp_path, "192.0.2.1", "MAIL FROM:<a@sub.spammer.test>")
    assert replies == ["550 5.7.1 We know you"]
    replies, *_ = say(tmp_path, "192.0.2.66", "MAIL FROM:<a@good.test>")
    assert replies == ["550 5.7.1 access denied"]


def test_a_recipient_is_refused_for_now(tmp_path):
    replies, *_ = say(tmp_path, "192.0.2.1", "MAIL FROM:<a@b.test>", "RCPT TO:<full@here.test>")
    assert replies[1] == "452 4.2.2 come back later"


def test_discard_takes_the_letter_and_keeps_nothing(tmp_path):
    replies, waiting, inbox = say(tmp_path, "192.0.2.77", "MAIL FROM:<a@b.test>", "RCPT TO:<alice@here.test>", *LETTER)
    assert [reply[:3] for reply in replies] == ["250", "250", "354", "250"]
    assert (waiting, inbox) == ([], [])


def test_relay_is_for_listed_clients_and_listed_domains_alone(tmp_path):
    letter = ("MAIL FROM:<a@backup.test>", "RCPT TO:<x@far.test>")
    replies, *_ = say(tmp_path, "192.0.2.1", *letter)
    assert replies[1].startswith("550 5.7.1 relaying denied")  # a sender proves nothing
    replies, waiting, _ = say(tmp_path, "192.0.2.88", *letter, *LETTER)
    assert waiting == ["x@far.test"]
    replies, waiting, _ = say(tmp_path, "192.0.2.1", "MAIL FROM:<a@b.test>", "RCPT TO:<x@backup.test>", *LETTER)
    assert waiting == ["x@backup.test"]


def test_what_is_not_listed_comes_in_as_always(tmp_path):
    replies, _, inbox = say(tmp_path, "192.0.2.1", "MAIL FROM:<a@b.test>", "RCPT TO:<alice@here.test>", *LETTER)
    assert replies[-1].startswith("250")
    assert len(inbox) == 1


def test_a_discard_ends_with_its_sender(tmp_path):
    """A sender whose letters are thrown away, refused for something else, does not take the next sender's letter along."""
    refused = ("MAIL FROM:<x@thrown.test> REQUIRETLS", "MAIL FROM:<a@b.test>", "RCPT TO:<alice@here.test>", *LETTER)
    replies, _, inbox = say(tmp_path, "192.0.2.1", *refused)
    assert replies[0].startswith("530")
    assert len(inbox) == 1

"""A stop under load: what was answered is there once, what was not answered is not there, and nobody waits for it.

Sessions are the real ones on streams in memory, the store is a real one; seeds choose when the stop comes and whether commits are
waited for on the loop or by the thread. Left out: the process that ends afterwards (`tests/cli/test_serve.py`), and a disk that
stands still for longer than the time that commits are given.
"""

import asyncio
import random

import pytest
from memory_server import MemoryServer

from fubako.accounts import directory
from fubako.accounts.identity import Identity
from fubako.net.fronted import FrontedLine
from fubako.net.line import Line
from fubako.net.memory import pair
from fubako.server import session as sessions
from fubako.server.imap import ImapSession
from fubako.server.pop3 import Pop3Session
from fubako.server.session import Arrival, stop_all
from fubako.server.smtp import SmtpSession
from fubako.store.mailboxes import INBOX_ID
from fubako.store.sqlite import Pace, SqliteCore

SEEDS = 1000
BODY = b"Subject: x\r\n\r\n" + b"x" * 60 + b"\r\n"
LETTERS = 6


class Peer:
    """One connection with everything that it will say, and what it heard."""

    def __init__(self, server, kind, service, account) -> None:
        ours, self.stream = pair(local=True)
        proved = None if kind is SmtpSession else Identity(account, "PREAUTH")
        self.account = account
        self.session = kind(server.app.resources, Arrival(ours, service, proved=proved))
        self.task = asyncio.ensure_future(self.session.run())
        self.heard = b""

    async def hear(self) -> list[bytes]:
        while octets := await self.stream.read():
            self.heard += octets
        return self.heard.split(b"\r\n")


def smtp_words(address: str) -> bytes:
    one = f"MAIL FROM:<a@b.test>\r\nRCPT TO:<{address}>\r\nBDAT {len(BODY)} LAST\r\n".encode() + BODY
    return b"EHLO x\r\n" + one * LETTERS


def imap_words(_address: str) -> bytes:
    return b"".join(b"%d APPEND INBOX {%d+}\r\n%b\r\n" % (number, len(BODY), BODY) for number in range(LETTERS))


def answered(peer: Peer, lines: list[bytes]) -> int:
    if isinstance(peer.session, SmtpSession):
        return sum(line.startswith(b"250 2.0.0 ok ") for line in lines)
    return sum(b" OK [APPENDUID" in line for line in lines)


async def count(server, account) -> int:
    key = (account.account_id, INBOX_ID)
    sql = "SELECT count(*) FROM message WHERE account_id=? AND mailbox_id=?"
    return (await server.store.database.read(lambda tx: tx.row(sql, key)))[0]


async def accounts(server, names):
    def unit(tx):
        return [directory.add_account(tx, f"{name}@gcd.org", 1) for name in names]

    return await server.store.database.write(unit)


@pytest.mark.timeout(600)
def test_nothing_is_doubled_or_lost_by_a_stop(monkeypatch):
    rng = random.Random(0)
    monkeypatch.setattr(Pace, "quick", property(lambda _pace: rng.random() < 0.5))

    async def test():
        async with MemoryServer("smtp", {"service": "smtp"}) as server:
            here = await accounts(server, ("s0", "s1", "s2", "i0", "i1"))
            kinds = [SmtpSession] * 3 + [ImapSession] * 2
            expected = dict.fromkeys(range(len(here)), 0)
            cut_off = 0
            for seed in range(SEEDS):
                rng.seed(seed)
                peers = []
                for kind, account in zip(kinds, here, strict=True):
                    peers.append(Peer(server, kind, "smtp" if kind is SmtpSession else "imap", account))
                    words = (smtp_words if kind is SmtpSession else imap_words)(account.address)
                    peers[-1].stream.write(words)
                for _ in range(rng.randrange(80)):
                    await asyncio.sleep(0 if rng.random() < 0.9 else 0.0002)
                await stop_all(server.app.resources.sessions)
                assert all(peer.task.done() for peer in peers)
                for number, peer in enumerate(peers):
                    lines = await peer.hear()
                    expected[number] += answered(peer, lines)
                    cut_off += answered(peer, lines) < LETTERS
                    assert lines[-2].startswith((b"421 4.3.2", b"* BYE")), (seed, lines)
                    assert await count(server, peer.account) == expected[number], (seed, lines)
            assert cut_off > SEEDS  # most stops came amid the load

    asyncio.run(test())


def test_messages_are_removed_where_quit_was_answered_and_nowhere_else(monkeypatch):
    rng = random.Random(0)
    monkeypatch.setattr(Pace, "quick", property(lambda _pace: rng.random() < 0.5))

    async def test():
        async with MemoryServer("smtp", {"service": "smtp"}) as server:
            (account,) = await accounts(server, ("p0",))
            left = 0
            ways = {True: 0, False: 0}
            for seed in range(200):
                rng.seed(seed)
                if not left:
                    peer = Peer(server, SmtpSession, "smtp", account)
                    peer.stream.write(smtp_words(account.address) + b"QUIT\r\n")
                    await peer.hear()
                    left = LETTERS
                peer = Peer(server, Pop3Session, "pop3", account)
                peer.stream.write(b"DELE 1\r\nQUIT\r\n")
                for _ in range(rng.randrange(300)):
                    await asyncio.sleep(0)
                await stop_all(server.app.resources.sessions)
                removed = b"+OK bye" in await peer.hear()
                left -= removed
                ways[removed] += 1
                assert await count(server, account) == left, seed
            assert min(ways.values()) > 10

    asyncio.run(asyncio.wait_for(test(), 120))


def test_a_session_whose_account_changes_amid_a_commit_answers_it(monkeypatch):
    """Every other end is of the same kind: it never comes between a commit and its answer."""

    async def test():
        async with MemoryServer("imap", {}) as server:
            (account,) = await accounts(server, ("c0",))
            peer = Peer(server, ImapSession, "imap", account)
            real = SqliteCore.finish

            def finish(core):
                peer.session._changed()
                real(core)

            assert b"PREAUTH" in await peer.stream.read()
            monkeypatch.setattr(SqliteCore, "finish", finish)
            peer.stream.write(b"0 APPEND INBOX {%d+}\r\n%b\r\nz NOOP\r\n" % (len(BODY), BODY))
            lines = await peer.hear()
            assert await count(server, account) == 1
            assert any(b" OK [APPENDUID" in line for line in lines)
            assert lines[-2] == b"* BYE the account was changed: log in again"
            assert not any(line.startswith(b"z ") for line in lines)

    asyncio.run(asyncio.wait_for(test(), 20))


def test_a_command_that_takes_too_long_is_cut_before_it_commits(monkeypatch):
    async def test():
        async with MemoryServer("smtp", {"service": "smtp"}) as server:
            (account,) = await accounts(server, ("l0",))
            forever = asyncio.get_running_loop().create_future()

            async def plan(_transaction, _found):
                await forever

            monkeypatch.setattr(server.app.resources.intake, "plan", plan)
            peer = Peer(server, SmtpSession, "smtp", account)
            peer.stream.write(smtp_words(account.address))
            while not peer.session.line.busy or peer.session.content is None:
                await asyncio.sleep(0)
            await stop_all(server.app.resources.sessions, grace=0.01, answer=5)
            assert (await peer.hear())[-2] == b"421 4.3.2 the server is shutting down"
            assert peer.task.cancelled() and await count(server, account) == 0

    asyncio.run(asyncio.wait_for(test(), 20))


def test_every_kind_of_line_knows_when_its_session_is_busy():
    """However events come, one place says so: a line that hears them otherwise changes `_next_event` alone."""
    kinds = [Line]
    for kind in kinds:
        kinds += kind.__subclasses__()
        for name in ("event", "event_or_nudge", "_next"):
            assert getattr(kind, name) is getattr(Line, name), kind
    assert FrontedLine in kinds


def test_the_times_of_a_stop_fit_into_the_supervisors_patience():
    from fubako.app.application import LINGER_SECONDS
    from fubako.cli.workers import STOP_SECONDS

    assert sessions.GRACE_SECONDS + 2 * sessions.ANSWER_SECONDS + 2 * LINGER_SECONDS + 5 < STOP_SECONDS

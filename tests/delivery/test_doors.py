"""Text from the wire is an address and nothing else: every door × hostile addresses, and what comes of them is carried out.

An audit hook sees whether a process is started or a file written outside the store. Left out: calls that libraries in C make
themselves, and the doors' own transports (TLS, SSH), which hand the same lines to the same sessions.
"""

import asyncio
from contextlib import suppress

import pytest
from hostile import addresses, hostile
from peer import House, Peer
from targets_named import add_alias
from watched import watched

from fubako.accounts.identity import Identity
from fubako.cli.compat import _address, injector
from fubako.config import Route
from fubako.delivery.reporting import Reporter
from fubako.message import srs
from fubako.message.address import parse_address
from fubako.message.aggregate import Head
from fubako.message.envelope import Recipient, Sender
from fubako.message.report import Reported
from fubako.message.status import Status
from fubako.message.target import RemoteAddress, Way
from fubako.net.memory import pair
from fubako.protocol.callers import UsageFault
from fubako.server.session import Arrival
from fubako.server.smtp import SmtpSession
from fubako.store import messages, queue, waiting
from fubako.store.queue import Outgoing, Target


class Speaker:
    """A client of one service; `user` has proved himself. A connection that ended is made anew."""

    def __init__(self, house, service, *, user=False):
        self.house, self.service, self.user = house, service, user
        self.taken, self._task = 0, None

    async def _open(self):
        ours, self._stream = pair(local=True)
        account = None
        if self.user:
            found, _ = await self.house.app.resources.logins.find("alice@here.test")
            account = Identity(found, "PLAIN")
        session = SmtpSession(self.house.app.resources, Arrival(ours, self.service, None, proved=account))
        self._task, self._heard = asyncio.ensure_future(session.run()), b""
        await self._reply()
        await self.say("LHLO x.test" if self.service == "lmtp" else "EHLO x.test")

    async def _reply(self):
        while True:
            line, newline, rest = self._heard.partition(b"\r\n")
            if newline:
                self._heard = rest
                if line[3:4] != b"-":
                    return line.decode("utf-8", "replace")
                continue
            octets = await self._stream.read()
            if not octets:
                await self.close()
                return ""
            self._heard += octets

    async def say(self, text):
        self._stream.write((text + "\r\n").encode("utf-8", "surrogateescape"))
        return await self._reply()

    async def send(self, sender, recipient):
        """One message; whether it was taken."""
        if self._task is None:
            await self._open()
        for line in (f"MAIL FROM:{sender} SMTPUTF8", f"RCPT TO:<{recipient}>", "DATA"):
            reply = await self.say(line)
            if reply[:1] not in ("2", "3"):
                if reply:
                    await self.say("RSET")
                return
        self.taken += (await self.say("Subject: x\r\n\r\nx\r\n.")).startswith("250")

    async def close(self):
        if self._task is not None:
            self._stream.close()
            await self._task
            self._task = None


def one_line(text):
    return text.replace("\r", "").replace("\n", "")


def by_session(service, user, sender):
    async def door(house, texts):
        speaker = Speaker(house, service, user=user)
        for text in texts:
            await speaker.send(sender, one_line(text))
        await speaker.close()
        return speaker.taken

    return door


async def by_senders(house, texts):
    """Reports go back to hostile reverse paths."""
    speaker = Speaker(house, "filtered")
    for text in texts:
        await speaker.send(f"<{one_line(text)}>", "bounce@here.test")
        await speaker.send(f"<{one_line(text)}>", "bounce@far.test")
    await speaker.close()
    return speaker.taken


MESSAGE = b"Subject: x\r\n\r\nx\r\n"
ALICE = Sender(parse_address("alice@here.test"))


async def by_sendmail(house, texts):
    """What sendmail, rmail, rsmtp and qmail-inject hand in, by the arguments of local users."""
    into, taken = injector(house.store, house.config, house.root, house.app.env), 0
    for text in texts:
        with suppress(UsageFault):
            done = await into.inject("uucp", ALICE, [Recipient(_address(text, "here.test"))], MESSAGE)
            taken += done.accepted is not None
    return taken


async def by_intake(house, texts):
    """Straight to the lookup and the intake, past every parser: what was forwarded, reports, what goes again."""
    app, taken = house.app, 0
    into = injector(house.store, house.config, house.root, app.env)
    secret = await app.dresser.secret()
    for address in addresses(texts):
        found = await app.resources.recipients.find(address)
        assert all(isinstance(one, RemoteAddress) for one in found.elsewhere)
        forwarded = srs.forward(address, "here.test", secret, int(house.clock.at) // 86400)
        for one in (address, forwarded):
            taken += (await into.inject("x", ALICE, [Recipient(one)], MESSAGE)).accepted is not None
        blob = await house.store.blobs.put([MESSAGE])
        letter = Outgoing(blob, str(address), created=int(house.clock.at), trace_id=app.env.trace_id())
        failed = Reported(str(address), "failed", Status(550, "5.0.0", "x"))
        unit = await app.reports.prepare(letter, MESSAGE, [("", failed)])
        if unit is not None:
            await house.store.database.write(unit)

        def rows(tx, blob=blob, address=address, letter=letter):
            messages.keep_blob(tx, blob, 2)
            for way in (Way.ROUTE, Way.AGAIN):
                queue.put(tx, letter, [Target(str(address), address.domain.lower(), way=way)])

        await house.store.database.write(rows)
    return taken


async def by_reports(house, texts):
    """Addresses that a domain's DNS names for its reports (rua of DMARC and TLSRPT)."""
    resources = house.app.resources
    reporter = Reporter(
        house.store.database, resources.intake, resources.recipients, house.zone, None, house.app.env, house.app.telemetry,
        "here.test", "postmaster@here.test", "",
    )  # fmt: skip
    head = Head("here.test", "postmaster@here.test", "2026-11-25", "far.test", 0, 86400)
    return sum([await reporter._tell("tls", head, [f"mailto:{text}"], b"{}") for text in texts])


DOORS = {
    "smtp": by_session("smtp", False, "<eve@evil.test>"),
    "smtp-null": by_session("smtp", False, "<>"),
    "smtp-auth": by_session("smtp", True, "<alice@here.test>"),
    "submission": by_session("submission", True, "<alice@here.test>"),
    "submissions": by_session("submissions", True, "<alice@here.test>"),
    "lmtp": by_session("lmtp", False, "<eve@evil.test>"),
    "local": by_session("local", False, "<eve@evil.test>"),
    "filtered": by_session("filtered", False, "<eve@evil.test>"),
    "senders": by_senders,
    "sendmail": by_sendmail,
    "intake": by_intake,
    "reports": by_reports,
}


async def _all_were_tried(house):
    selection = waiting.Selection()
    entries = await house.store.database.read(lambda tx: waiting.entries(tx, selection, 100_000))
    return all(one.attempts for one in entries)


@pytest.mark.parametrize("catch_all", [False, True])
@pytest.mark.parametrize("name", DOORS)
def test_no_process_is_started_and_no_file_is_touched(tmp_path, name, catch_all):
    async def test():
        async with Peer(says={"RCPT": ["250 2.1.5 ok"]}) as peer:
            root = tmp_path / "house"
            async with House(root, Route(domain="*", to=f"smtp://127.0.0.1:{peer.port}")) as house:
                if catch_all:
                    await house.store.database.write(lambda tx: add_alias(tx, "@here.test", ["alice@here.test"]))
                with watched(root) as seen:
                    house.run()
                    taken = await DOORS[name](house, hostile(tmp_path))
                    await house.until(lambda: _all_were_tried(house), 60)
                    await house.quiet()
                assert seen == []
                assert taken or (name.startswith("smtp") and not catch_all)
                assert not (tmp_path / "pwned").exists() and not list(tmp_path.glob("pwned*"))
                entries = await house.store.database.read(lambda tx: waiting.entries(tx, waiting.Selection(), 100_000))
                assert {one.way for one in entries} <= {Way.ROUTE, Way.AGAIN}

    asyncio.run(test())


def test_the_hook_sees_what_an_alias_may_do(tmp_path):
    """The same with an administrator's aliases: both are seen, so that the silence above means something."""

    async def test():
        async with House(tmp_path / "house") as house:
            targets = [f"|/bin/sh -c 'cat > {tmp_path}/program'", f"{tmp_path}/mbox"]
            await house.store.database.write(lambda tx: add_alias(tx, "list@here.test", targets))
            with watched(tmp_path / "house") as seen:
                house.run()
                await by_session("smtp", False, "<eve@evil.test>")(house, ["list@here.test"])
                await house.until(lambda: (tmp_path / "mbox").exists() and (tmp_path / "program").exists())
                await house.quiet()
            assert any("subprocess.Popen" in one for one in seen) and any("mbox" in one for one in seen)

    asyncio.run(test())

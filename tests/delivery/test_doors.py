"""Text from the wire is an address and nothing else: every door × hostile addresses, and what comes of them is carried out.

An audit hook sees whether a process is started or a file written outside the store. Left out: calls that libraries in C make
themselves, and what tests/interop/test_doors_as_processes.py has: TLS, SSH and command lines, as processes of their own.
"""

import asyncio
import shlex
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
from hostile import addresses, hostile
from peer import House, Peer
from targets_named import add_alias
from test_filters import Scripted
from watched import watched

from fubako.accounts.identity import Identity
from fubako.cli.compat import _address, injector
from fubako.config import Inbound, Limits, Milter, Route
from fubako.delivery.reporting import Reporter
from fubako.message import compose, srs
from fubako.message.address import parse_address
from fubako.message.aggregate import Head
from fubako.message.envelope import Recipient, Sender
from fubako.message.report import Reported
from fubako.message.status import Status
from fubako.message.target import RemoteAddress, Way
from fubako.net.interface import SshFacts
from fubako.net.memory import pair
from fubako.policy import dmarc
from fubako.protocol.callers import UsageFault
from fubako.protocol.milter import packet
from fubako.server.session import Arrival
from fubako.server.smtp import SmtpSession
from fubako.server.ssh_commands import Commands
from fubako.store import queue, waiting
from fubako.store.queue import Outgoing, Target


class Speaker:
    """A client of one service; `user` has proved himself. `first`: said before the greeting each time. A connection that ended is
    made anew."""

    def __init__(self, house, service, *, user=False, first=()):
        self.house, self.service, self.user, self.first = house, service, user, first
        self.taken, self._task = 0, None

    async def _open(self):
        ours, self._stream = pair(local=True, peer="192.0.2.1:40000")
        account = await alice(self.house) if self.user else None
        session = SmtpSession(self.house.app.resources, Arrival(ours, self.service, None, proved=account))
        self._task, self._heard = asyncio.ensure_future(session.run()), b""
        await self._reply()
        self.answers = [await self.say(line) for line in self.first]
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
        if self._task is None:
            await self._open()
        self._stream.write((text + "\r\n").encode("utf-8", "surrogateescape"))
        return await self._reply()

    async def send(self, sender, recipient, parameters="", content="Subject: x\r\n\r\nx"):
        """One message; whether it was taken."""
        for line in (f"MAIL FROM:{sender} SMTPUTF8", f"RCPT TO:<{recipient}>{parameters}", "DATA"):
            reply = await self.say(line)
            if reply[:1] not in ("2", "3"):
                if reply:
                    await self.say("RSET")
                return
        self.taken += (await self.say(f"{content}\r\n.")).startswith("250")

    async def close(self):
        if self._task is not None:
            self._stream.close()
            await self._task
            self._task = None


async def alice(house):
    found, _ = await house.app.resources.logins.find("alice@here.test")
    return Identity(found, "PLAIN")


def one_line(text):
    return text.replace("\r", "").replace("\n", "")


def by_session(service, user, sender, *first):
    async def door(house, texts):
        speaker = Speaker(house, service, user=user, first=first)
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
            for way in (Way.ROUTE, Way.AGAIN):
                queue.put(tx, letter, [Target(str(address), address.domain.lower(), way=way)])

        await house.store.database.write(rows)
    return taken


async def by_speakers(house, texts):
    """XCLIENT says who was logged in elsewhere."""
    taken = 0
    for text in texts:
        login = "".join(f"+{octet:02X}" for octet in one_line(text).encode("utf-8", "surrogateescape"))
        speaker = Speaker(house, "smtp", first=[f"XCLIENT ADDR=198.51.100.7 LOGIN={login}"])
        await speaker.say("NOOP")
        taken += speaker.answers[0].startswith("220")
        await speaker.close()
    return taken


async def by_original_recipients(house, texts):
    """ORCPT and ENVID stand in the reports of what came and of what failed (RFC 3461 §4)."""
    speaker = Speaker(house, "submission", user=True)
    for text in texts:
        original = "".join(f"+{octet:02X}" for octet in one_line(text).encode())
        parameters = f" NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;{original}"
        await speaker.send(f"<alice@here.test> RET=FULL ENVID={original[:90]}", "alice@here.test", parameters)
        await speaker.send("<alice@here.test>", "bounce@far.test", parameters)
    await speaker.close()
    return speaker.taken


async def by_reversal(house, texts):
    """What was forwarded comes back to a reverse path of ours (SRS), whose inside once was a stranger's."""
    secret, speaker = await house.app.dresser.secret(), Speaker(house, "smtp")
    for address in addresses(texts):
        await speaker.send("<>", srs.forward(address, "here.test", secret, int(house.clock.at) // 86400))
    await speaker.close()
    return speaker.taken


HEADER = (
    "Disposition-Notification-To", "Return-Receipt-To", "Errors-To", "Reply-To", "From", "Sender", "To", "Cc", "Bcc", "Resent-From",
    "Resent-To", "Resent-Cc", "Resent-Bcc", "Delivered-To", "X-Original-To", "List-Post", "List-Unsubscribe", "Return-Path",
)  # fmt: skip


async def by_fields(house, texts):
    """A header asks for answers; nobody but the recipient is written to."""
    speaker = Speaker(house, "filtered")
    for text in texts:
        fields = "\r\n".join(f"{name}: <{one_line(text)}>" for name in HEADER)
        for recipient in ("alice@here.test", "only@far.test"):
            await speaker.send("<eve@evil.test>", recipient, content=f"{fields}\r\n\r\nx")
    await speaker.close()
    entries = await house.store.database.read(lambda tx: waiting.entries(tx, waiting.Selection(), 100_000))
    assert {one.recipient for one in entries} <= {"only@far.test"}
    return speaker.taken


async def by_milter(house, texts):
    """A filter adds recipients, and says another sender."""
    said = [one_line(text).replace("\x00", "").encode("utf-8", "surrogateescape") for text in texts]
    speaker = Speaker(house, "smtp")
    for sender in [b"eve@evil.test", *said[::10]]:
        added = b"".join(packet("+", b"<%b>\x00" % one) for one in said)
        house.scripted.says["E"] = packet("e", b"<%b>\x00" % sender) + added + packet("c")
        await speaker.send("<eve@evil.test>", "alice@here.test")
    await speaker.close()
    return speaker.taken


class Terminal:
    """A command's standard input; what it says is thrown away."""

    ssh, idle_seconds = SshFacts("curve", "key", "PREAUTH", "x"), 0.0

    def __init__(self, octets):
        self._octets = octets

    async def read(self):
        octets, self._octets = self._octets, b""
        return octets

    def write(self, octets):
        pass

    async def drain(self):
        pass

    def complain(self, text):
        pass


def by_commands(*templates):
    """What an account runs by SSH: the address on the command line, as a shell quotes it, and in the header (-t)."""

    async def door(house, texts):
        commands = Commands(house.app.resources, await alice(house), (), None, "192.0.2.1:1", "t")
        taken = 0
        for text in texts:
            written = one_line(text)
            for template in templates:
                header = "".join(f"{name}: <{written}>\n" for name in ("To", "Cc", "Bcc", "Resent-To", "Resent-Bcc"))
                content = f"From: alice@here.test\n{header}\nx\n".encode("utf-8", "surrogateescape")
                taken += await commands.run(template.format(shlex.quote(written)), Terminal(content)) == 0
        return taken

    return door


async def by_headers(house, texts):
    """sendmail -t: To, Cc, Bcc, and instead of them the Resent- fields."""
    into, taken = injector(house.store, house.config, house.root, house.app.env), 0
    for names in (("To", "Cc", "Bcc"), ("To", "Resent-To"), ("To", "Resent-Bcc")):
        for text in texts:
            written = one_line(text).encode("utf-8", "surrogateescape")
            draft = compose.draft(
                b"".join(b"%b: %b, <%b>\n" % (name.encode(), written, written) for name in names) + b"\nx\n"
            )
            named = [Recipient(one) for one in compose.recipients(draft, "here.test")]
            if named:
                taken += (await into.inject("uucp", ALICE, named, draft.content)).accepted is not None
    return taken


async def by_reports(house, texts):
    """Addresses that a domain's DNS names for its reports (rua of DMARC and TLSRPT)."""
    resources = house.app.resources
    reporter = Reporter(
        house.store.database, resources.intake, resources.recipients, house.zone, None, house.app.env, house.app.telemetry,
        "here.test", "postmaster@here.test", "",
    )  # fmt: skip
    head = Head("here.test", "postmaster@here.test", "2026-11-25", "far.test", 0, 86400)
    taken = sum([await reporter._tell("tls", head, [f"mailto:{text}"], b"{}") for text in texts])
    for text in texts:
        written = text.encode("utf-8", "surrogateescape")
        house.zone.tables["texts"] = {
            "_smtp._tls.far.test": [b"v=TLSRPTv1; rua=mailto:%b" % written],
            "_dmarc.far.test": [
                b"v=DMARC1; p=none; rua=mailto:%b, mailto:%b!10m; ruf=mailto:%b" % (written, written, written)
            ],
        }
        taken += await reporter._tell("tls", head, await reporter._tls_addresses("far.test"), b"{}")
        for one in await reporter._texts("_dmarc.far.test"):
            found = dmarc.parse(one, "far.test")
            taken += await reporter._tell(
                "dmarc", head, [f"mailto:{uri}" for uri in found.reports] if found else [], b"x"
            )
    return taken


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
    "xclient": by_session("smtp", False, "<alice@here.test>", "XCLIENT ADDR=198.51.100.7 LOGIN=alice@here.test"),
    "xclient-login": by_speakers,
    "original recipients": by_original_recipients,
    "reversal": by_reversal,
    "header": by_fields,
    "milter": by_milter,
    "ssh": by_commands("sendmail -i -- {}", "rmail {}", "sendmail -i -t -- {}", "sendmail -i -f {} alice@here.test"),
    "sendmail -t": by_headers,
}
STRANGERS = ("smtp", "smtp-null")  # who hear that there is no such recipient
SETTINGS = {"inbound": Inbound(xclient_networks=("192.0.2.0/24",)), "limits": Limits(unknown_recipients=0)}


async def _all_were_tried(house):
    selection = waiting.Selection()
    entries = await house.store.database.read(lambda tx: waiting.entries(tx, selection, 100_000))
    return all(one.attempts for one in entries)


@asynccontextmanager
async def opened(root, door):
    """A house behind a relay that takes all but one recipient; for the milter's door with a milter."""
    says = {"RCPT": ["250 2.1.5 ok"], "bounce@far.test": ["550 5.1.1 unknown"]}
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(Peer(offers=("PIPELINING", "8BITMIME", "SMTPUTF8"), says=says))
        more, scripted = dict(SETTINGS), None
        if door == "milter":
            scripted = await stack.enter_async_context(Scripted({}))
            more["milter"] = (Milter(address=scripted.address),)
        to = Route(domain="*", to=f"smtp://127.0.0.1:{peer.port}")
        house = await stack.enter_async_context(House(root, to, more=more))
        house.scripted = scripted
        yield house


@pytest.mark.parametrize("catch_all", [False, True])
@pytest.mark.parametrize("name", DOORS)
def test_no_process_is_started_and_no_file_is_touched(tmp_path, name, catch_all):
    async def test():
        root = tmp_path / "house"
        async with opened(root, name) as house:
            if catch_all:
                await house.store.database.write(lambda tx: add_alias(tx, "@here.test", ["alice@here.test"]))
            with watched(root) as seen:
                house.run()
                taken = await DOORS[name](house, hostile(tmp_path))
                await house.until(lambda: _all_were_tried(house), 60)
                await house.quiet()
            assert seen == []
            assert taken or (name in STRANGERS and not catch_all)
            assert not list(tmp_path.glob("pwned*"))
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

"""A scripted SMTP or LMTP server on loopback, with or without STARTTLS, and a runner to meet it."""

import asyncio
import contextlib
from pathlib import Path

from memory_server import certificates
from zone import Zone

from fubako import app
from fubako.accounts import directory
from fubako.clock import Env
from fubako.config import Config, Queue, Route
from fubako.message.address import parse_address
from fubako.message.envelope import Recipient, Sender, Transaction
from fubako.message.hop import Hop
from fubako.net import become, tcp
from fubako.net.memory import pair
from fubako.net.tls import Certificate, ServerTls
from fubako.server.session import Arrival
from fubako.server.smtp import SmtpSession
from fubako.store import messages, queue, waiting
from fubako.store.interface import BlobRef
from fubako.store.queue import Outgoing, Target
from fubako.telemetry import Telemetry


class Peer:
    """Answers every verb with 250 unless `says` has a list of answers for it, used up one by one, the last one for ever."""

    def __init__(self, *, offers=("PIPELINING", "8BITMIME"), starttls=False, says=None):
        self.offers, self.starttls, self.says = list(offers), starttls, dict(says or {})
        self.said: list[str] = []
        self.letters: list[tuple[str, list[str], bytes]] = []
        self.connections = self.most = self.now = 0
        self.encrypted: list[bool] = []
        root = certificates()
        self._tls = ServerTls([Certificate.load(root / "s.pem", root / "s.key")])
        self._tasks = set()

    async def __aenter__(self):
        listener = tcp.bound_socket("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self._server = await tcp.listen(listener, self._connected)
        return self

    async def __aexit__(self, *_error):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, stream):
        task = asyncio.ensure_future(self._talk(stream))
        self._tasks.add(task)

    def _answer(self, verb, otherwise="250 2.0.0 ok"):
        answers = self.says.get(verb)
        if not answers:
            return otherwise
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def _talk(self, stream):
        self.connections += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            with contextlib.suppress(Exception):
                await self._session(stream)
        finally:
            self.now -= 1
            stream.close()

    async def _session(self, stream):
        buffer = b""

        async def line():
            nonlocal buffer
            while b"\r\n" not in buffer:
                octets = await stream.read()
                if not octets:
                    raise EOFError
                buffer += octets
            head, buffer = buffer.split(b"\r\n", 1)
            return head.decode()

        def say(text):
            if text == "DROP":
                raise EOFError
            stream.write(text.encode() + b"\r\n")

        say(self._answer("CONNECT", "220 peer.test ESMTP"))
        sender, recipients, lmtp = "", [], False
        while True:
            text = await line()
            self.said.append(text)
            verb = text.split(" ")[0].upper()
            if verb in ("EHLO", "LHLO"):
                lmtp = verb == "LHLO"
                names = self.offers + (["STARTTLS"] if self.starttls and stream.tls is None else [])
                say(
                    self._answer("EHLO", "\r\n".join(["250-peer.test", *(f"250-{name}" for name in names), "250 HELP"]))
                )
            elif verb == "STARTTLS":
                say(self._answer("STARTTLS", "220 go"))
                await stream.start_tls(self._tls.pump())
            elif verb == "MAIL":
                sender, recipients = text.split("<")[1].split(">")[0], []
                say(self._answer("MAIL"))
            elif verb == "RCPT":
                answer = self._answer(text.split("<")[1].split(">")[0], self._answer("RCPT"))
                recipients += [text.split("<")[1].split(">")[0]] if answer.startswith("25") else []
                say(answer)
            elif verb == "DATA":
                say(self._answer("DATA", "354 go"))
                content = []
                while (text := await line()) != ".":
                    content.append(text.removeprefix("."))
                ends = [self._answer("END") for _ in recipients] if lmtp else [self._answer("END")]
                if any(end.startswith("25") for end in ends):
                    self.letters.append((sender, recipients, "\r\n".join(content).encode()))
                    self.encrypted.append(stream.tls is not None)
                for end in ends:
                    say(end)
            elif verb == "QUIT":
                say("221 bye")
                return
            else:
                say(self._answer(verb))


class MovingClock:
    """A clock that a test moves."""

    def __init__(self):
        self.at = 1_800_000_000.0

    def now(self):
        return self.at

    def monotonic(self):
        return self.at


class House:
    """A store with alice@here.test, its routes, and a runner."""

    def __init__(
        self, tmp_path: Path, *routes: Route, zone=None, hostname="here.test", access="", more=None, **queue_settings
    ):
        self.root, self.clock = tmp_path, MovingClock()
        self.config = Config(
            hostname=hostname,
            quiet=True,
            access=access,
            route=tuple(routes),
            queue=Queue(**queue_settings),
            **(more or {}),
        )
        self.zone = zone or Zone()

    async def __aenter__(self):
        self._uid, become._effective_uid = (
            become._effective_uid,
            lambda: 1000,
        )  # tests may run as root, which runs nothing
        self.store = app.open_store(self.root / "store", shared=False)
        self.app = app.Application(
            self.config, certificates(), self.store, Telemetry(quiet=True), Env(self.clock), resolver=self.zone
        )

        def unit(tx):
            directory.add_domain(tx, "here.test", 1)
            directory.add_account(tx, "alice@here.test", 1)

        await self.store.database.write(unit)
        return self

    async def __aexit__(self, *_error):
        await self.app.close()
        become._effective_uid = self._uid
        assert not self.app.telemetry.counters["queue.bug"]

    async def send(self, *recipients, sender="alice@here.test", submitter="", at=None, notify="", **letter):
        content = b"Return-Path: <alice@here.test>\r\nSubject: out\r\n\r\n.dots and body\r\n"
        blob = await self.store.blobs.put([content])
        made = Outgoing(
            blob, sender, trace_id=self.app.env.trace_id(), created=int(self.clock.at), submitter=submitter, **letter
        )

        def unit(tx):
            return queue.put(tx, made, [Target(one, one.rpartition("@")[2], notify) for one in recipients], at=at)

        return waiting.name(*await self.store.database.write(unit))

    async def said(self, *lines, peer="192.0.2.1", service="smtp", hello="x.test"):
        """The last line of each reply to a client that says all lines after its greeting."""
        ours, theirs = pair(peer=f"[{peer}]:40000" if ":" in peer else f"{peer}:40000")
        session = SmtpSession(self.app.resources, Arrival(ours, service, None, False))
        task = asyncio.ensure_future(session.run())
        theirs.write(("\r\n".join([f"EHLO {hello}", *lines, "QUIT"]) + "\r\n").encode())
        heard = b""
        while octets := await theirs.read():
            heard += octets
        await task
        return [line for line in heard.decode().splitlines() if line[3] == " "][2:-1]

    async def submit(self, content, *recipients, sender="alice@here.test", at=0):
        """A letter of a user who proved himself."""
        resources = self.app.resources
        to = [Recipient(parse_address(one)) for one in recipients]
        found = [(one, await resources.recipients.find(one.address)) for one in to]
        hop = Hop("submissions", "in", "192.0.2.9:5", self.clock.at, tls_version="TLSv1.3", user=sender)
        transaction = Transaction(
            hop,
            "x.test",
            Sender(parse_address(sender)),
            to,
            [content],
            trace_id=self.app.env.trace_id(),
            user=sender,
            at=at,
            authors=frozenset({sender.rpartition("@")[2], "here.test"}),
        )
        return await resources.intake.accept(transaction, found)

    async def queued(self):
        """(sender, recipient, content) of what waits."""

        def unit(tx):
            rows = []
            for one in waiting.entries(tx, waiting.Selection()):
                letter = queue.letter(tx, *waiting.parse_name(one.queue_id))
                rows.append((one.sender, one.recipient, letter.blob))
            return rows

        rows = await self.store.database.read(unit)
        return [(sender, recipient, await self.store.blobs.read(blob)) for sender, recipient, blob in rows]

    async def entries(self):
        return await self.store.database.read(lambda tx: waiting.entries(tx, waiting.Selection()))

    async def inbox(self):
        rows = await self.store.database.read(
            lambda tx: tx.rows(f"SELECT {messages.PLACE} FROM message WHERE account_id=1 AND mailbox_id=1 ORDER BY uid")
        )
        return [(await self.store.blobs.read(BlobRef(*row))).decode() for row in rows]

    def run(self):
        self.app.run_queue()

    async def until(self, condition, seconds=10.0):
        """Wait for something to become true; returns what it gave."""
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            found = condition()
            found = await found if asyncio.iscoroutine(found) else found
            if found:
                return found
            await asyncio.sleep(0.01)
        raise AssertionError("it did not come to pass")

    async def quiet(self):
        await self.until(self._nothing_moves)

    async def _nothing_moves(self):
        runner = self.app._runner
        return not runner._tasks and not runner._sites and not runner._loaded

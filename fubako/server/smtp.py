"""`SmtpSession`: SMTP on 25, submission on 465 and 587, LMTP on a socket: one session, three sets of rules."""

import asyncio
from functools import lru_cache
from math import inf

from fubako.accounts.identity import Proof
from fubako.accounts.recipients import Found
from fubako.message.compose import Given, submitted
from fubako.message.envelope import Recipient, Sender, Transaction
from fubako.message.octets import regular, within_line_limit
from fubako.message.status import Status
from fubako.message.trace import with_protocol
from fubako.net.fronted import FrontedSmtp, smtp_line
from fubako.policy.gate import is_address, within
from fubako.policy.limits import network_of
from fubako.policy.submission import SERVICES
from fubako.policy.verdict import ACCEPT, Verdict
from fubako.protocol import smtp
from fubako.protocol import smtp_events as events
from fubako.protocol.engine import ProtocolError
from fubako.protocol.sasl import SaslFailure
from fubako.server.admission import HOLD_SECONDS_MAX, Admission, Speaker
from fubako.server.memory import NoMemory
from fubako.server.session import Arrival, Resources, Session
from fubako.server.visit import Visit
from fubako.store import faults
from fubako.store.faults import Fault
from fubako.store.interface import StoreFull
from fubako.store.spool import Spooled

AUTH_FAILED = Status(535, "5.7.8", "authentication failed")
_UNASKED = ("lmtp", "local", "filtered")  # who may reach these services is known already
_INSIDE = ("lmtp", "filtered")  # and who passes on there what others wrote, and we examined
AUTH_FAILURES_MAX = 5
SENDER_OK = Status(250, "2.1.0", "ok")
RECIPIENT_OK = Status(250, "2.1.5", "ok")
BYE = Status(221, "2.0.0", "bye")
GO_AHEAD = Status(354, "", "go ahead")
NO_ROOM = Status(452, "4.3.1", "too much is coming in, try again later")


@lru_cache(maxsize=64)
def _hello_reply(hostname: str, extensions: tuple[str, ...]) -> Status:
    return Status(250, "", "\n".join([hostname, *extensions]))


def _now() -> float:
    return asyncio.get_running_loop().time()


class SmtpSession(Session):
    """One connection."""

    protocol = "smtp"

    def __init__(self, resources: Resources, arrival: Arrival) -> None:
        self.rules = SERVICES[arrival.service]
        self.lmtp = arrival.service == "lmtp"
        limits = resources.limits
        self.engine, line = smtp_line(arrival.stream, limits.smtp, limits.pace, lmtp=self.lmtp)
        super().__init__(resources, arrival, line)
        self.hello = self.verb = ""
        self.sender: Sender | None = None
        self.recipients: list[tuple[Recipient, Found]] = []
        self.content: Spooled | None = None  # as far as it has come
        self.no_room: Status | None = None  # for all of it: what is said of that
        self.filters = resources.filters(arrival.service)
        self.identity = self.proved
        self._know_peer()
        self.failures = 0
        self.peer = self.client  # who really speaks, whomever it speaks for
        self.coming = False
        self.admission = Admission(resources, self.rules, self.filters)

    async def converse(self) -> None:
        self.stream.idle_seconds = self.resources.limits.smtp_idle_seconds
        self._greet()
        limits = self.resources.limits
        visit = Visit(limits.smtp, _now(), messages=limits.smtp_session_messages, seconds=limits.smtp_session_seconds)
        while True:
            event = await self.line.event()
            self._count(event, visit)
            match event:
                case events.Content():
                    self.line.due += len(event.octets) / self.resources.limits.pace.rate
                    self._came(event.octets)
                case events.ContentEnd():
                    await self._content_end(event)
                    visit.message()
                    if self.identity is None:
                        self.must_come_to_it(self.seconds_of_a_stranger())
                case events.Mail():
                    await self._mail(event.sender)
                case events.Rcpt():
                    await self._rcpt(event.recipient)
                case events.Data():
                    self.engine.reply(GO_AHEAD)
                case events.ChunkEnd():
                    self.engine.reply(smtp.OK)
                case events.Hello():
                    self._hello(event)
                case events.Auth():
                    await self._auth(event)
                case events.StartTls():
                    await self._starttls()
                case events.XClient():
                    await self._xclient(event.attributes)
                case events.Reset():
                    self._forget()
                    self.engine.reply(smtp.OK)
                case events.Noop():
                    self._noop(event)
                case events.Quit():
                    self.engine.reply(BYE)
                    await self.line.flush()
                    return
                case events.AuthResponse():
                    raise ProtocolError("a SASL response without an exchange")

    def _greet(self) -> None:
        self.engine.greet(f"{self.resources.hostname} {'LMTP' if self.lmtp else 'ESMTP'} Fubako")
        if isinstance(self.engine, FrontedSmtp):  # each reply that is foreseen saves a way between two processes
            replies = {"DATA": GO_AHEAD, "QUIT": BYE}
            if not self.rules.login:  # else what EHLO shows has its time
                replies["EHLO"] = _hello_reply(self.resources.hostname, tuple(self._extensions()))
            self.engine.foresee(replies)

    def _count(self, event: events.Event, visit: Visit) -> None:
        """What strangers say is counted, and proxies that speak for others without bringing a message. Raises ProtocolError."""
        if self.rules.login and not isinstance(event, events.Content):
            self.count_command(Status(421, "4.7.0", "too many commands before a login").wire())
        if self.rules.service not in _UNASKED and (self.identity is None or isinstance(event, events.XClient)):
            visit.command(event, _now())

    def seconds_of_a_stranger(self) -> float:
        """Where a login is needed, until then; where none is, to the end of the next message."""
        if self.rules.service in _UNASKED:
            return inf
        return super().seconds_of_a_stranger() if self.rules.login else self.resources.limits.smtp_transaction_seconds

    def _forget(self) -> None:
        self._expect(False)
        self.sender = None
        self.recipients = []
        if self.content is not None:
            self.content.close()
            self.content = None
        self.no_room = None

    def _expect(self, coming: bool) -> None:
        """Tell the store whether a letter of ours is on its way."""
        if coming is not self.coming:
            self.coming = coming
            self.resources.blobs.expect(1 if coming else -1)

    def cleanup(self) -> None:
        self._forget()
        self.filters.close()

    # -- greetings

    def _hello(self, event: events.Hello) -> None:
        self._forget()
        self.hello, self.verb = event.name, event.verb
        if event.verb == "HELO":
            self.engine.reply(Status(250, "", self.resources.hostname))
        else:
            self.engine.reply(_hello_reply(self.resources.hostname, tuple(self._extensions())))

    def _extensions(self) -> list[str]:
        limits = self.resources.limits.smtp
        names = [
            "PIPELINING",
            f"SIZE {limits.message}",
            "8BITMIME",
            "SMTPUTF8",
            "CHUNKING",
            "ENHANCEDSTATUSCODES",
            "DSN",
            f"LIMITS RCPTMAX={limits.recipients}",
        ]
        names += ["DELIVERBY", "MT-PRIORITY"]
        if self.rules.login:
            names.append(f"FUTURERELEASE {HOLD_SECONDS_MAX} {self.admission.hold_until()}")
        if self._may_start_tls():
            names.append("STARTTLS")
        if self.encrypted and self.rules.service not in _UNASKED and self.identity is None:
            names.append("AUTH " + " ".join(self.mechanisms))
        if self.stream.tls is not None:
            names.append("REQUIRETLS")
        if self._may_speak_for_others():
            names.append("XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT")
        return names

    def _may_speak_for_others(self) -> bool:
        return self.rules.service not in _UNASKED and within(self.peer, self.resources.gate.rules.speakers)

    async def _xclient(self, attributes: dict[str, str]) -> None:
        """From now on the session is another client's (Postfix's XCLIENT); it begins anew."""
        if not self._may_speak_for_others():
            self.engine.reply(Status(550, "5.7.0", "XCLIENT is not for you"))
            return
        address = attributes.get("ADDR", "")
        address = address[5:] if address[:5].upper() == "IPV6:" else address
        if address and not is_address(address):
            self.engine.reply(Status(501, "5.5.4", "ADDR is no address"))
            return
        self._forget()
        self.forget_who()
        self.hello = ""
        if address:
            port = attributes.get("PORT", "0") or "0"
            self.stream.peer = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        self.admission.client_name = attributes.get("NAME", "")
        if attributes.get("LOGIN"):
            identity = await self.resources.logins.known_by(attributes["LOGIN"], Proof.SPOKEN_FOR, self.scene)
            if identity is not None:
                self.know(identity)
                self.must_come_to_it(inf)
        self._know_peer()
        self.engine.reply(Status(220, "", f"{self.resources.hostname} ESMTP Fubako"))

    def _know_peer(self) -> None:
        """Whose octets are mended instead of refused: users, what runs on this machine, and devices that are named."""
        named = within(self.client, self.resources.gate.rules.lenient)
        self.engine.lenient = self.identity is not None or self.rules.service in _UNASKED or named

    def _may_start_tls(self) -> bool:
        return self.pump is not None and self.stream.tls is None and not self.stream.local

    async def _starttls(self) -> None:
        if not self._may_start_tls() or self.pump is None:
            self.engine.reply(Status(502, "5.5.1", "STARTTLS is not possible here"))
            return
        self.engine.reply(Status(220, "2.0.0", "go ahead"))
        await self.line.start_tls(self.pump)
        self._forget()
        self.hello = ""

    def _noop(self, event: events.Noop) -> None:
        match event.verb:
            case "VRFY" | "EXPN":
                self.engine.reply(Status(252, "2.1.5", "send a letter and see"))
            case "HELP":
                self.engine.reply(Status(214, "2.0.0", "RFC 5321 tells what can be said here"))
            case _:
                self.engine.reply(smtp.OK)

    # -- AUTH

    async def _auth(self, event: events.Auth) -> None:
        if self.rules.service in _UNASKED or self.identity is not None:
            self.engine.reply(Status(503, "5.5.1", "AUTH is not possible now"))
            return
        if not self.encrypted:
            self.engine.reply(Status(538, "5.7.11", "encryption required: STARTTLS comes first"))
            return
        if event.mechanism not in self.mechanisms:
            self.engine.reply(Status(504, "5.5.4", "the mechanism is not offered here"))
            return
        try:
            identity = await self.sasl(event.mechanism, event.initial, self._ask)
        except SaslFailure as error:
            await self._auth_failed(error)
            return
        await self.login_held(identity)
        self._know_peer()
        self.engine.reply(Status(235, "2.7.0", "go ahead"))
        await self.begin_layer(identity)

    async def _auth_failed(self, error: SaslFailure) -> None:
        self.failures += 1
        await self.login_failed(error)
        self.engine.reply(Status(454, "4.7.0", "try again later") if error.temporary else AUTH_FAILED)
        if self.failures >= AUTH_FAILURES_MAX:
            raise ProtocolError("too many failed logins", Status(421, "4.7.0", "too many failures").wire())

    async def _ask(self, challenge: bytes) -> bytes:
        self.engine.reply(Status(334, "", challenge.decode()))
        event = await self.line.event()
        if not isinstance(event, events.AuthResponse):
            raise ProtocolError("a SASL response was expected")
        return event.line

    # -- the envelope

    @property
    def user(self) -> str:
        return self.identity.account.address if self.identity else ""

    def _speaker(self) -> Speaker:
        stream, account = self.stream, self.identity.account if self.identity else None
        return Speaker(
            peer=stream.peer, client=self.client, hello=self.hello, account=account,
            encrypted=self.encrypted, tls=stream.tls,
        )  # fmt: skip

    async def _mail(self, sender: Sender) -> None:
        if sender.size > self.resources.limits.smtp.message:
            self.engine.reply(smtp.TOO_BIG)
            return
        sender, verdict = await self.admission.mail(self._speaker(), sender)
        if verdict.accepted:
            self._forget()
            self._expect(True)
            self.sender = sender
        self._judge(verdict, SENDER_OK)

    def _judge(self, verdict: Verdict, accepted: Status) -> None:
        if verdict.status is not None:
            self._tell_refusal(verdict)
        self.engine.reply(verdict.status or accepted)

    def _tell_refusal(self, verdict: Verdict) -> None:
        what = "discarded" if verdict.status is not None and verdict.status.ok else "refused"
        self.resources.telemetry.event(
            f"letter.{what}", self.trace_id, service=self.service, rule=verdict.rule, reply=str(verdict.status)
        )

    async def _rcpt(self, recipient: Recipient) -> None:
        assert self.sender is not None
        if len(self.recipients) >= self.resources.limits.smtp.recipients:
            self.engine.reply(Status(452, "4.5.3", "too many recipients"))
            return
        network, stranger = network_of(self.stream.peer), self.admission.is_stranger(self.user)
        harvest = self.resources.harvest
        if stranger and await harvest.is_over(network):
            farewell = Status(421, "4.7.1", "too many unknown recipients from your network").wire()
            raise ProtocolError("too many unknown recipients", farewell)
        found, verdict = await self.admission.rcpt(self._speaker(), self.sender.address, recipient)
        if verdict.accepted:
            self.recipients.append((recipient, found))
        elif stranger and found.local and not found.known:
            await asyncio.sleep(await harvest.unknown(network))
        self._judge(verdict, RECIPIENT_OK)

    # -- content

    async def _content_end(self, event: events.ContentEnd) -> None:
        assert self.sender is not None
        if event.too_big:
            self._reply_all([smtp.TOO_BIG] * len(self.recipients))
            self._forget()
            return
        if event.irregular is not None and not self.engine.lenient:
            self._reply_all([Status(554, "5.6.0", f"the message holds {event.irregular}")] * len(self.recipients))
            self._forget()
            return
        if self.admission.discards:
            rule = self.admission.discards
            self.resources.telemetry.event("letter.discarded", self.trace_id, service=self.service, rule=rule)
            self._reply_all([Status(250, "2.0.0", "ok")] * len(self.recipients))
            self._forget()
            return
        if self.no_room is not None:
            self._reply_all([self.no_room] * len(self.recipients))
            self._forget()
            return
        self._expect(False)
        try:
            async with self.resources.memory.held(self.content.size if self.content is not None else 0):
                replies = await self._taken(self.sender, event)
        except NoMemory:
            replies = [NO_ROOM] * len(self.recipients)
        self._reply_all(replies)
        self._forget()

    def _came(self, octets: bytes) -> None:
        """Content that has no room is read and refused at its end: the session lives."""
        if self.no_room is not None:
            return
        if self.content is None:
            self.content = self.resources.spool.begin()
        try:
            self.content.append(octets)
        except StoreFull as error:
            self.unavailable(error)
            self.content.close()
            self.no_room = NO_ROOM if error.fault is faults.NO_ROOM else error.fault.status

    async def _taken(self, sender: Sender, event: events.ContentEnd) -> list[Status]:
        """What is said to each recipient of a message that has come; it is whole in memory only here."""
        transaction = Transaction(
            self.hop(),
            self.hello,
            sender,
            [recipient for recipient, _ in self.recipients],
            [await self._mended(event)],
            trace_id=self.resources.env.trace_id(),
            user=self.user,
            at=sender.hold_until,
        )
        transaction.protocol = with_protocol(transaction, self.verb)
        verdict = await self._examined(transaction)
        if verdict.status is not None:
            self._tell_refusal(verdict)
            return [verdict.status] * len(self.recipients)
        accepted = await self.resources.intake.accept(transaction, self.recipients)
        gone = Status(550, "5.1.1", "the mailbox is gone")
        return [
            gone
            if accepted.status.ok
            and not accepted.elsewhere
            and found.account_ids
            and not accepted.account_ids.intersection(found.account_ids)
            else accepted.status
            for _, found in self.recipients
        ]

    async def _mended(self, event: events.ContentEnd) -> bytes:
        """The content in its regular form, without what only we may write on it."""
        content = self.content.whole() if self.content is not None else b""
        if event.irregular is not None:
            content = regular(content)
            if self.rules.service not in _INSIDE:  # a message of others stays as it was signed
                content = within_line_limit(content)
        # LMTP and a content filter are of this house: what we wrote on a message stands there when it comes back
        return content if self.rules.service in _INSIDE else await self.resources.reception.unforged(content)

    async def _submitted(self, transaction: Transaction) -> Verdict:
        """A message of somebody whom we know: whether its authors may be named, and what a submission is completed with."""
        content = b"".join(transaction.chunks)
        verdict, transaction.authors = await self.admission.authors(content)
        account = self.admission.account
        if verdict.accepted and account is not None:
            env, sender = self.resources.env, self.admission.author(transaction.sender.address)
            given = Given(sender, "", self.resources.hostname, env.clock.now(), transaction.trace_id)
            transaction.chunks = [submitted(content, given)]
            if not transaction.authors:  # it had no From field, and has one now
                _, transaction.authors = await self.admission.authors(transaction.chunks[0])
        return verdict

    async def _examined(self, transaction: Transaction) -> Verdict:
        """What policy and filters say of the whole letter; they may change it and its recipients."""
        reception = self.resources.reception
        examined = None
        verdict = await self._submitted(transaction)
        if not verdict.accepted:
            return verdict
        if self.admission.is_stranger(self.user):
            examined = await reception.examine(transaction, self.client, trusted=self.admission.relays)
        if transaction.doubt:
            self.resources.telemetry.event("message.author_in_doubt", transaction.trace_id, reason=transaction.doubt)
        if examined is not None and not examined.verdict.accepted:
            return examined.verdict
        if self.filters:
            verdict, added, removed = await self.filters.content(transaction)
            if not verdict.accepted:
                return verdict
            self.recipients = [one for one in self.recipients if one[0].address not in removed]
            for address in added:
                found = await self.admission.find(address)
                if found.known or (not found.local and self.resources.routed(address.domain)):
                    self.recipients.append((Recipient(address, "NEVER"), found))
            transaction.recipients = [recipient for recipient, _ in self.recipients]
            if not self.recipients:
                return Verdict(Status(250, "2.0.0", "ok"), "a filter removed every recipient")
        if examined is not None:
            await reception.seal(transaction, examined, self.recipients)
        return ACCEPT

    def _reply_all(self, replies: list[Status]) -> None:
        """One reply, or in LMTP one for each recipient in order (RFC 2033 §4.2)."""
        if not self.lmtp:
            best = next((reply for reply in replies if reply.ok), replies[0])
            self.engine.reply(best)
            return
        for reply in replies[:-1]:
            self.engine.say(reply)
        self.engine.reply(replies[-1])

    # -- the end

    def timed_out(self) -> None:
        self.stream.write(Status(421, "4.4.2", "nothing was said for too long").wire())

    def farewell_stopping(self) -> None:
        self.stream.write(Status(421, "4.3.2", "the server is shutting down").wire())

    def farewell_changed(self) -> None:
        self.stream.write(Status(421, "4.7.0", "the account was changed: log in again").wire())

    def farewell_unavailable(self, fault: Fault) -> None:
        self.stream.write(Status(421, fault.status.enhanced, fault.words).wire())

    def farewell_bug(self) -> None:
        self.stream.write(Status(421, "4.3.0", "an error on our side, try again later").wire())

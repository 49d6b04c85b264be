"""`Carrier`: one SMTP or LMTP connection to another server, protected as well as is demanded, for one letter after the other."""

from collections.abc import Callable, Sequence
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from fubako.client.connection import ClientError, Credentials, Peer
from fubako.client.smtp import SmtpConnection
from fubako.clock import Env
from fubako.delivery.route import Host, NextHop
from fubako.message.address import AddressError, parse_address
from fubako.message.headers import header_end
from fubako.message.report import visible
from fubako.message.status import Status
from fubako.net import socks, tcp
from fubako.net.interface import CertificateFacts, Stream, StreamClosed, StreamTimeout, TlsError
from fubako.net.line import Line
from fubako.protocol.engine import ProtocolError
from fubako.protocol.sasl import SaslFailure
from fubako.protocol.smtp import xtext_encode
from fubako.protocol.smtp_client import Reply, SmtpClient, extensions
from fubako.store.queue import Outgoing, Queued
from fubako.trust import dane
from fubako.trust.demand import Demand, Level
from fubako.trust.judge import Believed, NotBelieved

COMMAND_SECONDS = 120.0  # RFC 5321 §4.5.3.2 asks for five minutes; a server that is so slow is tried again later
CONTENT_SECONDS = 600.0


class Unreachable(Exception):
    """This server cannot be used now; another one of the same destination may."""

    def __init__(self, status: Status, *, weak: bool = False, fault: str = "") -> None:
        super().__init__(str(status))
        self.status = status
        self.weak = weak  # it was there, but not protected as is demanded
        self.fault = fault  # what TLS lacked, by RFC 8460 §4.3


class Answered(Struct, frozen=True):
    """What a server said of one recipient. `reports`: it will report itself when that was asked for (RFC 3461).
    `again`: it went through our own intake, and is still on its way."""

    queued: Queued
    status: Status
    reports: bool = False
    again: bool = False


class Carrier(SmtpConnection):
    """A greeted connection. `level` is the protection it reached."""

    protocol = "smtp"

    def __init__(self, peer: Peer, line: Line[Reply], env: Env, engine: SmtpClient, *, lmtp: bool) -> None:
        super().__init__(peer, line, env, engine)
        self.lmtp = lmtp
        self.level = Level.OPEN
        self.demand = Demand(Level.OPEN, "")
        self.names: tuple[str, ...] = ()  # that a certificate under an authority of DANE may hold
        self.doubt = self.fault = ""  # why the server is not believed; in words, and by RFC 8460 §4.3
        self.protocol = "lmtp" if lmtp else "smtp"
        self.lenient = False  # made for a letter whose sender said TLS-Required: No
        self.carried = 0
        self.clean = True  # no transaction is open

    # -- the greeting

    async def welcome(self, hello: str, demand: Demand) -> None:
        """Raises Unreachable; then nothing of a letter was said."""
        self.demand = demand
        if self.peer.implicit_tls:
            await self._encrypt()
        await self._demanded("the greeting", 220)
        await self._ehlo(hello)
        if not self.peer.implicit_tls and not self.line.stream.local and "STARTTLS" in self.extensions:
            self.nothing_unasked()
            self.engine.command("STARTTLS")
            self.fault = "starttls-not-supported"
            await self._demanded("STARTTLS", 220)  # never on in the clear after that (C-REFUSE)
            await self._encrypt()
            await self._ehlo(hello)
        if self.line.stream.local:
            self.level = Level.VERIFIED
        elif self.level is Level.OPEN:
            self.fault = "starttls-not-supported"
        unmet = demand.unmet(self.level, self.peer.server_name, self.doubt)
        if unmet:
            raise Unreachable(Status(451, "4.7.10", unmet), weak=True, fault=self.fault)

    async def _encrypt(self) -> None:
        self.fault = "validation-failure"
        try:
            await self.protect()
            self.level, self.fault = Level.VERIFIED, ""
        except NotBelieved as reason:
            self.level, self.doubt, self.fault = Level.ENCRYPTED, str(reason), reason.fault

    def believe(self, facts: CertificateFacts | None, version: str) -> Believed:
        """Where DNSSEC names the keys, nothing else counts."""
        if self.demand.keys:
            return dane.judge(self.demand.keys, facts, self.names)
        return super().believe(facts, version)

    def refused_certificate(self, _reason: NotBelieved) -> None:
        """The demand decides whether that is good enough."""

    async def _ehlo(self, hello: str) -> None:
        self.engine.command("LHLO" if self.lmtp else "EHLO", hello)
        reply = await self.line.event()
        if reply.status.code in (500, 502, 504) and not self.lmtp:
            self.engine.command("HELO", hello)
            await self._demanded("HELO", 250)
            self.extensions = {}
        elif reply.status.code == 250:
            self.extensions = extensions(reply)
        else:
            raise Unreachable(_as_temporary(reply.status))

    async def _demanded(self, what: str, code: int) -> Reply:
        reply = await self.line.event()
        if reply.status.code != code:
            raise Unreachable(_as_temporary(reply.status, f"{what} was refused: "))
        return reply

    async def login(self, credentials: Credentials) -> None:
        """At a smarthost. Raises Unreachable: a wrong password of ours is no reason to give a letter up."""
        if self.level < Level.VERIFIED:
            raise Unreachable(
                Status(451, "4.7.11", "a password is only said to a server that proved who it is"), weak=True
            )
        try:
            await super().login(credentials)
        except (SaslFailure, ClientError) as error:
            raise Unreachable(Status(454, "4.7.8", f"the login was refused: {error}")) from None

    # -- a letter

    def objection(self, letter: Outgoing, recipients: Sequence[Queued], content: bytes) -> Status | None:
        """Why this server cannot take this letter, before anything is said."""
        size = self.extensions.get("SIZE", "")
        if size.isdigit() and 0 < int(size) < len(content):
            return Status(552, "5.3.4", f"{self.peer.server_name} takes letters up to {size} octets")
        if letter.require_tls and "REQUIRETLS" not in self.extensions:
            return Status(550, "5.7.30", f"{self.peer.server_name} does not know REQUIRETLS")
        if letter.by_mode == "R" and "DELIVERBY" not in self.extensions:
            return Status(
                550, "5.3.3", f"{self.peer.server_name} cannot promise a time, and the sender wants one (RFC 2852)"
            )
        addresses = (letter.sender, *(one.address for one in recipients))
        international = not all(map(str.isascii, addresses)) or not content[: header_end(content)].isascii()
        if letter.smtputf8 and "SMTPUTF8" not in self.extensions and international:
            return Status(553, "5.6.7", f"{self.peer.server_name} does not know SMTPUTF8")
        if "8BITMIME" not in self.extensions and not content.isascii():
            return Status(554, "5.6.3", f"{self.peer.server_name} takes no 8-bit letters")
        return None

    async def deliver(
        self, letter: Outgoing, recipients: Sequence[Queued], content: bytes, still_ours: Callable[[], object]
    ) -> list[Answered]:
        """One transaction; an answer for each recipient. `still_ours` raises when another owner may be sending this letter by now:
        then its content is not sent. Raises Unreachable when the connection fails before the end."""
        objection = self.objection(letter, recipients, content)
        if objection is not None:
            return [Answered(one, objection) for one in recipients]
        try:
            sender = parse_address(letter.sender) if letter.sender else None
            paths = [parse_address(one.address) for one in recipients]
        except AddressError as error:  # in rows that an older program let in; nothing was said yet
            return [Answered(one, Status(553, "5.1.3", f"an address cannot be said: {error}")) for one in recipients]
        reset, self.carried, self.clean = not self.clean, self.carried + 1, False
        if reset:
            self.engine.command("RSET")
        self.line.stream.idle_seconds = COMMAND_SECONDS
        self.engine.command("MAIL", f"FROM:<{sender or ''}>", *self._mail_words(letter, content))
        for one, path in zip(recipients, paths, strict=True):
            self.engine.command("RCPT", f"TO:<{path}>", *self._rcpt_words(one))
        # DATA may be the last of a group (RFC 2920 §3.1); LMTP leaves open how many answers follow when nobody is accepted
        ahead = "PIPELINING" in self.extensions and "CHUNKING" not in self.extensions and not self.lmtp
        if ahead:
            self.engine.command("DATA")
        said = [one.status for one in await self.line.events(reset + 1 + len(recipients) + ahead)]
        mailed, replies = said[reset], said[reset + 1 : reset + 1 + len(recipients)]
        ready = said[-1] if ahead else None
        accepted = [one for one, status in zip(recipients, replies, strict=True) if mailed.ok and status.ok]
        if not accepted and ready is not None and ready.code == 354:
            self.engine.content(b"")  # nobody is to get it, but it has been asked for
            await self.line.event()
        if not mailed.ok:
            return [Answered(one, _outcome(mailed)) for one in recipients]
        answers = {one.key: Answered(one, _outcome(status)) for one, status in zip(recipients, replies, strict=True)}
        if accepted:
            for one, status in zip(accepted, await self._content(accepted, content, ready, still_ours), strict=True):
                answers[one.key] = Answered(one, _outcome(status), reports="DSN" in self.extensions)
                self.clean = self.clean or status.ok
        return [answers[one.key] for one in recipients]

    async def _content(
        self, accepted: Sequence[Queued], content: bytes, ready: Status | None, still_ours: Callable[[], object]
    ) -> list[Status]:
        """`ready` is the answer to DATA where that was said already."""
        count = len(accepted) if self.lmtp else 1
        self.line.stream.idle_seconds = CONTENT_SECONDS
        if "CHUNKING" in self.extensions:
            self._check(still_ours)
            self.engine.chunk(content, replies=count)
        else:
            if ready is None:
                self.engine.command("DATA")
                ready = (await self.line.event()).status
            if ready.code != 354:
                return [ready if not ready.ok else Status(451, "4.5.0", "DATA was answered strangely")] * len(accepted)
            self._check(still_ours)
            self.engine.content(content, replies=count)
        said = [one.status for one in await self.line.events(count)]
        return said if self.lmtp else said * len(accepted)

    def _check(self, still_ours: Callable[[], object]) -> None:
        """The last moment before the content leaves. The connection cannot be used for another letter then."""
        try:
            still_ours()
        except Exception:
            self.close()
            raise

    def _mail_words(self, letter: Outgoing, content: bytes) -> list[str]:
        words = [f"SIZE={len(content)}"] if "SIZE" in self.extensions else []
        if "8BITMIME" in self.extensions and not content.isascii():
            words.append("BODY=8BITMIME")
        if letter.smtputf8 and "SMTPUTF8" in self.extensions:
            words.append("SMTPUTF8")
        if letter.require_tls:
            words.append("REQUIRETLS")
        if letter.priority and "MT-PRIORITY" in self.extensions:
            words.append(f"MT-PRIORITY={letter.priority}")
        if letter.by_mode and "DELIVERBY" in self.extensions:
            left = letter.deliver_by - int(self.env.clock.now())
            words.append(f"BY={max(left, 1) if letter.by_mode == 'R' else left};{letter.by_mode}")
        if "DSN" in self.extensions:
            words += [f"RET={letter.ret}"] if letter.ret else []
            words += [f"ENVID={xtext_encode(letter.envid)}"] if letter.envid else []
        return words

    def _rcpt_words(self, one: Queued) -> list[str]:
        if "DSN" not in self.extensions:
            return []
        return ([f"NOTIFY={one.notify}"] if one.notify else []) + ([f"ORCPT={one.orcpt}"] if one.orcpt else [])

    async def quit(self) -> None:
        try:
            self.line.stream.idle_seconds = 5.0
            self.engine.command("QUIT")
            await self.line.event()
        except (ProtocolError, StreamClosed, StreamTimeout, TlsError):
            pass
        self.close()


@lru_cache(256)
def _outcome(status: Status) -> Status:
    """A reply as a delivery status: with an enhanced code, and never one that belongs to another class."""
    first = str(status.code)[0]
    enhanced = status.enhanced if status.enhanced[:1] == first else f"{first}.0.0"
    return Status(status.code, enhanced, visible(status.text))


def _as_temporary(status: Status, before: str = "") -> Status:
    """A greeting or an EHLO that was refused says nothing of the letter: later, or elsewhere, it may go."""
    return Status(451, "4.4.2" if status.code == 421 else "4.3.2", f"{before}{visible(str(status))}")


async def _open(hop: NextHop, host: Host | None, address: str) -> Stream:
    """Raises OSError, TimeoutError."""
    if host is None:
        return await tcp.connect_unix(hop.socket)
    if hop.route.socks is not None:
        return await socks.connect(hop.route.socks, address, host.port)
    return await tcp.connect(address, host.port, hop.route.source(address))


async def connect(
    hop: NextHop, host: Host | None, address: str, env: Env, hello: str, demand: Demand, credentials: Credentials | None
) -> Carrier:
    """A greeted connection to one address. Raises Unreachable."""
    name = host.name if host else "localhost"
    engine = SmtpClient()
    try:
        stream = await _open(hop, host, address)
    except (OSError, TimeoutError) as error:
        where = hop.socket if host is None else f"{name} [{address}]:{host.port}"
        raise Unreachable(Status(451, "4.4.1", f"{where} cannot be reached: {tcp.why(error)}")) from None
    stream.idle_seconds = COMMAND_SECONDS
    authority = "an authority of the route" if hop.route.ca_files else "a public authority"
    peer = Peer(
        address,
        host.port if host else 0,
        name,
        hop.route.ca_files,
        authority=authority,
        implicit_tls=hop.kind == "smtps",
    )
    carrier = Carrier(peer, Line(engine, stream), env, engine, lmtp=hop.kind.startswith("lmtp"))
    carrier.names = (name, hop.domain) if hop.domain else (name,)
    try:
        await carrier.welcome(hello, demand)
        if credentials is not None:
            await carrier.login(credentials)
    except Unreachable as problem:
        carrier.close()
        raise Unreachable(
            replace(problem.status, text=f"{name}: {problem.status.text}"), weak=problem.weak,
            fault=carrier.fault,
        ) from None  # fmt: skip
    except (ProtocolError, StreamClosed, StreamTimeout, TlsError) as error:
        carrier.close()
        raise Unreachable(Status(451, "4.4.2", f"{name}: {error}"), fault=carrier.fault) from None
    except BaseException:
        carrier.close()
        raise
    return carrier

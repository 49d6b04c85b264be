"""What all sessions share: their resources, the hop they record, the SASL exchange, and how they end."""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from math import inf
from typing import Any

from msgspec import Struct

from fubako.accounts.identity import Identity, Scene
from fubako.accounts.login import Logins
from fubako.accounts.presence import Presence, Stay
from fubako.accounts.recipients import Recipients
from fubako.clock import Env
from fubako.delivery.dress import Dresser
from fubako.delivery.intake import Intake
from fubako.message.hop import Hop
from fubako.net.interface import Pump, Stream, StreamClosed, StreamTimeout, TlsError
from fubako.net.line import AnyLine, LineEnding
from fubako.net.pace import Pace
from fubako.owed import OWED
from fubako.policy.access import Access
from fubako.policy.gate import Gate
from fubako.policy.harvest import Harvest
from fubako.policy.limits import network_of
from fubako.protocol.engine import ProtocolError
from fubako.protocol.sasl import SaslFailure
from fubako.protocol.smtp import SmtpLimits
from fubako.server.filters import Filters
from fubako.server.memory import Memory
from fubako.server.reception import Reception
from fubako.store.faults import Fault
from fubako.store.indexer import Indexer
from fubako.store.interface import Blobs, Changes, Database, StoreUnavailable
from fubako.store.leases import Leases
from fubako.store.spool import Spool
from fubako.telemetry import Telemetry, visible

GRACE_SECONDS = 8.0  # at a stop, for commands that were begun
ANSWER_SECONDS = 2.0  # for what is being committed to be answered, when its session has to end


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and octets, as their names say."""

    smtp: SmtpLimits = field(default_factory=SmtpLimits)
    smtp_idle_seconds: float = 300.0  # RFC 5321 §4.5.3.2.7
    pop3_idle_seconds: float = 600.0  # RFC 1939 §3
    imap_idle_seconds: float = 1800.0  # RFC 9051 §5.4
    login_seconds: float = 60.0
    append_octets_max: int = 50 * 1024 * 1024
    pace: Pace = field(default_factory=Pace)
    smtp_transaction_seconds: float = 600.0
    smtp_session_seconds: float = 3600.0
    smtp_session_messages: int = 1000
    commands_before_login: int = 50
    search_keys: int = 250
    imap_command_octets: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Resources:
    """What sessions work with; the same for all of them."""

    hostname: str
    env: Env
    telemetry: Telemetry
    database: Database
    blobs: Blobs
    changes: Changes
    logins: Logins
    recipients: Recipients
    routed: Callable[[str], bool]  # whether a route leads to a domain that is not ours
    access: Access | None  # who is let in, refused, or relayed by the service smtp
    intake: Intake
    dresser: Dresser
    gate: Gate
    reception: Reception
    filters: Callable[[str], Filters]  # of a service, new for each session
    presence: Presence
    harvest: Harvest
    limits: Limits
    leases: Leases
    search: Indexer
    spool: Spool
    memory: Memory
    foreign_addresses: bool = False  # users may write under addresses of other domains
    sessions: set["Session"] = field(default_factory=set)  # all that are open


class Arrival(Struct, frozen=True):
    """A connection that came in at a service. `pump` makes the server's side of a handshake, None where there is no TLS. `proved`:
    whose it is, where that was known before the first word (a pipe, an SSH channel)."""

    stream: Stream
    service: str
    pump: Callable[[], Pump] | None = None
    implicit_tls: bool = False
    proved: Identity | None = None
    came_as: str = ""  # the account that an SSH connection belongs to
    mechanisms: tuple[str, ...] = ()  # instead of those of all services
    certificate_login: bool = False  # a client's certificate begins an IMAP session without a login


@lru_cache(maxsize=256)
def _host(peer: str) -> str:
    return peer.rpartition(":")[0].strip("[]")


class Session:
    """One connection of one service."""

    protocol = ""

    def __init__(self, resources: Resources, arrival: Arrival, line: AnyLine) -> None:
        self.resources = resources
        self.line = line
        self.service = arrival.service
        self.pump = arrival.pump
        ended = arrival.stream.tls is not None  # TLS ended at a proxy before us
        self.implicit_tls = arrival.implicit_tls and arrival.pump is not None and not ended
        if self.implicit_tls and arrival.pump is not None:
            # here, and not in `run`: the client may speak before our task begins
            line.stream.begin_tls(arrival.pump(), from_start=True)
        self.identity: Identity | None = None
        self.proved = arrival.proved
        self._arrival = arrival
        self.trace_id = resources.env.trace_id()
        self._commands = 0
        self._stay: Stay | None = None
        self._task: asyncio.Task[Any] | None = None
        self._revoked = False
        resources.sessions.add(self)

    @property
    def stream(self) -> Stream:
        return self.line.stream

    @property
    def client(self) -> str:
        """The peer's address without its port."""
        return _host(self.line.stream.peer)

    @property
    def encrypted(self) -> bool:
        """Whether nobody on the way can read: TLS, SSH, or bytes that never leave the machine."""
        return self.stream.tls is not None or self.stream.local or self.stream.ssh is not None

    @property
    def bindings(self) -> Mapping[str, bytes]:
        return self.stream.tls.bindings if self.stream.tls is not None else {}

    @property
    def mechanisms(self) -> list[str]:
        """What is offered here and now; only to be said where the connection is encrypted."""
        return self.resources.logins.mechanisms(self.scene)

    @property
    def scene(self) -> Scene:
        tls, arrival = self.stream.tls, self._arrival
        return Scene(
            self.protocol, self.bindings, tls.peer if tls is not None else None, arrival.came_as, arrival.mechanisms,
            network_of(self.stream.peer),
        )  # fmt: skip

    def hop(self) -> Hop:
        """How this connection is protected, as of now."""
        tls, ssh, identity = self.stream.tls, self.stream.ssh, self.identity
        return Hop(
            self.service,
            "in",
            self.stream.peer,
            self.resources.env.clock.now(),
            self.stream.local,
            tls.version if tls else "",
            tls.cipher if tls else (ssh.cipher if ssh else ""),
            "",
            identity.account.address if identity else "",
            identity.mechanism if identity else "",
            identity.binding if identity else "",
            self.trace_id,
            ssh.proof if ssh else "",
        )

    async def run(self) -> None:
        """The whole life of the connection. Only its end is certain: no error of one session reaches another."""
        telemetry = self.resources.telemetry
        self._task = asyncio.current_task()
        OWED.set(self.line.owed)
        try:
            if self.line.ending:
                raise LineEnding
            if not await self._known_still():
                return
            if self.proved is None:
                self.must_come_to_it(self.seconds_of_a_stranger())
            if self.implicit_tls:
                self.stream.due = self.line.due
                self.stream.idle_seconds = self.resources.limits.login_seconds
                await self.stream.handshake()
            await self.converse()
        except ProtocolError as error:
            telemetry.event("session.protocol_error", self.trace_id, service=self.service, reason=visible(str(error)))
            if error.farewell:
                # behind the replies to what was said before it
                self._last_words(partial(self.stream.write, self.line.engine.output() + error.farewell))
        except TlsError as error:
            telemetry.event(
                "session.tls_error", self.trace_id, service=self.service, peer=self.stream.peer, reason=str(error)
            )
        except StreamTimeout:
            self._last_words(self.timed_out)
        except StreamClosed:
            pass
        except LineEnding:
            self._say_end()
        except asyncio.CancelledError:
            self._say_end()
            if not (self._revoked and self._task is not None and not self._task.uncancel()):
                raise
        except StoreUnavailable as error:  # where a protocol has no other words for it
            self.unavailable(error)
            self._last_words(partial(self.farewell_unavailable, error.fault))
        except Exception as error:  # our bug: it ends this connection alone
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else ""
            telemetry.event("session.bug", self.trace_id, service=self.service, error=repr(error), where=where)
            self._last_words(self.farewell_bug)
        finally:
            self.resources.sessions.discard(self)
            if self._stay is not None:
                self._stay.leave()
            self.cleanup()
            self.line.close()

    def stop(self) -> None:
        """No more commands: what was begun is finished and answered, then the session ends."""
        self.line.ending = True
        if self._task is not None and not self.line.busy:
            self._task.cancel()

    def cut(self) -> None:
        """End now, unless something was committed and its answer is still to be said."""
        self.line.ending = True
        if self._task is not None and not self._owes:
            self._task.cancel()

    @property
    def _owes(self) -> bool:
        return self.line.busy and self.line.owed.begun

    def _say_end(self) -> None:
        if self._owes:  # nobody knows what became of it: the end of the connection says just that
            self._last_words(_nothing)
        elif self._revoked:
            self._say_changed()
        else:
            self._last_words(self.farewell_stopping)

    def seconds_of_a_stranger(self) -> float:
        """How long somebody may be here without saying who he is."""
        return self.resources.limits.login_seconds

    def must_come_to_it(self, seconds: float) -> None:
        """The conversation ends so much later, whatever the peer says, unless this is called again.
        Infinite: it may last."""
        self.line.due = asyncio.get_running_loop().time() + seconds

    def count_command(self, farewell: bytes) -> None:
        """One more command. Raises ProtocolError where a stranger has said too many."""
        if self.identity is None:
            self._commands += 1
            if self._commands > self.resources.limits.commands_before_login:
                raise ProtocolError("too many commands before a login", farewell)

    def _last_words(self, say: Callable[[], None]) -> None:
        """Behind the replies that are due, where anything can be said: amid a handshake it cannot."""
        with suppress(TlsError):
            self.stream.write(self.line.engine.output())
            say()

    async def converse(self) -> None:
        raise NotImplementedError  # each protocol has its own

    def timed_out(self) -> None:
        """Say goodbye to a peer that was silent for too long."""

    def farewell_stopping(self) -> None:
        """Say goodbye because the server ends."""

    def farewell_changed(self) -> None:
        """Say goodbye because the account is no longer what it was when this session was proved."""

    def farewell_unavailable(self, fault: Fault) -> None:
        """Say goodbye because the store cannot be used now."""

    def unavailable(self, error: StoreUnavailable) -> None:
        """Tell the administrator what the peer hears in fewer words."""
        self.resources.telemetry.event("store.unavailable", self.trace_id, service=self.service, reason=str(error))

    def farewell_bug(self) -> None:
        """Say goodbye because we failed."""

    def cleanup(self) -> None:
        """Let go of what the session holds; runs exactly once."""

    async def sasl(self, mechanism: str, initial: bytes | None, ask: Callable[[bytes], Awaitable[bytes]]) -> Identity:
        """One exchange. `initial` and what `ask` gives are base64 lines. Raises SaslFailure.

        `=` as the initial response means an empty one, `*` cancels (RFC 4954 §4). One without any sign, which mutt sends before a
        mechanism in which the server speaks first, is none.
        """
        exchange = self.resources.logins.exchange(mechanism, self.scene)
        if exchange is None:
            raise SaslFailure("the mechanism is not offered here")
        if not initial:
            response = await self._asked(ask, exchange.first.octets)
        elif exchange.first.server_first:
            raise SaslFailure("this mechanism has no initial response")
        else:
            response = b"" if initial == b"=" else decoded(initial)
        while True:
            step = await exchange.step(response)
            if isinstance(step, Identity):
                return step
            response = await self._asked(ask, step)

    @staticmethod
    async def _asked(ask: Callable[[bytes], Awaitable[bytes]], challenge: bytes) -> bytes:
        line = await ask(base64.b64encode(challenge))
        if line == b"*":
            raise SaslFailure("cancelled by the client")
        return decoded(line)

    async def login_failed(self, reason: SaslFailure) -> None:
        """Who guesses waits before his next attempt, whatever connection it comes by (`accounts/guessing.py`)."""
        self.resources.telemetry.event(
            "login.failed", self.trace_id, service=self.service, peer=self.stream.peer, reason=str(reason)
        )

    async def begin_layer(self, identity: Identity) -> None:
        """Behind the reply to the login, where it agreed on a security layer."""
        if identity.layer is None:
            return
        if self.line.engine.pending:
            raise ProtocolError("bytes were sent before the security layer began")
        await self.line.flush()
        self.stream.begin_layer(identity.layer)

    def know(self, identity: Identity) -> None:
        """From now on the session is somebody's: it ends when the account changes."""
        self.forget_who()
        self.identity = identity
        self._stay = self.resources.presence.enter(identity, self._changed)

    def forget_who(self) -> None:
        self.identity = None
        if self._stay is not None:
            self._stay.leave()
            self._stay = None

    def _changed(self) -> None:
        self._revoked = True
        self.cut()
        if self._owes:
            asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._answered)

    def _answered(self) -> None:
        """The time for an answer is over."""
        if self._task is not None:
            self._task.cancel()

    async def _known_still(self) -> bool:
        """What was proved before this session began has to hold here and now."""
        if self.proved is None:
            return True
        try:
            self.proved = await self.resources.logins.again(self.proved, self.scene)
        except SaslFailure:
            self._say_changed()
            return False
        if self.identity is not None:
            self.know(self.proved)
        return True

    def _say_changed(self) -> None:
        self.resources.telemetry.event("session.revoked", self.trace_id, service=self.service, peer=self.stream.peer)
        self._last_words(self.farewell_changed)

    async def login_held(self, identity: Identity) -> None:
        self.know(identity)
        self.must_come_to_it(inf)
        await self.resources.logins.note(identity, network_of(self.stream.peer))
        if self.protocol != "smtp" and not identity.read_only:
            await self.resources.gate.note_login(
                self.client, identity.account.address, encrypted=self.stream.tls is not None
            )
        self.resources.telemetry.event(
            "login.held",
            self.trace_id,
            service=self.service,
            peer=self.stream.peer,
            user=identity.account.address,
            mechanism=identity.mechanism,
            binding=identity.binding,
            **({"actor": identity.actor} if identity.actor else {}),
        )


def _nothing() -> None:
    """To say."""


async def stop_all(sessions: set["Session"], *, grace: float = GRACE_SECONDS, answer: float = ANSWER_SECONDS) -> None:
    """Every session ends: at once where it waits for its peer, else once its command is answered, or after `grace`; what is being
    committed has `answer` more."""
    await asyncio.sleep(0)  # those that have just been made begin
    for session in list(sessions):
        session.stop()
    await _ended(sessions, grace)
    for session in list(sessions):
        session.cut()
    await _ended(sessions, answer)
    for session in list(sessions):
        session._answered()
    await _ended(sessions, answer)


async def _ended(sessions: set["Session"], seconds: float) -> None:
    tasks = [session._task for session in sessions if session._task is not None]
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


def decoded(line: bytes) -> bytes:
    """A client's line of SASL. Raises SaslFailure."""
    try:
        return base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        raise SaslFailure("the response is not base64") from None

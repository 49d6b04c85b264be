"""Logins for other programs on this machine: by saslauthd's socket (Cyrus SASL) and by Dovecot's auth protocol (Postfix, Exim).

Whoever can reach the socket may guess, so it belongs to owner and group alone; guesses are slowed down as everywhere.
"""

import asyncio
import base64
import os
from contextlib import suppress

from fubako.accounts.identity import Identity, Scene
from fubako.accounts.login import Exchange
from fubako.net.interface import Stream, StreamClosed, StreamTimeout
from fubako.net.line import Line
from fubako.policy.limits import network_of
from fubako.protocol import dovecot_auth as wire
from fubako.protocol import saslauthd
from fubako.protocol.engine import ProtocolError
from fubako.protocol.sasl import SaslFailure
from fubako.server.session import Resources, decoded

SECONDS = 30.0
ANSWERS_MAX = 2  # of one login, that nothing was asked for yet
IDLE_SECONDS = 3600.0  # Postfix keeps its connection
_PROTOCOLS = {"pop": "pop3", "sieve": "imap", "submission": "smtp"}


def _scene(service: str, peer: str) -> Scene:
    protocol = _PROTOCOLS.get(service, service)
    return Scene(protocol, network=network_of(peer))


async def _refused(resources: Resources, service: str, peer: str, reason: SaslFailure) -> None:
    resources.telemetry.event("login.failed", service=service, peer=peer, reason=str(reason))


async def _held(resources: Resources, service: str, peer: str, identity: Identity) -> None:
    await resources.logins.note(identity, network_of(peer))
    resources.telemetry.event(
        "login.held",
        service=service,
        peer=peer,
        user=identity.account.address,
        mechanism=identity.mechanism,
        binding="",
    )


async def serve_saslauthd(resources: Resources, stream: Stream) -> None:
    """One question, one answer."""
    stream.due = asyncio.get_running_loop().time() + SECONDS
    said = "NO authentication failed"
    try:
        heard = b""
        while (asked := saslauthd.parse_question(heard)) is None:
            octets = await stream.read()
            if not octets:
                return
            heard += octets
        login, password, service, realm = asked
        user = f"{login}@{realm}" if realm and "@" not in login else login
        peer = f"{service} by saslauthd"
        try:
            identity = await resources.logins.password(user, password, _scene(service, peer))
            await _held(resources, "saslauthd", peer, identity)
            said = "OK"
        except SaslFailure as error:
            await _refused(resources, "saslauthd", peer, error)
            if error.temporary:
                said = "NO authentication server failed, try again later"
        stream.write(saslauthd.answer(said))
        await stream.drain()
    except saslauthd.Malformed as error:
        resources.telemetry.event("session.protocol_error", service="saslauthd", reason=str(error))
    except (StreamClosed, StreamTimeout):
        pass
    finally:
        stream.close()


class DovecotAuthSession:
    """One connection: many logins at once, each with its number."""

    def __init__(self, resources: Resources, stream: Stream, number: int, mechanisms: tuple[str, ...] = ()) -> None:
        self._resources = resources
        self._engine = wire.DovecotAuth()
        self._line: Line[wire.Event] = Line(self._engine, stream, resources.limits.pace)
        self._number = number
        self._mechanisms = mechanisms
        self._open: dict[int, tuple[Exchange, str, asyncio.Queue[bytes]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        resources, stream = self._resources, self._line.stream
        stream.idle_seconds = IDLE_SECONDS
        offered = [
            name for name in resources.logins.mechanisms(Scene("smtp", offered=self._mechanisms)) if "GS" not in name
        ]
        self._engine.greet(offered, os.getpid(), self._number, resources.env.random(16).hex())
        try:
            while True:
                self._took(await self._line.event(), offered)
        except ProtocolError as error:
            resources.telemetry.event("session.protocol_error", service="dovecot-auth", reason=str(error))
        except (StreamClosed, StreamTimeout):
            pass
        finally:
            for task in self._tasks:
                task.cancel()
            self._line.close()

    def _took(self, event: wire.Event, offered: list[str]) -> None:
        match event:
            case wire.Auth():
                self._begin(event, offered)
            case wire.Continue():
                if event.number in self._open:
                    answers = self._open[event.number][2]
                    if answers.qsize() >= ANSWERS_MAX:
                        raise ProtocolError("answers to nothing")
                    answers.put_nowait(event.response)
            case wire.Cancel():
                self._open.pop(event.number, None)

    def _begin(self, event: wire.Auth, offered: list[str]) -> None:
        """Without TLS between the program and its client nothing is taken that says the password itself."""
        peer = event.parameters.get("rip", "") or "unix socket"
        service = event.parameters.get("service", "smtp")
        unsafe = event.mechanism in wire.PLAINTEXT and "secured" not in event.parameters
        if event.number in self._open or len(self._tasks) >= wire.REQUESTS_MAX:
            raise ProtocolError("too many logins, or two of one number")
        scene = _scene(service, f"{peer}:0")
        exchange = self._resources.logins.exchange(event.mechanism, scene) if event.mechanism in offered else None
        if exchange is None or unsafe:
            self._engine.failed(event.number)
            return
        answers: asyncio.Queue[bytes] = asyncio.Queue()
        self._open[event.number] = (exchange, f"{peer}:0", answers)
        task = asyncio.get_running_loop().create_task(self._login(event, exchange, f"{peer}:0", answers))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _login(self, event: wire.Auth, exchange: Exchange, peer: str, answers: "asyncio.Queue[bytes]") -> None:
        number, resources = event.number, self._resources
        try:
            async with asyncio.timeout(SECONDS):
                if event.response is None or exchange.first.server_first:
                    self._more(number, exchange.first.octets)
                    response = decoded(await answers.get())
                else:
                    response = decoded(event.response)
                while not isinstance(step := await exchange.step(response), Identity):
                    self._more(number, step)
                    response = decoded(await answers.get())
            if step.layer is not None:
                raise SaslFailure("a security layer cannot be handed over")
            await _held(resources, "dovecot-auth", peer, step)
            self._engine.held(number, step.account.address)
        except (SaslFailure, TimeoutError) as error:
            reason = error if isinstance(error, SaslFailure) else SaslFailure("the client took too long")
            await _refused(resources, "dovecot-auth", peer, reason)
            self._engine.failed(number, temporary=reason.temporary)
        finally:
            self._open.pop(number, None)
        with suppress(StreamClosed, StreamTimeout):
            await self._line.flush()

    def _more(self, number: int, challenge: bytes) -> None:
        self._engine.more(number, base64.b64encode(challenge))
        self._line.stream.write(self._engine.output())

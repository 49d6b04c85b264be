"""`Connection`: a client's engine on a stream whose server was believed, and the hop it gives."""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from fubako.client.tickets import ClientTickets
from fubako.clock import Env
from fubako.message.hop import Hop
from fubako.net import tcp
from fubako.net.interface import CertificateFacts, Stream
from fubako.net.line import Line
from fubako.net.tls import ClientTls
from fubako.protocol import sasl
from fubako.protocol.engine import ProtocolError
from fubako.protocol.sasl import Binding, Proofs, SaslFailure
from fubako.protocol.sasl.mechanism import ClientDialogue
from fubako.protocol.sasl.offer import CLIENT_PREFERENCE
from fubako.trust.judge import Believed, NotBelieved, judge

E = TypeVar("E")
ACCEPTED = tuple(name for name in CLIENT_PREFERENCE if name != "DIGEST-MD5")
_SERVICES = {"smtp": "smtp", "submission": "smtp", "lmtp": "lmtp", "pop3": "pop", "imap": "imap", "sieve": "sieve"}


class ClientError(Exception):
    """The server refused, or cannot be used as asked; the message says what it said."""


class TlsRefused(ClientError):
    """The server does not begin TLS, or somebody on the way sees to it that it does not."""


class LoginRefused(ClientError):
    """The server does not take the name, the password or the proof, and would not tomorrow; other troubles are ClientError."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server to talk to, and why it should be believed. `server_name` is the name its certificate must hold."""

    host: str
    port: int
    server_name: str
    ca_files: tuple[Path, ...] = ()
    system_authorities: bool = True
    authority: str = "a public authority"
    pins: frozenset[str] = frozenset()
    implicit_tls: bool = True
    bare: bool = False  # no TLS: something else protects the connection
    judgement: Callable[[CertificateFacts | None, str], Believed] | None = None  # instead of authority and pins
    certificate: tuple[Path, Path] | None = None  # files of our own chain and key, for a server that asks


@dataclass(frozen=True, slots=True)
class Credentials:
    """What to log in with: a password, a bearer token, Kerberos tickets, or a certificate that the handshake showed (`external`).
    `authzid`: as whom to go on, where that is another one."""

    user: str
    password: str = field(default="", repr=False)
    mechanisms: tuple[str, ...] = ACCEPTED
    token: str = field(default="", repr=False)
    authzid: str = ""
    kerberos: bool = False
    external: bool = False


class Connection(Generic[E]):
    """What the clients share."""

    protocol = ""

    def __init__(self, peer: Peer, line: Line[E], env: Env) -> None:
        self.peer = peer
        self.line = line
        self.env = env
        self.believed: Believed | None = None
        self.user = ""
        self.preauth = False  # a tunnel that ends at the server: nobody was asked who we are
        self.mechanism = ""
        self.binding = ""

    async def protect(self, alpn: Sequence[str] = ()) -> None:
        """The handshake, then the judgement. Raises TlsError, NotBelieved; nothing secret was said before."""
        peer = self.peer
        tls = ClientTls(
            ca_files=peer.ca_files, system_authorities=peer.system_authorities, certificate=peer.certificate
        )
        pump = tls.pump(peer.server_name, alpn)
        if self.peer.implicit_tls:
            await self.line.stream.start_tls(pump)
        else:
            await self.line.start_tls(lambda: pump)
        facts = self.line.stream.tls
        assert facts is not None
        try:
            self.believed = self.believe(facts.peer, facts.version)
        except NotBelieved as reason:
            self.refused_certificate(reason)
            raise

    def believe(self, facts: CertificateFacts | None, version: str) -> Believed:
        """Raises NotBelieved."""
        if self.peer.judgement is not None:
            return self.peer.judgement(facts, version)
        return judge(facts, self.peer.server_name, authority=self.peer.authority, pins=self.peer.pins)

    def refused_certificate(self, _reason: NotBelieved) -> None:
        """Nobody vouches for the server: a client ends the connection."""
        self.line.close()

    @contextmanager
    def beginning_tls(self) -> Iterator[None]:
        """Around the command that asks for TLS. Raises TlsRefused where the server refuses, ProtocolError where it spoke before."""
        self.nothing_unasked()
        try:
            yield
        except TlsRefused:
            raise
        except ClientError as error:
            raise TlsRefused(f"{error}; nothing else was said") from None

    def nothing_unasked(self) -> None:
        """Before STARTTLS is said: an answer that is there already was not the server's (C-PREREPLY)."""
        if self.line.engine.pending or self.line.stream.pending:
            raise ProtocolError("the server answered before it was asked")

    @property
    def offered(self) -> list[str]:
        """Mechanisms that the server announced."""
        raise NotImplementedError  # each protocol has its own

    def hop(self, trace_id: str = "") -> Hop:
        tls, ssh = self.line.stream.tls, self.line.stream.ssh
        believed = self.believed.by if self.believed else f"its SSH key {ssh.key}" if ssh and not tls else ""
        return Hop(
            self.protocol, "out", self.line.stream.peer, self.env.clock.now(), self.line.stream.local and ssh is None,
            tls.version if tls else "", tls.cipher if tls else ssh.cipher if ssh else "", believed, self.user, self.mechanism,
            self.binding, trace_id, ssh.proof if ssh else "",
        )  # fmt: skip

    async def authenticate(
        self,
        offered: Sequence[str],
        credentials: Credentials,
        begin: Callable[[str, bytes | None], Awaitable[bytes | None]],
        answer: Callable[[bytes], Awaitable[bytes | None]],
    ) -> None:
        """One SASL exchange. `begin` sends the command, `answer` a response; both give the next challenge (base64) or None
        when the server accepted. Raises SaslFailure, ClientError."""
        if self.line.stream.tls is None and not self.line.stream.local:
            raise ClientError("a password is never said without TLS")
        tls = self.line.stream.tls
        binding = Binding(tls.bindings if tls else {})
        nonce = base64.b64encode(self.env.random(18)).decode()
        name, dialogue = sasl.client(offered, self._proofs(credentials), nonce, binding, credentials.mechanisms)
        kerberos = name in ("GSSAPI", "GS2-KRB5", "GS2-KRB5-PLUS")
        first = await asyncio.to_thread(next, dialogue) if kerberos else next(dialogue)
        server_first = name in ("CRAM-MD5", "DIGEST-MD5", "LOGIN")
        challenge = await begin(name, None if server_first else base64.b64encode(first) or b"=")
        proved = not name.startswith("SCRAM")
        while challenge is not None:
            octets = _decoded(challenge)
            response = await asyncio.to_thread(_next, dialogue, octets) if kerberos else _next(dialogue, octets)
            proved = proved or response == b""
            challenge = await answer(base64.b64encode(response))
        if not proved:
            raise SaslFailure("the server accepted without proving that it knows the password")
        self.user, self.mechanism = credentials.user, name
        if name.endswith("-PLUS"):
            self.binding = "tls-exporter" if "tls-exporter" in binding.types else "tls-server-end-point"

    def _proofs(self, credentials: Credentials) -> Proofs:
        service, host = _SERVICES[self.protocol], self.peer.server_name
        return Proofs(
            credentials.user, credentials.password, credentials.token, credentials.authzid, credentials.external,
            partial(ClientTickets, service, host) if credentials.kerberos else None, service, host, self.peer.port,
        )  # fmt: skip

    def close(self) -> None:
        self.line.close()


def _next(dialogue: ClientDialogue, challenge: bytes) -> bytes:
    """Raises SaslFailure."""
    try:
        return dialogue.send(challenge)
    except StopIteration:
        raise SaslFailure("the server asks for more than the mechanism has") from None


def _decoded(challenge: bytes) -> bytes:
    try:
        return base64.b64decode(challenge, validate=True)
    except (binascii.Error, ValueError):
        raise ProtocolError("the server's challenge is not base64") from None


async def open_stream(peer: Peer) -> Stream:
    """Raises ClientError where nobody answers."""
    try:
        return await tcp.connect(peer.host, peer.port)
    except (OSError, TimeoutError) as error:
        raise ClientError(f"{peer.host}:{peer.port} cannot be reached: {tcp.why(error)}") from None

"""`Stream`: what moves bytes, `TlsFacts`: what a handshake showed, and `Resolver`: what DNS answers."""

import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from fubako.protocol.sasl.mechanism import SecurityLayer

T_co = TypeVar("T_co", covariant=True)


class StreamClosed(Exception):
    """The peer is gone; nothing more can be written."""


class StreamTimeout(Exception):
    """The peer said nothing for longer than allowed."""


class TlsError(Exception):
    """The handshake or a record failed; the connection is of no more use."""


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """The leaf a peer showed, and what a check of its chain against the given authorities found wrong (empty: nothing)."""

    subject: str
    issuer: str
    dns_names: tuple[str, ...]
    ip_names: tuple[str, ...]
    not_before: float  # seconds since the epoch
    not_after: float
    sha256: str  # of the DER, hexadecimal
    spki_sha256: str
    chain_error: str = ""
    chain_fault: str = ""  # the same as a result type of RFC 8460 §4.3
    chain: tuple[bytes, ...] = field(default=(), repr=False)  # DER, leaf first, as the peer sent it; clients only
    mail_names: tuple[str, ...] = ()  # rfc822Name
    md5: str = ""  # of the DER; only to recognise what old configurations hold


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """The facts of one handshake, seen from our side."""

    version: str
    cipher: str
    sni: str = ""
    alpn: str = ""
    bindings: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    peer: CertificateFacts | None = None


@dataclass(frozen=True, slots=True)
class SshFacts:
    """What an SSH connection showed: as whom somebody came in, and by what."""

    user: str  # the login name, as it was given
    proof: str  # "ssh-ed25519 SHA256:…", "certificate by ssh-ed25519 SHA256:…" or "password"
    key: str  # the fingerprint of the account's key, or authority, that held; empty for a password
    cipher: str


# TLS as a server on a connection, by another process: the facts, and the end at which its plaintext is. Raises TlsError
Secure = Callable[[socket.socket], Awaitable[tuple[TlsFacts, socket.socket]]]


class Stream(Protocol):
    """A two-way flow of bytes.

    `read` gives at least one byte, b"" at the end; raises StreamTimeout. `nudge` makes a waiting `read_or_nudge` (or the
    next one) give None: something else than the peer wants attention. `write` never blocks; `drain` waits until the
    peer has taken enough. `start_tls` is `begin_tls` and `handshake`; it discards nothing silently: it raises TlsError when
    unread bytes are waiting, unless TLS is there `from_start`: then they are the handshake's.
    """

    peer: str
    local: bool
    tls: TlsFacts | None
    ssh: SshFacts | None
    idle_seconds: float
    due: float  # the loop's time at which any wait for the peer's octets ends, whatever it says; infinite: never
    taking_seconds: float | None  # how long `drain` waits; None: `idle_seconds`
    secure: Secure | None  # who does TLS on it; None: a pump does

    @property
    def pending(self) -> bool: ...
    @property
    def congested(self) -> bool:
        """Whether `drain` would wait, or tell that the peer is gone."""
        ...

    async def read(self) -> bytes: ...
    async def read_or_nudge(self) -> bytes | None: ...
    def nudge(self) -> None: ...
    def put_back(self, octets: bytes) -> None:
        """What was read too early is read again, before anything else."""
        ...

    def write(self, octets: bytes) -> None: ...
    async def drain(self) -> None: ...
    def begin_tls(self, pump: "Pump", *, from_start: bool = False) -> None: ...
    async def handshake(self) -> None: ...
    async def start_tls(self, pump: "Pump") -> None: ...
    async def start_tls_elsewhere(self) -> None:
        """By `secure`. Raises TlsError, StreamTimeout."""
        ...

    def begin_layer(self, layer: SecurityLayer) -> None: ...
    def close(self) -> None: ...


class DnsFailure(Exception):
    """The question was not answered; asking later may help."""


class NoSuchName(Exception):
    """The name does not exist (RFC 2308 §2.1)."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T_co]):
    """Records, none where the name has none of that type; `authentic`: a local resolver says that DNSSEC holds."""

    records: tuple[T_co, ...] = ()
    authentic: bool = False


@dataclass(frozen=True, slots=True)
class TlsaRecord:
    """RFC 6698 §2.1: usage, selector and matching type as numbers; `data` a digest or the whole thing."""

    usage: int
    selector: int
    matching: int
    data: bytes


class Resolver(Protocol):
    """The domain name system. All raise NoSuchName and DnsFailure; names come back in lower case, without the last dot."""

    async def mx(self, domain: str) -> Answer[tuple[int, str]]:
        """(preference, host); the host of a null MX is empty (RFC 7505)."""
        ...

    async def addresses(self, host: str) -> Answer[str]:
        """IPv6 first."""
        ...

    async def ipv4(self, host: str) -> Answer[str]: ...

    async def ipv6(self, host: str) -> Answer[str]: ...

    async def texts(self, name: str) -> Answer[bytes]:
        """TXT, the strings of a record joined."""
        ...

    async def names(self, address: str) -> Answer[str]:
        """The names of an address (PTR)."""
        ...

    async def tlsa(self, name: str) -> Answer[TlsaRecord]: ...

    async def services(self, name: str) -> Answer[tuple[int, int, int, str]]:
        """SRV: (priority, weight, port, host)."""
        ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """What an HTTPS server answered."""

    status: int
    kind: str  # media type, in lower case, without parameters
    content: bytes


class HttpsFailure(Exception):
    """No answer that can be used; `certificate` tells that the server could not prove who it is."""

    def __init__(self, reason: str, *, certificate: bool = False) -> None:
        super().__init__(reason)
        self.certificate = certificate


class Https(Protocol):
    """One request to a web server that must prove its name. Both raise HttpsFailure; no redirect is followed."""

    async def get(self, host: str, path: str, octets_max: int) -> Fetched: ...

    async def post(self, host: str, path: str, kind: str, content: bytes) -> Fetched: ...


class Terminal(Stream, Protocol):
    """The stream of a command that somebody runs over SSH: standard input and output, and a place for complaints."""

    def complain(self, text: str) -> None: ...


class Doorkeeper(Protocol):
    """What an SSH server asks about one connection, and where it leads those who came in. One object a connection."""

    passwords: bool
    hang_up: Callable[[], None]  # set by the server: ends the connection and all that runs on it

    def came(self, peer: str) -> bool:
        """Whether there is room for one more."""
        ...

    async def keys(self, user: str) -> Sequence[tuple[str, str, bool]]:
        """(fingerprint, `type base64`, whether it is an authority) of everything that proves this user; nothing for nobody."""
        ...

    async def password(self, user: str, password: str) -> bool: ...

    async def refused(self, user: str) -> None:
        """A key proved nothing."""
        ...

    async def entered(self, facts: SshFacts) -> bool:
        """Somebody proved who he is; False when he may not come in after all."""
        ...

    async def run(self, command: str, terminal: Terminal) -> int:
        """A command, or nothing where a shell was asked for; gives its exit code."""
        ...

    def leads(self, host: str, port: int) -> Callable[[Stream], Awaitable[None]] | None:
        """Where a forwarded connection ends; None: nowhere."""
        ...

    def left(self) -> None: ...


class Pump(Protocol):
    """TLS without a socket: ciphertext in, plaintext out, and the other way round."""

    @property
    def established(self) -> bool: ...
    @property
    def ended(self) -> bool: ...
    @property
    def urgent(self) -> bool:
        """After `feed`: whether the peer waits for what `outgoing` holds; if not, it may go with the next `send`."""
        ...

    def feed(self, ciphertext: bytes) -> bytes: ...
    def send(self, plaintext: bytes) -> None: ...
    def outgoing(self) -> bytes: ...
    def close(self) -> None: ...
    def facts(self) -> TlsFacts: ...

"""`Stream`: what moves bytes, and `TlsFacts`: what a handshake showed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


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


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """The facts of one handshake, seen from our side."""

    version: str
    cipher: str
    sni: str = ""
    alpn: str = ""
    bindings: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    peer: CertificateFacts | None = None


class Stream(Protocol):
    """A two-way flow of bytes.

    `read` gives at least one byte, b"" at the end; raises StreamTimeout. `nudge` makes a waiting `read_or_nudge` (or the
    next one) give None: something else than the peer wants attention. `write` never blocks; `drain` waits until the
    peer has taken enough. `start_tls` is `begin_tls` and `handshake`; it discards nothing silently: it raises TlsError when
    unread bytes are waiting.
    """

    peer: str
    local: bool
    tls: TlsFacts | None
    idle_seconds: float

    @property
    def pending(self) -> bool: ...
    @property
    def congested(self) -> bool:
        """Whether `drain` would wait, or tell that the peer is gone."""
        ...

    async def read(self) -> bytes: ...
    async def read_or_nudge(self) -> bytes | None: ...
    def nudge(self) -> None: ...
    def write(self, octets: bytes) -> None: ...
    async def drain(self) -> None: ...
    def begin_tls(self, pump: "Pump") -> None: ...
    async def handshake(self) -> None: ...
    async def start_tls(self, pump: "Pump") -> None: ...
    def close(self) -> None: ...


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

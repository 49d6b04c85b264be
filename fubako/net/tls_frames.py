"""What is said to the process that does TLS with strangers, and what it says (see fubako.front.frames)."""

import msgspec
from msgspec import Struct

from fubako.front.frames import FrameError, Ready
from fubako.net.interface import CertificateFacts, TlsFacts
from fubako.net.tls import TlsOffer

OFFERS_OCTETS_MAX = 16 * 1024 * 1024  # certificates, keys and authorities


class TlsLimits(Struct, frozen=True, kw_only=True, tag="tls"):
    """What one process may take. Octets and counts."""

    connections: int = 2000
    memory_octets: int = 1024 * 1024 * 1024


class Offers(Struct, frozen=True, kw_only=True, tag=True):
    """The first word: what is shown to peers, by protocol, and the seconds in which a peer takes what was said."""

    offers: dict[str, TlsOffer]
    taking_seconds: float


class Begin(Struct, frozen=True, tag=True):
    """A handshake. Two descriptors come beside this: the connection, and where its plaintext goes to and comes from."""

    protocol: str


class Abandon(Struct, frozen=True, tag=True):
    """Nobody waits for this handshake any more."""


ToTls = Offers | Begin | Abandon


class Secured(Struct, frozen=True, kw_only=True, tag=True):
    """A handshake has ended; see TlsFacts."""

    version: str
    cipher: str
    sni: str
    alpn: str
    bindings: dict[str, bytes]
    peer: CertificateFacts | None

    def facts(self) -> TlsFacts:
        return TlsFacts(self.version, self.cipher, self.sni, self.alpn, self.bindings, self.peer)

    @classmethod
    def of(cls, facts: TlsFacts) -> "Secured":
        return cls(
            version=facts.version, cipher=facts.cipher, sni=facts.sni, alpn=facts.alpn, bindings=dict(facts.bindings),
            peer=facts.peer,
        )  # fmt: skip


class Failed(Struct, frozen=True, tag=True):
    reason: str


FromTls = Ready | Secured | Failed

_to_tls: msgspec.msgpack.Decoder[ToTls] = msgspec.msgpack.Decoder(ToTls)
_from_tls: msgspec.msgpack.Decoder[FromTls] = msgspec.msgpack.Decoder(FromTls)


def to_tls(octets: memoryview) -> ToTls:
    """Raises FrameError."""
    try:
        return _to_tls.decode(octets)
    except (msgspec.MsgspecError, ValueError) as error:
        raise FrameError(str(error)) from None


def from_tls(octets: memoryview) -> FromTls:
    """Raises FrameError."""
    try:
        return _from_tls.decode(octets)
    except (msgspec.MsgspecError, ValueError) as error:
        raise FrameError(str(error)) from None

"""The shapes that all mechanisms share."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class SaslFailure(Exception):
    """The exchange failed. `temporary` says that trying again may help."""

    def __init__(self, reason: str, *, temporary: bool = False) -> None:
        super().__init__(reason)
        self.temporary = temporary


@dataclass(frozen=True, slots=True)
class Challenge:
    """Octets for the client, before base64. `server_first` says that no initial response may stand in for it."""

    octets: bytes = b""
    server_first: bool = False


@dataclass(frozen=True, slots=True)
class Lookup:
    """A question to the account store. What is sent back depends on `kind`:

    "password": True or False, whether `password` is that of `user`;
    "secret": the list of the account's secrets as bytes (CRAM-MD5, APOP), empty when it has none;
    "scram": `ScramKeys` for `hash_name`, invented ones when there is no such account;
    "external": the name that was proved outside of the exchange, empty for none; `user` is whom the client asks to act as;
    "anonymous": the account for those without a name, empty for none; `user` is their trace;
    "token": a `Token` (oauth.py); `user` is whom the client asks to act as, `password` the bearer token;
    "gss", "gss-wrap", "gss-unwrap": a `GssStep` (gssapi.py) made of `octets`.
    """

    kind: str
    user: str = ""
    password: str = field(default="", repr=False)
    hash_name: str = "sha256"
    octets: bytes = field(default=b"", repr=False)
    binding: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Success:
    """`user` proved itself and asks to act as `authzid` (empty: as itself). `binding` names the channel binding that held."""

    user: str
    authzid: str = ""
    binding: str = ""
    layer: "SecurityLayer | None" = field(default=None, repr=False, compare=False)


class SecurityLayer(Protocol):
    """What protects the connection from the end of the exchange on (RFC 4422 §3.7)."""

    def wrap(self, octets: bytes) -> bytes: ...
    def unwrap(self, octets: bytes) -> bytes:
        """What of the octets so far can be believed; keeps what is not whole yet. Raises SaslFailure."""
        ...


@dataclass(frozen=True, slots=True)
class Binding:
    """Channel binding data of this connection by type: tls-exporter, tls-server-end-point (RFC 5056, 5929, 9266)."""

    types: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def best(self) -> str:
        """The type that a client binds to: tls-exporter where there is one."""
        return next((kind for kind in ("tls-exporter", "tls-server-end-point") if kind in self.types), "")


ServerDialogue = Generator[Challenge | Lookup, Any, Success]
ClientDialogue = Generator[bytes, bytes, None]

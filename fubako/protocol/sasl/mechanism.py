"""The shapes that all mechanisms share."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any


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
    "scram": `ScramKeys` for `hash_name`, invented ones when there is no such account.
    """

    kind: str
    user: str
    password: str = field(default="", repr=False)
    hash_name: str = "sha256"


@dataclass(frozen=True, slots=True)
class Success:
    """`user` proved itself and asks to act as `authzid` (empty: as itself). `binding` names the channel binding that held."""

    user: str
    authzid: str = ""
    binding: str = ""


@dataclass(frozen=True, slots=True)
class Binding:
    """Channel binding data of this connection by type: tls-exporter, tls-server-end-point (RFC 5056, 5929, 9266)."""

    types: Mapping[str, bytes] = field(default_factory=dict, repr=False)


ServerDialogue = Generator[Challenge | Lookup, Any, Success]
ClientDialogue = Generator[bytes, bytes, None]

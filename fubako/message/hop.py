"""`Hop`: one leg of a letter's way, and the seal that it gives (sealed, covered, open).

Policy, trace, the user's screen and the log all read this one record. A hop never holds a secret.
"""

from enum import Enum
from typing import Any

from msgspec import Struct
from msgspec.json import encode
from msgspec.structs import asdict


class Seal(Enum):
    """How a leg was protected, best first. The seal of a letter is that of its weakest leg."""

    SEALED = "sealed"  # encrypted, and the peer proved who it is
    COVERED = "covered"  # encrypted, but the peer proved nothing
    OPEN = "open"  # readable by anyone on the way

    @property
    def keyword(self) -> str:
        """The IMAP keyword that shows the seal."""
        return f"$Seal{self.value.capitalize()}"


_ORDER = (Seal.SEALED, Seal.COVERED, Seal.OPEN)


class Hop(Struct, frozen=True, omit_defaults=True):
    """One leg. `local` says that the bytes never left the machine's own kernel or process (a Unix socket, a pipe)."""

    protocol: str  # smtp, submission, imap …
    direction: str  # "in" or "out", seen from us
    peer: str  # host:port, or a socket's path
    at: float = 0.0  # seconds since the epoch
    local: bool = False
    tls_version: str = ""  # TLSv1.3
    cipher: str = ""
    believed: str = ""  # how the peer was believed: in words, empty if by nobody
    user: str = ""  # the account that proved itself on this leg
    mechanism: str = ""  # SASL mechanism
    binding: str = ""  # channel binding that held: tls-exporter …
    trace_id: str = ""
    # the leg went through SSH: how the user proved himself there (key type and fingerprint, or "password")
    ssh: str = ""

    @property
    def seal(self) -> Seal:
        if self.local:
            return Seal.SEALED
        if not self.tls_version and not self.ssh:
            return Seal.OPEN
        return Seal.SEALED if self.believed or self.user else Seal.COVERED

    def describe(self) -> str:
        """The leg in one line for a user."""
        arrow = "<-" if self.direction == "in" else "->"
        tls = f"{self.tls_version} {self.cipher}" if self.tls_version else ("local" if self.local else "NO ENCRYPTION")
        if self.ssh:
            inside = f" with {tls} inside" if self.tls_version else f" {self.cipher}"
            tls = f"SSH{inside} by {self.ssh}"
        parts = [f"{self.protocol} {arrow} {self.peer}", tls]
        parts.append(f"peer believed by {self.believed}" if self.believed else "peer proved nothing")
        if self.user:
            bound = f", bound to the channel by {self.binding}" if self.binding else ", no channel binding"
            parts.append(f"{self.user} by {self.mechanism}{bound}")
        return "; ".join([*parts, self.seal.value])

    def as_dict(self) -> dict[str, Any]:
        """JSON values, without the fields that are empty."""
        facts = {key: value for key, value in asdict(self).items() if value}
        facts["seal"] = self.seal.value
        return facts

    def as_json(self) -> str:
        """`as_dict` as text, for each letter."""
        return f'{encode(self).decode()[:-1]},"seal":"{self.seal.value}"}}'


def hop_from_dict(facts: dict[str, Any]) -> Hop:
    """The inverse of `Hop.as_dict`; what it does not know is left aside."""
    return Hop(**{key: value for key, value in facts.items() if key in Hop.__struct_fields__})


def weakest(hops: list[Hop]) -> Seal:
    """The seal of a whole journey; one without legs is open, because nothing is known of it."""
    if not hops:
        return Seal.OPEN
    return max((hop.seal for hop in hops), key=_ORDER.index)

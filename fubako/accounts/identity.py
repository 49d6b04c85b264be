"""`Identity`: who somebody proved to be. `Scene`: where he does so."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from fubako.accounts.directory import Account
from fubako.net.interface import CertificateFacts
from fubako.protocol.sasl.mechanism import SecurityLayer


class Proof(Enum):
    """What proved an account; `conditions.judge` tells what that is worth."""

    PASSWORD = "password"  # one that a person remembers, kept here or at a back end
    PASSWORD_AND_CODE = "password and code"
    DEVICE = "device password"
    KEY = "key"
    CERTIFICATE = "certificate"
    TICKET = "ticket"
    TOKEN = "token"
    SSH = "ssh"  # came in by SSH, where a proof held
    LOCAL = "local"  # this machine says so: a pipe of the account's own user
    ADDRESS = "address"  # logged in from there a short while ago
    SPOKEN_FOR = "spoken for"  # a proxy that may speak for others says so
    NAMED = "named"  # another account may act as this one
    NOBODY = "nobody"  # no name at all


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a session belongs to, and how it was proved. `actor`: who proved himself, where that is another one; `by` is that
    account. `read_only`: nobody in particular, who may look."""

    account: Account
    mechanism: str
    binding: str = ""
    actor: str = ""
    read_only: bool = False
    layer: SecurityLayer | None = field(default=None, repr=False, compare=False)
    proof: Proof = Proof.LOCAL
    by: Account | None = None

    @property
    def watched(self) -> tuple[tuple[int, int], ...]:
        """(account_id, counter of changes) of everybody on whom it rests."""
        return tuple((one.account_id, one.changed) for one in (self.account, self.by) if one is not None)


@dataclass(frozen=True, slots=True)
class Scene:
    """Where somebody proves who he is. `came_as`: the account that came in by SSH. `offered`: instead of all mechanisms.
    `network` tells whose turn it is when many wait."""

    protocol: str = ""
    bindings: Mapping[str, bytes] = field(default_factory=dict)
    certificate: CertificateFacts | None = None
    came_as: str = ""
    offered: tuple[str, ...] = ()
    network: str = ""


NOWHERE = Scene()

"""`Identity`: who somebody proved to be. `Scene`: where he does so."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fubako.accounts.directory import Account
from fubako.net.interface import CertificateFacts
from fubako.protocol.sasl.mechanism import SecurityLayer


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a session belongs to, and how it was proved. `actor`: who proved himself, where that is another one. `read_only`:
    nobody in particular, who may look."""

    account: Account
    mechanism: str
    binding: str = ""
    actor: str = ""
    read_only: bool = False
    layer: SecurityLayer | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Scene:
    """Where somebody proves who he is. `came_as`: the account that came in by SSH. `offered`: instead of all mechanisms.
    `network` and `failures` tell whose turn it is when many wait."""

    protocol: str = ""
    bindings: Mapping[str, bytes] = field(default_factory=dict)
    certificate: CertificateFacts | None = None
    came_as: str = ""
    offered: tuple[str, ...] = ()
    network: str = ""
    failures: int = 0


NOWHERE = Scene()

"""`demand`: how well a leg to another server must be protected, and why, in words. Pure; the stricter of two always holds."""

from dataclasses import dataclass
from enum import IntEnum

from fubako.net.interface import TlsaRecord
from fubako.trust import dane
from fubako.trust.mtasts import Policy


class Level(IntEnum):
    """What a connection to a server reached."""

    OPEN = 0
    ENCRYPTED = 1  # TLS, but the peer proved nothing
    VERIFIED = 2  # TLS, and a certificate for the right name from an authority that we trust

    @property
    def words(self) -> str:
        return (
            "no encryption",
            "encryption without a believable certificate",
            "encryption and a believable certificate",
        )[self]


RULES = {"may": Level.OPEN, "encrypt": Level.ENCRYPTED, "verify": Level.VERIFIED}


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a destination before anything is said to it.

    `rule` is the administrator's, empty where none was written; with one, memory does not count. `tlsa` are authentic records
    of the host, `promised` is the policy of the domain, `remembered` the best that the host showed before, last on the day `seen`;
    `require_tls` and `tls_optional` are the sender's wishes (RFC 8689 §4, §5).
    """

    rule: str = ""
    tlsa: tuple[TlsaRecord, ...] = ()
    promised: Policy | None = None
    remembered: Level = Level.OPEN
    seen: str = ""
    require_tls: bool = False
    tls_optional: bool = False


@dataclass(frozen=True, slots=True)
class Demand:
    """`keys`: only who shows one of them is believed."""

    level: Level
    reason: str
    keys: tuple[TlsaRecord, ...] = ()

    def unmet(self, reached: Level, host: str, doubt: str = "") -> str:
        """What is wrong with a connection, in words; empty when it is good enough."""
        if reached >= self.level:
            return ""
        why = f" ({doubt})" if doubt else ""
        return f"{host} offers {reached.words}{why}, but {self.level.words} is demanded: {self.reason}"


def demand(known: Known) -> Demand:
    """One judgement, in the order written here; of two that disagree the stricter holds."""
    found = [Demand(Level.OPEN, "nothing more is known of this server")]
    if known.rule:
        found.append(Demand(RULES[known.rule], "the administrator's route says so"))
    keys: tuple[TlsaRecord, ...] = ()
    if not known.tls_optional:
        keys = dane.usable(known.tlsa)
        if keys:
            found.append(Demand(Level.VERIFIED, "DNSSEC says which keys it has (DANE)"))
        elif known.tlsa:
            found.append(Demand(Level.ENCRYPTED, "DNSSEC says that it encrypts (DANE)"))
        if known.promised is not None and known.promised.mode == "enforce":
            found.append(Demand(Level.VERIFIED, "the domain promises it (MTA-STS)"))
        if known.remembered and not known.rule:
            words = f"it offered that on {known.seen}; somebody on the way may be hiding it now"
            found.append(Demand(known.remembered, words))
    if known.require_tls:
        found.append(Demand(Level.VERIFIED, "the sender asked for REQUIRETLS"))
    strictest = max(found, key=lambda one: one.level)
    return Demand(strictest.level, strictest.reason, keys)

"""`demand`: how well a leg to another server must be protected, and why, in words. Pure; the stricter of two always holds."""

from dataclasses import dataclass
from enum import IntEnum


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
class Demand:
    level: Level
    reason: str

    def unmet(self, reached: Level, host: str) -> str:
        """What is wrong with a connection, in words; empty when it is good enough."""
        if reached >= self.level:
            return ""
        return f"{host} offers {reached.words}, but {self.level.words} is demanded: {self.reason}"


def demand(rule: str, remembered: Level, seen: str, *, require_tls: bool) -> Demand:
    """`rule` is the administrator's for this destination, empty where none was written; with one, memory does not count.
    `remembered` is the best that the server showed before, last on the day `seen`. `require_tls` is the sender's (RFC 8689)."""
    found = [Demand(Level.OPEN, "nothing more is known of this server")]
    if rule:
        found.append(Demand(RULES[rule], "the administrator's route says so"))
    elif remembered:
        found.append(Demand(remembered, f"it offered that on {seen}; somebody on the way may be hiding it now"))
    if require_tls:
        found.append(Demand(Level.VERIFIED, "the sender asked for REQUIRETLS"))
    return max(found, key=lambda one: one.level)

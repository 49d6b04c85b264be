"""`FrontLimits`: what one front process may take."""

from msgspec import Struct


class FrontLimits(Struct, frozen=True, kw_only=True, tag="front"):
    """Octets and counts."""

    connections: int = 2000
    memory_octets: int = 1024 * 1024 * 1024  # all that it maps

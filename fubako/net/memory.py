"""Two streams joined in memory: the fake that stands beside the real ones, and passes the same suite."""

import asyncio

from fubako.net.stream import BufferedStream


class MemoryStream(BufferedStream):
    """One end. Bytes arrive at the other end on the next turn of the loop, in pieces of at most `fragment` octets."""

    def __init__(self, peer: str, *, local: bool = False) -> None:
        super().__init__(peer, local=local)
        self.other: MemoryStream | None = None
        self.fragment = 0
        self.sent = bytearray()  # everything that left this end, as the wire saw it

    def _transmit(self, octets: bytes) -> None:
        self.sent += octets
        if self.other is None:
            return
        loop, step = asyncio.get_running_loop(), self.fragment or len(octets)
        for start in range(0, len(octets), step):
            loop.call_soon(self.other._arrived, octets[start : start + step])

    def _shut(self) -> None:
        other, self.other = self.other, None
        if other is not None:
            asyncio.get_running_loop().call_soon(other._lost)


def pair(*, peer: str = "192.0.2.1:40000", local: bool = False) -> tuple[MemoryStream, MemoryStream]:
    """(our end, their end)."""
    ours, theirs = MemoryStream(peer, local=local), MemoryStream("server", local=local)
    ours.other, theirs.other = theirs, ours
    return ours, theirs

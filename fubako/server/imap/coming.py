"""`Coming`: the messages of one APPEND on their way in, in the spool."""

from fubako.store.interface import StoreFull
from fubako.store.spool import Spool


class Coming:
    """What the engine needs of it. The room is given back when nobody holds it any more."""

    def __init__(self, spool: Spool) -> None:
        self._spooled = spool.begin()

    @property
    def size(self) -> int:
        return self._spooled.size

    def append(self, octets: bytes) -> bool:
        try:
            self._spooled.append(octets)
        except StoreFull:
            self._spooled.close()
            return False
        return True

    def read(self, start: int, length: int) -> bytes:
        return self._spooled.read(start, length)

"""`Reserve`: room that is kept back, so that on a full disk the rows can still be written by which people make room.

A file of RESERVE_OCTETS. The first commit that finds no room gives it back and is made again; from then on no content is taken
until the disk has room for the file and as much again: what was given back is for rows alone.
"""

import os
from pathlib import Path

from fubako import modes

RESERVE_OCTETS = 8 * 1024 * 1024
_ZEROS = bytes(256 * 1024)


class Reserve:
    """One file for all processes of a store: it is held when the file is there."""

    def __init__(self, path: Path, octets: int = RESERVE_OCTETS) -> None:
        self._path, self._octets = path, octets

    @property
    def held(self) -> bool:
        return self._path.exists()

    def hold(self) -> bool:
        """Keep the room back, where there is twice as much. False: there is not. Never raises."""
        if self.held:
            return True
        part = self._path.with_suffix(f".{os.getpid()}")
        try:
            disk = os.statvfs(self._path.parent)
            if disk.f_bavail * disk.f_frsize < 2 * self._octets:
                return False
            with open(part, "wb", buffering=0, opener=modes.opener) as file:  # written: a confined worker may do that
                file.writelines(_ZEROS for _ in range(self._octets // len(_ZEROS)))
            part.rename(self._path)
        except OSError:
            part.unlink(missing_ok=True)
            return False
        return True

    def give_back(self) -> bool:
        """False: it was given back before, or never held."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

"""Addresses of Unix sockets that lie deep in a tree: an address holds 107 octets (unix(7)), a path of a file may be longer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ADDRESS_OCTETS_MAX = 107


@contextmanager
def address(path: Path) -> Iterator[str]:
    """The path, or while it is needed a shorter one through the folder's descriptor (Linux). Raises OSError."""
    if len(os.fsencode(path)) <= ADDRESS_OCTETS_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)

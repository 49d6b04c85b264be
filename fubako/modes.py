"""Who may read what this program makes: its owner, and nobody else. Every folder and file is made through here.

Invariant: no mode is left to the umask or to the folder above. Folders are 0700 and files 0600; what others must reach has a
setting of its own. Nothing here follows a link.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

FOLDER = 0o700
FILE = 0o600
UMASK = 0o077
_OTHERS = 0o077


def private() -> None:
    """The first act of every program: what libraries and programs that we call make is private too."""
    os.umask(UMASK)


def folder(path: Path) -> None:
    """Make a folder and what is missing above it, all of them private. One that is there stays as it is. Raises OSError."""
    for missing in reversed([one for one in (path, *path.parents) if not one.exists()]):
        missing.mkdir(mode=FOLDER, exist_ok=True)
    if not path.is_dir():
        raise NotADirectoryError(20, "Not a directory", str(path))


def shared_folder(path: Path) -> None:
    """Make a folder in which others look for programs to call. One that is there stays as it is. Raises OSError."""
    if not path.is_dir():
        folder(path)
        path.chmod(0o755)


def opener(path: str, flags: int) -> int:
    """For `open(…, opener=opener)`."""
    return os.open(path, flags | os.O_CLOEXEC, FILE)


def create(path: Path, mode: str = "wb") -> BinaryIO:
    """A binary file, private from its first moment; one that was there keeps nothing of its mode. Raises OSError."""
    file: BinaryIO = open(path, mode, opener=opener)  # type: ignore[assignment]  # noqa: SIM115 (the caller closes it)
    os.fchmod(file.fileno(), FILE)
    return file


def ensure(path: Path) -> None:
    """An empty private file where none is: what a library then opens (SQLite and its WAL) keeps this mode."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE))


def mend(directory: Path) -> tuple[int, list[Path]]:
    """Take from others what they may do with a folder and what is in it: how many modes were changed, and what belongs to
    somebody else and so could not be. Looks at each thing through its own descriptor; links, sockets and pipes are left alone."""
    changed, foreign = 0, []
    for name, folders, files, here in os.fwalk(directory, follow_symlinks=False):
        if _take(here):
            changed += 1
        for entry in (*folders, *files):
            try:
                found = os.stat(entry, dir_fd=here, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if found.st_uid != os.geteuid():
                foreign.append(Path(name) / entry)
            elif stat.S_ISREG(found.st_mode) and found.st_mode & _OTHERS and found.st_nlink == 1:
                changed += _mend_file(entry, here)
    return changed, foreign


def _mend_file(name: str, here: int) -> bool:
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    except OSError:
        return False
    try:
        return _take(handle)
    finally:
        os.close(handle)


def _take(handle: int) -> bool:
    """Whether the mode had to change. Only of what is ours: a folder or a file of one name."""
    found = os.fstat(handle)
    ours = found.st_uid == os.geteuid() and (stat.S_ISDIR(found.st_mode) or found.st_nlink == 1)
    if not ours or not found.st_mode & _OTHERS:
        return False
    os.fchmod(handle, stat.S_IMODE(found.st_mode) & ~_OTHERS)
    return True


class Exposed(PermissionError):
    """A file with a secret that others can read."""


def refuse_exposed(path: Path) -> None:
    """Raises Exposed when others than the owner, or a group that is not ours, can read or write a file with a secret (OSError
    when it cannot be looked at). Group reading is allowed only to a group of this process, such as ssl-cert; root has all."""
    found = path.stat()
    if found.st_mode & 0o037:
        raise Exposed(f"{path} can be read or written by others; `chmod 600` it")
    if found.st_mode & 0o040 and os.geteuid() != 0 and found.st_gid not in {os.getegid(), *os.getgroups()}:
        raise Exposed(f"{path} can be read by a group that is not the server's; `chmod 600` it")

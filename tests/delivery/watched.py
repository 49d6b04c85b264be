"""An audit hook that sees every process that is started and every file that is written, by whatever call of Python's."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STARTS = (
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
)
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate",
           "shutil.move", "os.utime", "os.setxattr")  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_state: dict = {"root": None, "seen": []}
_installed: list[bool] = []


def _hook(event: str, arguments: tuple) -> None:
    root = _state["root"]
    if root is None:
        return
    if event in STARTS:
        _state["seen"].append(f"{event} {arguments!r}"[:300])
    elif event == "open":
        path, _mode, flags = arguments
        if isinstance(path, str | bytes | os.PathLike) and flags & _WRITES:
            _look(event, path, root)
    elif event in CHANGES:
        for path in arguments[:2]:
            if isinstance(path, str | bytes | os.PathLike):
                _look(event, path, root)


def _look(event: str, path, root: Path) -> None:
    where = os.path.abspath(os.fsdecode(path))
    if not where.startswith((str(root), "/dev/", "/proc/", "/memfd")):
        _state["seen"].append(f"{event} {where}"[:300])


@contextmanager
def watched(root: Path) -> Iterator[list[str]]:
    """What was started, or changed outside of `root`, while it lasts. Calls of C libraries into the kernel are not seen."""
    if not _installed:
        sys.addaudithook(_hook)  # it stays, and looks away
        _installed.append(True)
    _state["root"], _state["seen"] = Path(os.path.abspath(root)), []
    try:
        yield _state["seen"]
    finally:
        _state["root"] = None


class Told:
    """Each sighting is a line at a descriptor, for a process of its own and what it forks."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def append(self, text: str) -> None:
        os.write(self._fd, text.encode("utf-8", "surrogateescape") + b"\n")


def watch_for_good(root: Path, fd: int) -> None:
    """From now on, in this process and in those that it forks (not in programs that it starts, whose start is seen)."""
    sys.addaudithook(_hook)
    _state["root"], _state["seen"] = Path(os.path.abspath(root)), Told(fd)

"""Python and this program in the reach of other users, for tests that serve as one of them."""

import os
import sys
from pathlib import Path

import fubako

# A mount namespace of its own, in which what lies in folders that others cannot enter stands in new ones that they can.
_SCRIPT = """
set -e
mount --make-rprivate /
stage=$1; shift
folders=$1; shift
paths=$1; shift
number=0
for path in $paths; do number=$((number + 1)); mkdir -p "$stage/$number"; mount --bind "$path" "$stage/$number"; done
for folder in $folders; do mount -t tmpfs -o mode=755 none "$folder"; done
number=0
umask 022
for path in $paths; do number=$((number + 1)); mkdir -p "$path"; mount --bind "$stage/$number" "$path"; done
exec "$@"
"""


def _closed(path: Path) -> Path | None:
    """The outermost folder on the way to a path that others cannot enter."""
    return next((one for one in reversed(path.parents) if not one.stat().st_mode & 0o001), None)


def in_reach(stage: Path) -> list[str]:
    """What a command has to begin with, so that programs of any user can run Python and this program; nothing where they can.
    `stage`: an empty folder for the mounts. Root only."""
    needed = {Path(one).resolve() for one in (sys.base_prefix, sys.prefix, Path(fubako.__file__).parents[1])}
    paths = sorted(path for path in needed if _closed(path) is not None)
    if not paths or os.geteuid() != 0:
        return []
    folders = sorted({str(_closed(path)) for path in paths})
    stage.mkdir(exist_ok=True)
    words = [str(stage), " ".join(folders), " ".join(map(str, paths))]
    return ["unshare", "--mount", "sh", "-c", _SCRIPT, "sh", *words]

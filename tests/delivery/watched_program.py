"""Runs `fubako`, or a name that it is called by, under the audit hook: DESCRIPTOR ROOT NAME WORDS…

Without uvloop, whose programs libuv starts unseen; asyncio starts the same ones by `subprocess`.
"""

import sys
from pathlib import Path

from watched import watch_for_good


def main() -> None:
    fd, root = int(sys.argv[1]), Path(sys.argv[2])
    sys.argv = sys.argv[3:]
    sys.modules["uvloop"] = None  # type: ignore[assignment]
    from fubako.cli import main as command

    watch_for_good(root, fd)
    command()


if __name__ == "__main__":
    main()

"""The commands. Each one reads its arguments, calls `app` and `admin`, and shows the result; exit codes are sysexits.

Never holds an operation of its own, and never lets a traceback reach a user.
"""

import sys

from fubako.cli.root import fubako


def main() -> None:
    """The console command."""
    sys.exit(fubako())


__all__ = ["main"]

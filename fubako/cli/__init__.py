"""The commands. Each one reads its arguments, calls `app` and `admin`, and shows the result; exit codes are sysexits.

Never holds an operation of its own, and never lets a traceback reach a user.
"""

import os
import sys

from fubako.cli.compat import called_as
from fubako.cli.root import fubako


def main() -> None:
    """The console command, or what it was called by: sendmail, rmail …"""
    work = called_as(os.path.basename(sys.argv[0]))
    sys.exit(work(sys.argv[1:]) if work is not None else fubako())


__all__ = ["main"]

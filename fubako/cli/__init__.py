"""The commands. Each one reads its arguments, calls `app` and `admin`, and shows the result; exit codes are sysexits.

Never holds an operation of its own, and never lets a traceback reach a user.
"""

import os
import sys

from fubako import modes
from fubako.cli.terminal import guard

_CALLED_AS = ("sendmail", "mailq", "newaliases", "rmail", "rsmtp", "qmail-inject")


def main() -> None:
    """The console command, or what it was called by: sendmail, rmail …"""
    modes.private()
    guard()
    name = os.path.basename(sys.argv[0])
    if name in _CALLED_AS:
        from fubako.cli.compat import called_as

        work = called_as(name)
        assert work is not None
        sys.exit(work(sys.argv[1:]))
    from fubako.cli.root import fubako

    sys.exit(fubako())


__all__ = ["main"]

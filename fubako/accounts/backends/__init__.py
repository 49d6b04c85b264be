"""Where passwords are checked besides our own store: one interface, one file for each kind, one suite that all of them pass.

A backend says HELD, WRONG or UNKNOWN, or that it cannot tell now; it never decides what happens then.
"""

from fubako.accounts.backends.chain import Chain, Checker, Question
from fubako.accounts.backends.interface import Backend, BackendDown, Verdict

__all__ = ["Backend", "BackendDown", "Chain", "Checker", "Question", "Verdict"]

"""What a process may not do any more: `confine(Confinement(...))` gives rights up for good, and says which it could not.

Owns: Landlock, seccomp, capabilities, limits and descriptors of the calling process. Knows nothing of mail and imports no other
room. Invariant: rights are only ever given up; what could not be taken is in the `Report`, never silent.
"""

from fubako.confine.apply import confine
from fubako.confine.description import Calls, Confinement, ConfinementFailed, Limits, Network, Report

__all__ = ["Calls", "Confinement", "ConfinementFailed", "Limits", "Network", "Report", "confine"]

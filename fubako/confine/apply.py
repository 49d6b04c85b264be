"""`confine`: every right that a Confinement does not keep is given up, in the order in which that is still possible."""

import os

from fubako.confine import landlock, process, seccomp
from fubako.confine.description import Confinement, ConfinementFailed, Report
from fubako.confine.kernel import (
    MACHINE,
    PR_GET_DUMPABLE,
    PR_GET_NO_NEW_PRIVS,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    known_machine,
    prctl,
)


def confine(wanted: Confinement) -> Report:
    """Confine this process for good. Raises ConfinementFailed when it is asked too late: other threads would keep their rights.

    What the kernel cannot hold is said in the report; who calls decides whether to go on. What is imported later must be
    readable, so a process that may read nothing imports first.
    """
    if not process.only_thread():
        raise ConfinementFailed("other threads run already, they would keep their rights")
    if wanted.parent is not None:
        process.end_with(wanted.parent, wanted.parent_signal)
    if wanted.keep is not None:
        process.close_others(wanted.keep)
    process.limit(wanted.limits)
    held, missing = ["limits"], []
    if not known_machine():
        return Report(tuple(held), (f"everything else (no filters are written for {MACHINE})",), 0)
    missing += _give_up(held, wanted)
    abi = landlock.version()
    try:
        if abi:
            landlock.apply(abi, wanted)
            held.append(f"files (Landlock {abi})")
        missing += landlock.lacking(abi, wanted)
    except OSError as error:
        missing.append(f"files ({error.strerror})")
    try:
        seccomp.apply(wanted)
        held.append("system calls")
    except OSError as error:
        missing.append(f"system calls ({error.strerror})")
    return Report(tuple(held), tuple(missing), abi)


def _give_up(held: list[str], wanted: Confinement) -> list[str]:
    """What needs no rules: privileges, capabilities, being looked into. Returns what is missing."""
    missing: list[str] = []
    if not wanted.privileges:
        missing = process.drop_capabilities(MACHINE)
        held += [] if missing else ["capabilities"]
    for asked, option, wished, what in (
        (PR_GET_NO_NEW_PRIVS, PR_SET_NO_NEW_PRIVS, 1, "no new privileges"),
        (PR_GET_DUMPABLE, PR_SET_DUMPABLE, 0, "not looked into"),
    ):
        try:
            if prctl(asked) != wished:  # else it was given up before, and a filter may forbid to say so
                prctl(option, wished)
            held.append(what)
        except OSError as error:
            missing.append(f"{what} ({os.strerror(error.errno or 0)})")
    return missing

"""Another user's programs: `python -I -m fubako.net.become USER COMMAND…` gives up root for that user and becomes the command.

A program that an administrator named runs as the user who is named with it, and never as root nor in root's group.
"""

import errno
import os
import pwd
import signal
import sys

from fubako.confine.kernel import PR_SET_PDEATHSIG, prctl

_effective_uid = os.geteuid
ROOTS_GROUP = 0


class NotAllowed(Exception):
    """The message says why, and what to write instead."""


def allowed(user: str) -> str:
    """Whom a process must become before it runs as `user`; empty: nobody, it is that user's already. Raises NotAllowed."""
    if not user:
        if _effective_uid() == 0:
            raise NotAllowed(
                "the server runs as root and no other user is named for this: nothing is run or written as root"
            )
        return ""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise NotAllowed(f"there is no Unix user {user}") from None
    uid = entry.pw_uid
    if uid == 0:
        raise NotAllowed("nothing is run or written as root")
    if uid == _effective_uid():
        return ""
    if ROOTS_GROUP in os.getgrouplist(user, entry.pw_gid):
        raise NotAllowed(f"{user} is in root's group, and nothing is run or written in it: name another user")
    if _effective_uid() != 0:
        raise NotAllowed(f"only root can run something as {user}; this server is {_name(_effective_uid())}")
    return user


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"


def command(user: str) -> tuple[str, ...]:
    """What stands before a command that runs as `user`; nothing for our own user."""
    return (sys.executable, "-I", "-m", "fubako.net.become", user) if user else ()


def become(user: str) -> None:
    """Give up root for good, and root's group. Raises OSError, KeyError."""
    entry = pwd.getpwnam(user)
    groups = os.getgrouplist(user, entry.pw_gid)
    if ROOTS_GROUP in groups:  # it was put there since somebody asked
        raise PermissionError(errno.EPERM, "the user is in root's group")
    os.setgroups(groups)
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    os.umask(0o077)
    os.chdir("/")


def main() -> None:
    user, *words = sys.argv[1:]
    try:
        become(user)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # the change of user forgot it; whoever waits for the command ends it
        os.execvpe(words[0], words, dict(os.environ))  # noqa: S606  # that is what it is for
    except (OSError, KeyError) as error:
        sys.stderr.write(f"{words[0]} cannot be run as {user}: {error}\n")
        sys.exit(75)


if __name__ == "__main__":
    main()

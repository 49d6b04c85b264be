"""As whom a process acts: root touches nothing inside a folder that somebody else can write.

Invariant: rights are given up before the store is looked at, for good, and never taken back. No ownership is ever changed: whoever
may write into a folder could put a link there, and root would follow it. Root's group is given up with its rights.
"""

import ctypes
import os
import pwd
from pathlib import Path

from fubako.config import ConfigError

_PR_SET_NO_NEW_PRIVS = 38
ROOT = 0


def become_user(user: str, *, new_privileges: bool = False) -> None:
    """Give up root for a user of this machine, for good; `new_privileges`: programs that are called may still gain rights by
    their files (setuid). Raises ConfigError when that is not possible."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise ConfigError(f"user: there is no Unix user {user}") from None
    if os.geteuid() != ROOT and os.geteuid() != entry.pw_uid:
        raise ConfigError(f"user: only root can become {user}")
    if os.geteuid() == ROOT and entry.pw_uid != ROOT:
        if entry.pw_gid == ROOT:
            raise ConfigError(f"user: the group of {user} is root's: give that user a group of its own")
        _become(entry.pw_uid, entry.pw_gid, os.getgrouplist(user, entry.pw_gid))
    if not new_privileges:
        no_new_privileges()


def act_as_owner(directory: Path) -> None:
    """Root becomes the user to whom a store belongs, for good; everybody else stays who he is."""
    if os.geteuid() != ROOT:
        return
    owner, group = owner_of(directory)
    if owner == ROOT:
        return
    try:
        entry = pwd.getpwuid(owner)
        group, groups = entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)
    except KeyError:
        groups = [group]
    _become(owner, group, groups)
    no_new_privileges()


def owner_of(path: Path) -> tuple[int, int]:
    """(user, group) that decide what a path is: those of the first thing on the way that is not root's, links looked at too.
    What is not there yet belongs to whom the folder above it belongs."""
    absolute = path.absolute()
    for way in (absolute, absolute.resolve()):
        for step in (*reversed(way.parents), way):
            try:
                found = os.lstat(step)
            except OSError:
                break
            if found.st_uid != ROOT:
                return found.st_uid, found.st_gid
    return ROOT, ROOT


def _become(user: int, group: int, groups: list[int]) -> None:
    group = group or user  # a number that is nobody's does as well as root's
    os.setgroups([one for one in groups if one != ROOT])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    os.environ.update(_home_of(user))


def _home_of(user: int) -> dict[str, str]:
    """Where programs look for files of their user: not in root's home any more."""
    try:
        entry = pwd.getpwuid(user)
    except KeyError:
        return {"HOME": "/"}
    return {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}


def no_new_privileges() -> None:
    """No program that is called gains rights by its file (prctl(2)). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def user_name(uid: int) -> str:
    """For a sentence."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)

"""What can be wrong with the place where mail is kept, and what is said of it: one table of words, answers and exit codes.

A fault is known by the error number of the system, or by what SQLite says (`sqlite` translates). Nothing else decides about an
answer: a disk that fails is not told as a full one, and one that is full not as an error of the program.
"""

import errno
import os

from msgspec import Struct

from fubako.message.status import Status


class Fault(Struct, frozen=True, kw_only=True):
    """`status`: the SMTP reply (RFC 3463); `imap`: a response code (RFC 5530); `pop3`: one of RFC 2449 and RFC 3206; `words`: for a
    peer; `remedy`: for an administrator, may be empty; `exit_code`: of a command, from sysexits.h."""

    status: Status
    imap: str
    pop3: str
    remedy: str
    exit_code: int

    @property
    def words(self) -> str:
        return self.status.text


def _fault(
    code: int, enhanced: str, words: str, *, imap: str, pop3: str = "SYS/TEMP", exit_code: int, remedy: str = ""
) -> Fault:
    return Fault(status=Status(code, enhanced, words), imap=imap, pop3=pop3, remedy=remedy, exit_code=exit_code)


NO_ROOM = _fault(
    452, "4.3.1", "no room, try again later", imap="OVERQUOTA", exit_code=os.EX_IOERR,
    remedy="make room on the disk; `fubako store compact` gives back what removed messages held",
)  # fmt: skip
DISK_FAILED = _fault(
    451, "4.3.0", "the disk fails, try again later", imap="CONTACTADMIN", pop3="SYS/PERM", exit_code=os.EX_IOERR,
    remedy="look at the log of the kernel and at the disk, then run `fubako store verify`",
)  # fmt: skip
NO_FILES = _fault(
    451, "4.3.0", "too much is open at once, try again later", imap="UNAVAILABLE", exit_code=os.EX_OSERR,
    remedy="allow more open files (LimitNOFILE= of the unit, `ulimit -n`), or fewer connections (limits.connections)",
)  # fmt: skip
NO_MEMORY = _fault(
    451, "4.3.0", "no memory, try again later", imap="UNAVAILABLE", exit_code=os.EX_OSERR,
    remedy="allow more memory, or fewer connections (limits.connections)",
)  # fmt: skip
READ_ONLY = _fault(
    451, "4.3.2", "the store cannot be written to, try again later", imap="CONTACTADMIN", exit_code=os.EX_CANTCREAT,
    remedy="the file system, or the file, is read-only: mount it for writing, or look why the kernel made it read-only",
)  # fmt: skip
NOT_PERMITTED = _fault(
    451, "4.3.5", "the store cannot be used, try again later", imap="CONTACTADMIN", pop3="SYS/PERM", exit_code=os.EX_NOPERM,
    remedy="the store has to belong to the user of the server: `chown -hR USER: DIRECTORY` while no server runs",
)  # fmt: skip
BUSY = _fault(
    451, "4.3.2", "the store is busy, try again later", imap="INUSE", exit_code=os.EX_TEMPFAIL,
    remedy="another program holds the database: end it (`fuser -v mail.sqlite` names it)",
)  # fmt: skip
IN_USE = _fault(
    451, "4.3.2", "the store is in use, try again later", imap="INUSE", exit_code=os.EX_UNAVAILABLE,
    remedy="stop the other server first",
)  # fmt: skip
MALFORMED = _fault(
    451, "4.3.0", "the store is damaged, try again later", imap="CONTACTADMIN", pop3="SYS/PERM", exit_code=os.EX_DATAERR,
    remedy="`fubako store verify` says how far it can be read; a copy made by `fubako store backup` can stand in its place",
)  # fmt: skip
DAMAGED = _fault(
    451, "4.3.0", "the message is damaged where it is kept", imap="SERVERBUG", pop3="SYS/PERM", exit_code=os.EX_DATAERR,
    remedy="`fubako store verify` says which messages are; a copy made by `fubako store backup` may have them whole",
)  # fmt: skip
MISSING = _fault(
    451, "4.3.5", "the store is not there, try again later", imap="CONTACTADMIN", pop3="SYS/PERM", exit_code=os.EX_NOINPUT,
    remedy="mount what it lies on, or put a copy made by `fubako store backup` in its place",
)  # fmt: skip
NEWER = _fault(
    451, "4.3.5", "the store cannot be used, try again later", imap="CONTACTADMIN", pop3="SYS/PERM", exit_code=os.EX_CONFIG,
    remedy="start the newer Fubako, or go back to a copy made before (`fubako store migrate --back`)",
)  # fmt: skip

OUTDATED = _fault(
    451, "4.3.5", "the store cannot be used, try again later", imap="CONTACTADMIN", pop3="SYS/PERM", exit_code=os.EX_CONFIG,
    remedy="stop the server and start this Fubako, or run `fubako store migrate` meanwhile",
)  # fmt: skip

_BY_ERRNO = {
    errno.ENOSPC: NO_ROOM,
    errno.EDQUOT: NO_ROOM,
    errno.EFBIG: NO_ROOM,
    errno.EIO: DISK_FAILED,
    errno.EMFILE: NO_FILES,
    errno.ENFILE: NO_FILES,
    errno.ENOMEM: NO_MEMORY,
    errno.EROFS: READ_ONLY,
    errno.EACCES: NOT_PERMITTED,
    errno.EPERM: NOT_PERMITTED,
    errno.ENOENT: MISSING,
    errno.ENOTDIR: MISSING,
    errno.EISDIR: MISSING,
    errno.ESTALE: MISSING,
    errno.EAGAIN: BUSY,
    errno.EBUSY: BUSY,
    errno.ETXTBSY: BUSY,
}


def of_errno(code: int | None) -> Fault:
    """What nobody knows is a disk that fails: a person has to look."""
    return _BY_ERRNO.get(code or 0, DISK_FAILED)

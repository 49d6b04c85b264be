"""A program as the next hop: an argument vector, never a shell; the letter on its standard input; its exit code is the answer.

Exit codes are those of sysexits.h; qmail's 100 and 111 are known too.
"""

import errno
import fcntl
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from fubako import modes
from fubako.delivery.route import Route
from fubako.message.status import Status
from fubako.message.target import File, Handed, Program
from fubako.message.trace import from_line_date
from fubako.net import become
from fubako.spawn import launcher
from fubako.spawn.commands import DELIVERY_SECONDS, arguments
from fubako.spawn.requests import Append, Handover, PasswordCommand
from fubako.store.interface import BlobRef
from fubako.store.queue import Outgoing, Queued

SAID_OCTETS_MAX = 2000
LOCK_SECONDS = 60.0  # for the locks of a file that another program writes
LOCK_GAP_SECONDS = 0.2  # between two tries

_FROM_LINE = re.compile(rb"^(>*From )", re.MULTILINE)
_EXITS = {
    0: Status(250, "2.0.0", "taken by the program"),
    64: Status(554, "5.3.5", "the program says that it was called wrongly"),
    65: Status(554, "5.6.0", "the program says that the letter is malformed"),
    67: Status(550, "5.1.1", "the program says that there is no such user"),
    68: Status(550, "5.1.2", "the program says that there is no such host"),
    69: Status(554, "5.3.0", "the program says that it is not available"),
    70: Status(554, "5.3.0", "the program had an internal error"),
    77: Status(554, "5.7.0", "the program was not permitted"),
    100: Status(554, "5.3.0", "the program refused the letter"),
}


def ways(route: Route, recipients: Sequence[Queued]) -> list[tuple[Handed, Sequence[Queued]]]:
    """Programs and files, and who goes with each: a route's program that names a recipient is run for each; what an alias leads
    to is each recipient's own."""
    if not route.program:
        return [(one.target, [one]) for one in recipients if one.target is not None]
    program = Program(route.program, route.run_as)
    if any("{recipient}" in word for word in route.program):
        return [(program, [one]) for one in recipients]
    return [(program, recipients)]


async def hand(target: Handed, letter: Outgoing, recipients: Sequence[Queued], content: bytes) -> Status:
    """One message to a program or a file, as the user who is named with it."""
    try:
        if isinstance(target, Program):
            return await run(target, letter, recipients, content)
        return await _append(target, letter, content)
    except become.NotAllowed as error:
        return Status(451, "4.3.5", str(error))


async def _append(file: File, letter: Outgoing, content: bytes) -> Status:
    """By a process of the file's user, who alone decides what may be opened. Raises become.NotAllowed."""
    request = Append(file=file, sender=letter.sender, created=letter.created, trace_id=letter.trace_id)
    try:
        code, said, _ = await launcher.run(request, content)
        status = msgspec.json.decode(said, type=Status) if code == 0 else None
    except (OSError, TimeoutError, msgspec.DecodeError) as error:
        return Status(451, "4.2.0", f"{file.path} cannot be written: {error}")
    return status or Status(451, "4.2.0", f"{file.path} cannot be written as {file.user or 'the server'}")


class _Locked(Exception):
    """Another program has held the locks of a file for all of LOCK_SECONDS."""


def append(path: str, letter: Outgoing, content: bytes, pause: Callable[[float], None] = time.sleep) -> Status:
    """To the end of a file in mbox form, synced and under both locks; or into a Maildir when the path ends with a slash.

    Blocks, for the locks at most LOCK_SECONDS; `pause` waits so many seconds between two tries. What is no file of octets (a
    FIFO, a device, a socket) is neither waited for nor written to."""
    try:
        if path.endswith("/"):
            return _into_maildir(Path(path), letter, content)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        fd = os.open(path, flags, modes.FILE)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return Status(550, "5.2.0", f"{path} is no file")
            _lock(fd, pause)
            _to_the_end(fd, letter, content)
        finally:
            os.close(fd)
    except _Locked:
        return Status(451, "4.2.0", f"{path} is locked by another program")
    except OSError as error:
        if error.errno == errno.ENXIO:  # a FIFO that nobody reads, or a socket
            return Status(550, "5.2.0", f"{path} is no file")
        return Status(451, "4.2.0", f"{path} cannot be written: {error.strerror}")
    return Status(250, "2.0.0", "in the file")


def _lock(fd: int, pause: Callable[[float], None]) -> None:
    """Both kinds of lock. Raises _Locked, OSError."""
    tries = int(LOCK_SECONDS / LOCK_GAP_SECONDS)
    for lock in (fcntl.flock, fcntl.lockf):
        while True:
            try:
                lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
            if not tries:
                raise _Locked
            tries -= 1
            pause(LOCK_GAP_SECONDS)


def _to_the_end(fd: int, letter: Outgoing, content: bytes) -> None:
    """One message in mbox form, or nothing of it. Raises OSError."""
    size = os.fstat(fd).st_size
    head = f"From {letter.sender or 'MAILER-DAEMON'} {from_line_date(letter.created)}\n".encode()
    body = _FROM_LINE.sub(rb">\1", content.replace(b"\r\n", b"\n"))
    whole = head + body + (b"\n" if body.endswith(b"\n") else b"\n\n")
    try:
        while whole:
            whole = whole[os.write(fd, whole) :]
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, size)
        raise


def _into_maildir(folder: Path, letter: Outgoing, content: bytes) -> Status:
    """Raises OSError."""
    for part in ("tmp", "new", "cur"):
        modes.folder(folder / part)
    name = f"{letter.created}.{letter.trace_id}.fubako"
    with modes.create(folder / "tmp" / name) as file:
        file.write(content.replace(b"\r\n", b"\n"))
        file.flush()
        os.fsync(file.fileno())
    os.rename(folder / "tmp" / name, folder / "new" / name)
    fd = os.open(folder / "new", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return Status(250, "2.0.0", "in the Maildir")


async def run(program: Program, letter: Outgoing, recipients: Sequence[Queued], content: bytes) -> Status:
    """One message to one program, with LF line ends and a `From ` line in front, as rmail and MDAs expect it. `SENDER` and
    `RECIPIENT` are in its environment, of which nothing else is ours. Raises become.NotAllowed."""
    addresses = tuple(one.address for one in recipients)
    request = Handover(program=program, sender=letter.sender, recipients=addresses)
    try:
        arguments(program.words, letter.sender, addresses)
    except ValueError as error:
        return Status(550, "5.1.3", str(error))
    from_line = f"From {letter.sender or 'MAILER-DAEMON'} {from_line_date(letter.created)}\n".encode()
    given = from_line + content.replace(b"\r\n", b"\n")
    name = program.words[0]
    try:
        code, _, said = await launcher.run(request, given)
    except TimeoutError:
        return Status(451, "4.3.0", f"{name} took longer than {DELIVERY_SECONDS:.0f} seconds")
    except OSError as error:
        return Status(451, "4.3.0", f"{name} cannot be started: {error.strerror or error}")
    return outcome(code, said[:SAID_OCTETS_MAX].decode("utf-8", "replace"))


async def output(route: Route) -> str:
    """The first line that the password command of a route writes. Raises OSError."""
    name = route.password_command[0]
    try:
        code, said, _ = await launcher.run(PasswordCommand(route.password_command, route.run_as))
    except TimeoutError:
        raise OSError(f"{name} takes too long") from None
    except become.NotAllowed as error:
        raise OSError(str(error)) from None
    if code or not said:
        raise OSError(f"{name} ended with {code} and wrote {'something' if said else 'nothing'}")
    return said.partition(b"\n")[0].decode()


def outcome(code: int, said: str) -> Status:
    """An exit code as a status; what is neither success nor known to be final is tried again."""
    status = _EXITS.get(code, Status(451, "4.3.0", f"the program ended with {code}"))
    words = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    return Status(status.code, status.enhanced, f"{status.text}: {words}" if words and not status.ok else status.text)


def _as_a_process() -> None:
    """`python -m fubako.delivery.pipe USER PATH SENDER CREATED TRACE_ID`: what an Append starts; the content on standard input.
    An empty USER is ours already. Everything is loaded before root is given up: our own files may be out of that user's reach."""
    user, path, sender, created, trace_id = sys.argv[1:6]
    if user:
        become.become(user)
    letter = Outgoing(BlobRef(0, 0, 0, 0), sender, trace_id=trace_id, created=int(created))
    status = append(path, letter, sys.stdin.buffer.read())
    sys.stdout.buffer.write(msgspec.json.encode(status))


if __name__ == "__main__":
    _as_a_process()

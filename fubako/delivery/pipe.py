"""A program as the next hop: an argument vector, never a shell; the letter on its standard input; its exit code is the answer.

Exit codes are those of sysexits.h; qmail's 100 and 111 are known too.
"""

import fcntl
import os
import re
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path

from fubako.message.status import Status
from fubako.message.trace import from_line_date
from fubako.net.program import talk
from fubako.store.queue import Outgoing, Queued

PROGRAM_SECONDS = 600.0
OUTPUT_SECONDS = 30.0
SAID_OCTETS_MAX = 2000

_FROM_LINE = re.compile(rb"^(>*From )", re.MULTILINE)
_BLANK = re.compile(r"\{sender\}|\{recipient\}")
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


def arguments(program: Sequence[str], sender: str, recipients: Sequence[str]) -> list[str]:
    """`{sender}`, `{recipient}` (one) and the word `{recipients}` (each a word of its own) are filled in.
    A recipient that begins with a hyphen would be read as an option: it is refused. Raises ValueError."""
    if any(one.startswith("-") for one in (sender, *recipients)):
        raise ValueError("an address that begins with a hyphen is not given to a program")
    values = {"{sender}": sender, "{recipient}": recipients[0]}
    words: list[str] = []
    for word in program:
        if word == "{recipients}":
            words += recipients
        else:
            words.append(_BLANK.sub(lambda match: values[match.group()], word))
    return words


def ways(program: Sequence[str], recipients: Sequence[Queued]) -> list[tuple[Sequence[str], Sequence[Queued]]]:
    """Programs and who goes with each: one that names a recipient is run for each; an alias brings its own (`|program words`)."""
    if not program:
        return [(_own_program(one.address), [one]) for one in recipients]
    if any("{recipient}" in word for word in program):
        return [(program, [one]) for one in recipients]
    return [(program, recipients)]


def _own_program(target: str) -> Sequence[str]:
    try:
        return shlex.split(target.removeprefix("|")) or [target]
    except ValueError:
        return [target]


def append(path: str, letter: Outgoing, content: bytes) -> Status:
    """To the end of a file in mbox form, synced and under both locks; or into a Maildir when the path ends with a slash. Blocks."""
    try:
        if path.endswith("/"):
            return _into_maildir(Path(path), letter, content)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return Status(550, "5.2.0", f"{path} is no file")
            fcntl.flock(fd, fcntl.LOCK_EX)
            fcntl.lockf(fd, fcntl.LOCK_EX)
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
        finally:
            os.close(fd)
    except OSError as error:
        return Status(451, "4.2.0", f"{path} cannot be written: {error.strerror}")
    return Status(250, "2.0.0", "in the file")


def _into_maildir(folder: Path, letter: Outgoing, content: bytes) -> Status:
    """Raises OSError."""
    for part in ("tmp", "new", "cur"):
        (folder / part).mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"{letter.created}.{letter.trace_id}.fubako"
    with open(folder / "tmp" / name, "wb") as file:
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


async def run(program: Sequence[str], letter: Outgoing, recipients: Sequence[Queued], content: bytes) -> Status:
    """One letter to one program, with LF line ends and a `From ` line in front, as rmail and MDAs expect it."""
    try:
        words = arguments(program, letter.sender, [one.address for one in recipients])
    except ValueError as error:
        return Status(550, "5.1.3", str(error))
    from_line = f"From {letter.sender or 'MAILER-DAEMON'} {from_line_date(letter.created)}\n".encode()
    try:
        code, _, said = await talk(words, from_line + content.replace(b"\r\n", b"\n"), PROGRAM_SECONDS)
    except TimeoutError:
        return Status(451, "4.3.0", f"{words[0]} took longer than {PROGRAM_SECONDS:.0f} seconds")
    except OSError as error:
        return Status(451, "4.3.0", f"{words[0]} cannot be started: {error.strerror}")
    return outcome(code, said[:SAID_OCTETS_MAX].decode("utf-8", "replace"))


async def output(program: Sequence[str]) -> str:
    """The first line that a program writes. Raises OSError."""
    try:
        code, said, _ = await talk(program, b"", OUTPUT_SECONDS)
    except TimeoutError:
        raise OSError(f"{program[0]} takes too long") from None
    if code or not said:
        raise OSError(f"{program[0]} ended with {code} and wrote {'something' if said else 'nothing'}")
    return said.partition(b"\n")[0].decode()


def outcome(code: int, said: str) -> Status:
    """An exit code as a status; what is neither success nor known to be final is tried again."""
    status = _EXITS.get(code, Status(451, "4.3.0", f"the program ended with {code}"))
    words = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    return Status(status.code, status.enhanced, f"{status.text}: {words}" if words and not status.ok else status.text)

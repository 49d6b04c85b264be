"""A program as the next hop: an argument vector, never a shell; the letter on its standard input; its exit code is the answer.

Exit codes are those of sysexits.h; qmail's 100 and 111 are known too.
"""

import asyncio
import re
from collections.abc import Sequence

from fubako.message.status import Status
from fubako.message.trace import from_line_date
from fubako.store.queue import Outgoing, Queued

PROGRAM_SECONDS = 600.0
SAID_OCTETS_MAX = 2000

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


def groups(program: Sequence[str], recipients: Sequence[Queued]) -> list[Sequence[Queued]]:
    """Who goes together: a program that names one recipient is run for each."""
    if any("{recipient}" in word for word in program):
        return [[one] for one in recipients]
    return [recipients]


async def run(program: Sequence[str], letter: Outgoing, recipients: Sequence[Queued], content: bytes) -> Status:
    """One letter to one program, with LF line ends and a `From ` line in front, as rmail and MDAs expect it."""
    try:
        words = arguments(program, letter.sender, [one.address for one in recipients])
    except ValueError as error:
        return Status(550, "5.1.3", str(error))
    from_line = f"From {letter.sender or 'MAILER-DAEMON'} {from_line_date(letter.created)}\n".encode()
    try:
        process = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
    except OSError as error:
        return Status(451, "4.3.0", f"{words[0]} cannot be started: {error.strerror}")
    try:
        async with asyncio.timeout(PROGRAM_SECONDS):
            _, said = await process.communicate(from_line + content.replace(b"\r\n", b"\n"))
    except TimeoutError:
        process.kill()
        await process.wait()
        return Status(451, "4.3.0", f"{words[0]} took longer than {PROGRAM_SECONDS:.0f} seconds")
    return outcome(process.returncode or 0, said[:SAID_OCTETS_MAX].decode("utf-8", "replace"))


def outcome(code: int, said: str) -> Status:
    """An exit code as a status; what is neither success nor known to be final is tried again."""
    status = _EXITS.get(code, Status(451, "4.3.0", f"the program ended with {code}"))
    words = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    return Status(status.code, status.enhanced, f"{status.text}: {words}" if words and not status.ok else status.text)

"""The outbox: letters that were taken and are not yet with a server. A file with its envelope and a file with its content each;
what is there is durable, and survives whatever happens to the program."""

import fcntl
import json
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fubako import modes
from fubako.client.connection import ClientError
from fubako.client.smtp import SmtpConnection
from fubako.message.address import NULL, Address, parse_address
from fubako.message.status import Status
from fubako.message.trace import from_line_date
from fubako.trust.authority import write_private


@dataclass(frozen=True, slots=True)
class Waiting:
    """One letter. `refused`: recipients that will not get it, and why; `problem`: what happened at the last attempt."""

    number: str
    account: str
    sender: str
    recipients: tuple[str, ...]
    created: int
    sealed: bool = False
    attempts: int = 0
    problem: str = ""
    held: bool = False  # the server refused it for good: it is not tried again until somebody says so
    refused: tuple[tuple[str, str], ...] = ()
    sent: bool = False  # everybody has it; only the copy for the sender is missing


class Outbox:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        modes.folder(folder)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One program empties it at a time; another one waits."""
        with open(self._folder / ".lock", "wb", opener=modes.opener) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def put(self, letter: Waiting, content: bytes) -> None:
        """Durable on return; the content first, so that there is never an envelope without one."""
        write_private(self._folder / f"{letter.number}.eml", content)
        self.change(letter)

    def change(self, letter: Waiting) -> None:
        write_private(self._folder / f"{letter.number}.json", json.dumps(asdict(letter)).encode())

    def all(self) -> list[Waiting]:
        """Oldest first."""
        found = []
        for path in self._folder.glob("*.json"):
            facts = json.loads(path.read_text())
            refused = tuple((name, why) for name, why in facts["refused"])
            found.append(Waiting(**{**facts, "recipients": tuple(facts["recipients"]), "refused": refused}))
        return sorted(found, key=lambda one: (one.created, one.number))

    def content(self, letter: Waiting) -> bytes:
        return (self._folder / f"{letter.number}.eml").read_bytes()

    def drop(self, letter: Waiting) -> None:
        """The envelope first: a content alone is nobody's, and is removed the next time."""
        (self._folder / f"{letter.number}.json").unlink(missing_ok=True)
        (self._folder / f"{letter.number}.eml").unlink(missing_ok=True)
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a letter: nothing set when everybody has it. `held`: why it will never be taken; `later`: why it waits."""

    held: str = ""
    later: str = ""
    refused: tuple[tuple[str, str], ...] = ()


async def settle(
    outbox: Outbox,
    carry: Callable[[Waiting, bytes], Awaitable[Waiting | None]],
    letter: Waiting,
    *,
    copied: bool = False,
) -> Settled:
    """One letter, by `hand_over` or a program, and the outbox says what became of it. `copied`: it stays there as sent, until
    its copy is kept: that one fails can never send it twice."""
    try:
        left = await carry(letter, outbox.content(letter))
    except ClientError as error:
        outbox.change(replace(letter, attempts=letter.attempts + 1, problem=str(error), held=True))
        return Settled(held=str(error))
    if left is not None and left.recipients:
        outbox.change(replace(left, attempts=letter.attempts + 1))
        return Settled(later=left.problem)
    refused = left.refused if left is not None else ()
    if copied:
        outbox.change(replace(letter, recipients=(), refused=refused, sent=True, problem=""))
    else:
        outbox.drop(letter)
    return Settled(refused=refused)


_LATER = (71, 74, 75, 126, 127, 255)  # the machine's troubles (sysexits.h), no such program there, ssh itself


def from_line(letter: Waiting, now: float) -> bytes:
    """`From sender date remote from host`, as rmail and uux want it first (RFC 976)."""
    host = letter.sender.rpartition("@")[2] or "localhost"
    return f"From {letter.sender or 'MAILER-DAEMON'} {from_line_date(now)} remote from {host}\n".encode()


async def by_program(
    run: Callable[[bytes], Awaitable[tuple[int, bytes]]], letter: Waiting, content: bytes, first: bytes
) -> None:
    """A letter to a program, which answers with its exit code. Raises ClientError for what is final, Postponed for what is not."""
    if letter.sealed:
        raise ClientError("a program promises nothing of the rest of the way (REQUIRETLS); nothing was given to it")
    code, wrong = await run(first + content.replace(b"\r\n", b"\n"))
    if code:
        said = wrong.decode("utf-8", "replace").strip().splitlines()[-1:]
        text = f"the program ended with {code}{': ' + said[0][:200] if said else ''}"
        raise Postponed(text) if code in _LATER else ClientError(text)


class Postponed(Exception):
    """Not now; the message says why."""


async def hand_over(connection: SmtpConnection, letter: Waiting, content: bytes) -> Waiting | None:
    """One letter to a server: None when every recipient was settled, else what is left for later. Raises ClientError for a
    letter that the server will never take."""
    parameters = [f"SIZE={len(content)}"] if "SIZE" in connection.extensions else []
    addresses = [parse_address(one) for one in letter.recipients]
    sender = parse_address(letter.sender) if letter.sender else NULL
    if letter.sealed:
        if "REQUIRETLS" not in connection.extensions:
            raise ClientError(
                "the server does not promise to keep the letter sealed (REQUIRETLS, RFC 8689); nothing was sent"
            )
        parameters.append("REQUIRETLS")
    if not content.isascii():
        if "8BITMIME" not in connection.extensions:
            raise ClientError("the server takes only letters in ASCII, and this one is not")
        parameters.append("BODY=8BITMIME")
    if not _ascii((sender, *addresses)):
        if "SMTPUTF8" not in connection.extensions:
            raise ClientError("the server takes no addresses beyond ASCII")
        parameters.append("SMTPUTF8")
    connection.engine.mail(sender, parameters)
    status = await connection.heard()
    if not status.ok:
        return _later(letter, letter.recipients, letter.refused, status)
    taken, refused, later = [], list(letter.refused), []
    for text, address in zip(letter.recipients, addresses, strict=True):
        connection.engine.rcpt(address)
        status = await connection.heard()
        if status.ok:
            taken.append(text)
        elif status.code < 500:
            later.append((text, status))
        else:
            refused.append((text, str(status)))
    if taken:
        connection.engine.command("DATA")
        status = await connection.heard()
        if status.code == 354:
            connection.engine.content(content)
            status = await connection.heard()
        if not status.ok:
            return _later(letter, [*taken, *(text for text, _ in later)], refused, status)
    else:
        connection.engine.command("RSET")
        await connection.heard()
    if later:
        return _later(letter, [text for text, _ in later], refused, later[0][1])
    return replace(letter, recipients=(), refused=tuple(refused)) if refused else None


def _ascii(addresses: Iterable[Address]) -> bool:
    return all(one.ascii for one in addresses)


def _later(letter: Waiting, recipients: Sequence[str], refused: Sequence[tuple[str, str]], status: Status) -> Waiting:
    """Raises ClientError for what is final."""
    if status.code >= 500:
        raise ClientError(f"the server refused the letter: {status}")
    return replace(letter, recipients=tuple(recipients), refused=tuple(refused), problem=str(status))

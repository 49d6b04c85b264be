"""How a letter leaves: by whose account, and by its server, a program, or a command on another machine."""

import re
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

from fubako.client.connection import ClientError
from fubako.client.outbox import Postponed, Waiting, by_program, from_line, hand_over
from fubako.client.roads import Roads
from fubako.client.settings import BLANK, Account
from fubako.client.smtp import SmtpConnection
from fubako.message.hop import Hop
from fubako.net.program import talk

PROGRAM_SECONDS = 300.0
Carry = Callable[[Waiting, bytes], Awaitable[Waiting | None]]


def is_for(account: Account, address: str) -> bool:
    """Whether an account is there to send as this author."""
    names = {account.user.lower(), *map(str.lower, account.identities)}
    return address.lower() in names or f"*@{address.lower().rpartition('@')[2]}" in names


def account_of(accounts: Sequence[Account], author: str) -> Account:
    """The first account that names the author; else the first that has the domain; else the first."""
    exact = [one for one in accounts if author.lower() in (one.user.lower(), *map(str.lower, one.identities))]
    return next((one for one in (*exact, *accounts) if author and is_for(one, author)), accounts[0])


@asynccontextmanager
async def carrier(roads: Roads, account: Account) -> AsyncIterator[tuple[Carry, Hop | None]]:
    """What takes letters, for `settle`, and the leg to the server where there is one. Raises as `Roads.ready`; a carry raises
    ClientError for what is final, Postponed for what is not."""
    if account.program or (account.ssh_command and "%T" in account.ssh_command):
        yield partial(_by_program, roads, account), None
        return
    async with roads.ready(account) as connection:
        if not isinstance(connection, SmtpConnection):
            raise ClientError(f"{account.name} is no account to send by")
        yield partial(hand_over, connection), connection.hop()
        await connection.quit()


async def _by_program(roads: Roads, account: Account, letter: Waiting, content: bytes) -> None:
    if any(one.startswith("-") or not one.isprintable() for one in (*letter.recipients, letter.sender)):
        raise ClientError(
            "an address that begins with - would be an option of the program; control characters are none of its"
        )
    first = from_line(letter, letter.created) if account.from_line else b""

    async def here(given: bytes) -> tuple[int, bytes]:
        words = arguments(account.program, letter.sender, letter.recipients)
        try:
            code, _, wrong = await talk(words, given, PROGRAM_SECONDS)
        except (OSError, TimeoutError) as error:
            raise Postponed(f"{words[0]}: {error or 'it took too long'}") from None
        return code, wrong

    async def there(given: bytes) -> tuple[int, bytes]:
        command = command_there(account.ssh_command, letter.sender, letter.recipients)
        try:
            return await roads.run_by_ssh(account, command, given, PROGRAM_SECONDS)
        except ClientError as error:  # the way there, not the letter
            raise Postponed(str(error)) from None

    await by_program(here if account.program else there, letter, content, first)


def arguments(program: Sequence[str], sender: str, recipients: Sequence[str]) -> list[str]:
    """A word with %T stands once for each recipient. All is filled in at once: an address may hold %T itself."""
    return [
        BLANK.sub(partial(_value, sender, recipient), word)
        for word in program
        for recipient in (recipients if "%T" in word else ("",))
    ]


def _value(sender: str, recipients: str, blank: re.Match[str]) -> str:
    return recipients if blank.group() == "%T" else sender


def command_there(command: str, sender: str, recipients: Sequence[str]) -> str:
    """For the shell of another machine: each address is one word of it (`settings.blanks_are_words`)."""
    people = " ".join(map(shlex.quote, recipients))
    return BLANK.sub(partial(_value, shlex.quote(sender), people), command)

"""`fubako send`: a letter into the outbox, and from there to a submission server."""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from fubako import app
from fubako.cli.configured import json_option
from fubako.cli.exits import DATAERR, TEMPFAIL, USAGE
from fubako.cli.troubles import TROUBLES
from fubako.cli.trusting import known_peers, telling, transcript_option
from fubako.client import settings
from fubako.client.handing import Carry, account_of, carrier, is_for
from fubako.client.imap import ImapConnection
from fubako.client.mailbox import OpenMailbox
from fubako.client.outbox import Outbox, Postponed, Waiting, settle
from fubako.client.places import Fetched, Maildir
from fubako.client.roads import Roads
from fubako.client.settings import Account, SettingsError
from fubako.clock import Env
from fubako.message import compose
from fubako.message.address import Address, AddressError, parse_address
from fubako.message.trace import mail_date
from fubako.protocol.imap import utf7
from fubako.telemetry import visible

_NOT_NOW: tuple[type[Exception], ...] = (*TROUBLES, Postponed)
LETTER_OCTETS_MAX = 100 * 1024 * 1024


@click.command()
@click.argument("recipients", nargs=-1)
@click.option("-a", "--account", "name", default="", help="The account of protocol smtp; the first one when not given.")
@click.option(
    "--accounts",
    "accounts_file",
    type=click.Path(path_type=Path),
    help="accounts.toml; in ~/.config/fubako when not given.",
)
@click.option("-t", "from_header", is_flag=True, help="Also to whom To, Cc and Bcc name.")
@click.option(
    "-f", "--from", "sender", default="", metavar="ADDRESS", help="The sender; the account's user when not given."
)
@click.option("-s", "--subject", default="", help="A Subject, where standard input is only a text.")
@click.option(
    "--sealed", is_flag=True, help="Only if every server on the way promises to keep it encrypted (REQUIRETLS)."
)
@click.option("--now", is_flag=True, help="Exit code 75 where the letter had to stay in the outbox.")
@click.option("--flush", is_flag=True, help="Take no letter; try what is in the outbox.")
@click.option(
    "--direct", "directly", is_flag=True, help="To the mail servers of each recipient's domain, without an account."
)
@click.option("--hello", default="", help="With --direct: the name that this machine says it has.")
@click.option("--dns", multiple=True, metavar="HOST:PORT", help="With --direct: ask this resolver.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=25, show_default=True, help="With --direct: where servers listen."
)
@transcript_option
@click.option("--list", "listed", is_flag=True, help="Take no letter; show what is in the outbox.")
@json_option
def send(
    recipients: tuple[str, ...], name: str, accounts_file: Path | None, from_header: bool, sender: str, subject: str, sealed: bool,
    now: bool, flush: bool, directly: bool, hello: str, dns: tuple[str, ...], port: int, transcript: str,
    listed: bool, as_json: bool,
) -> int:  # fmt: skip
    """Send the letter on standard input to RECIPIENTS.

    \b
    ~/.config/fubako/accounts.toml:
      [[account]]
      name = "out"
      protocol = "smtp"
      host = "mail.example.org"          # tls = "implicit" (465) when nothing is said; or starttls (587)
      user = "ann@example.org"
      password_file = "~/.secrets/out"

    It is in the outbox, durably, before anything is tried; what cannot be sent now stays there for `fubako send --flush`.
    Nothing is said to a server that was not believed, and nothing without TLS.

    --direct asks DNS for the servers, and trusts as a server does: DANE, MTA-STS, what a server could do before. It has a queue of
    its own, in ~/.config/fubako/direct; `fubako queue list --config ~/.config/fubako/direct/fubako.toml` shows it.

    Exit codes: 0 it was sent, or is in the outbox; 65 the server will never take it; with --now 75 it had to wait.
    """
    outbox = Outbox(settings.home() / "outbox")
    if listed:
        return _list(outbox, as_json=as_json)
    if directly:
        return _direct(
            recipients,
            from_header,
            sender,
            subject,
            Directly(hello, dns, port),
            sealed=sealed,
            now=now,
            flush=flush,
            as_json=as_json,
        )
    every = settings.load(accounts_file or settings.home() / "accounts.toml")
    accounts = [one for one in every if one.protocol == "smtp"]
    if (name and not any(one.name == name for one in accounts)) or not accounts:
        raise SettingsError(f"there is no account of protocol smtp{f' called {name}' if name else ''}")
    if not flush:
        made = _taken(
            outbox, accounts, name, recipients, from_header=from_header, sender=sender, subject=subject, sealed=sealed
        )
        if made:
            return made
    with outbox.alone():
        return app.run(_emptied(outbox, every, now=now, flush=flush, tell=telling(transcript)))


def _identity(accounts: list[Account], name: str, sender: str, letter: compose.Draft) -> tuple[Account, str]:
    """The account of a letter, and its sender: what is named, else by whom it says it is, else the first one."""
    author = sender or str(_author(letter) or "")
    given = next((one for one in accounts if one.name == name), None) or account_of(accounts, author)
    return given, sender or (author if author and is_for(given, author) else given.user)


@dataclass(frozen=True, slots=True)
class Directly:
    hello: str
    dns: tuple[str, ...]
    port: int


def _direct(
    given: tuple[str, ...], from_header: bool, sender: str, subject: str, how: Directly, *, sealed: bool, now: bool, flush: bool,
    as_json: bool,
) -> int:  # fmt: skip
    from fubako.cli import direct  # the server's half, for who asks for it

    folder = settings.home() / "direct"
    config = direct.configuration(folder, how.hello, how.dns, how.port)
    letter = None
    if not flush:
        octets = _read()
        if isinstance(octets, int):
            return octets
        draft = compose.draft(octets)
        made = _made(draft, sender or str(_author(draft) or ""), given, from_header=from_header, subject=subject)
        if isinstance(made, int):
            return made
        letter = direct.Letter(made.sender, made.recipients, made.content, sealed)
    return app.run(direct.send(folder, config, letter, now=now, as_json=as_json))


def _author(letter: compose.Draft) -> Address | None:
    named = compose.recipients(compose.Draft([(b"to", b"To:" + one) for one in letter.values(b"from")]), "")
    return named[0] if named and named[0].domain else None


def _read() -> bytes | int:
    octets = sys.stdin.buffer.read(LETTER_OCTETS_MAX + 1)
    if len(octets) > LETTER_OCTETS_MAX:
        click.echo(f"fubako: the letter is longer than {LETTER_OCTETS_MAX} octets", err=True)
        return DATAERR
    return octets


@dataclass(frozen=True, slots=True)
class Made:
    """A letter as it leaves."""

    number: str
    sender: Address
    recipients: tuple[Address, ...]
    content: bytes
    created: int


def _made(letter: compose.Draft, author: str, given: tuple[str, ...], *, from_header: bool, subject: str) -> Made | int:
    """Or an exit code, with a sentence."""
    env = Env()
    try:
        address = parse_address(author)
        if not address.domain:
            raise AddressError(f"{address or 'nobody'} is no sender without a domain; -f says another one")
        named = [parse_address(one if "@" in one else f"{one}@{address.domain}") for one in given]
    except AddressError as error:
        click.echo(f"fubako: {error}", err=True)
        return USAGE
    if subject and not letter.has(b"subject"):
        if any(c in subject for c in "\r\n\0") or not subject.isascii():
            click.echo(
                "fubako: a subject given here is one line of ASCII; write the header yourself for more", err=True
            )
            return USAGE
        letter.fields.insert(0, (b"subject", f"Subject: {subject}\r\n".encode()))
    recipients = dict.fromkeys([*named, *(compose.recipients(letter, address.domain) if from_header else [])])
    if not recipients:
        click.echo("fubako: there is no recipient", err=True)
        return USAGE
    number, now = env.trace_id(), env.clock.now()
    done = compose.complete(letter, compose.Given(address, "", address.domain, now, number))
    return Made(number, address, tuple(recipients), done.content, int(now))


def _taken(
    outbox: Outbox, accounts: list[Account], name: str, given: tuple[str, ...], *, from_header: bool, sender: str, subject: str,
    sealed: bool,
) -> int:  # fmt: skip
    """The letter is in the outbox; or an exit code, with a sentence."""
    octets = _read()
    if isinstance(octets, int):
        return octets
    draft = compose.draft(octets)
    account, author = _identity(accounts, name, sender, draft)
    made = _made(draft, author, given, from_header=from_header, subject=subject)
    if isinstance(made, int):
        return made
    people = tuple(map(str, made.recipients))
    outbox.put(Waiting(made.number, account.name, str(made.sender), people, made.created, sealed), made.content)
    return 0


async def _emptied(
    outbox: Outbox, every: list[Account], *, now: bool, flush: bool, tell: Callable[[str], None] | None
) -> int:
    """Everything that waits, a connection an account."""
    by_account: defaultdict[str, list[Waiting]] = defaultdict(list)
    for letter in outbox.all():
        if flush or not letter.held:
            by_account[letter.account].append(letter)
    roads, code = Roads(known_peers(), Env(), resolver=app.resolver), 0
    roads.transcript = tell
    kept = Sent(roads, every)
    try:
        for account in (one for one in every if one.protocol == "smtp"):
            letters = by_account.pop(account.name, [])
            if letters:
                code = max(code, await _one(outbox, roads, account, letters, kept))
    finally:
        await roads.close()
    waiting = [letter for letter in outbox.all() if not letter.held]
    return TEMPFAIL if now and not code and waiting else code


class Sent:
    """The copies of what was sent. That one cannot be kept now is no reason to send again: it waits by itself."""

    def __init__(self, roads: Roads, accounts: Sequence[Account]) -> None:
        self._roads = roads
        self._accounts = {one.name: one for one in accounts}

    async def keep(self, outbox: Outbox, account: Account, letter: Waiting) -> None:
        try:
            if account.sent:
                await self._put(account.sent, letter, outbox.content(letter))
        except TROUBLES as error:
            reason = visible(str(error) or type(error).__name__)
            outbox.change(replace(letter, problem=f"sent; its copy could not be kept: {reason}"))
            click.echo(f"fubako: {letter.number} was sent, but its copy could not be kept: {reason}", err=True)
            return
        outbox.drop(letter)

    async def _put(self, where: str, letter: Waiting, content: bytes) -> None:
        if where.startswith("maildir:"):
            folder = Maildir(Path(where.partition(":")[2]).expanduser())  # noqa: ASYNC240 (the user's home)
            await folder.put([Fetched(f"fubako-sent-{letter.number}", content, letter.created)])
            return
        name, _, box = where.partition("/")
        account = self._accounts.get(name)
        if account is None or account.protocol != "imap":
            raise SettingsError(f"sent = {where}: there is no account {name} of protocol imap")
        async with self._roads.ready(account) as connection:
            assert isinstance(connection, ImapConnection)
            await OpenMailbox(connection).append(utf7.encode(box or "Sent"), content, "\\Seen")
            await connection.logout()


async def _one(outbox: Outbox, roads: Roads, account: Account, letters: list[Waiting], kept: Sent) -> int:
    code = 0
    try:
        fresh = [letter for letter in letters if not letter.sent]
        if fresh:
            async with carrier(roads, account) as (carry, _):
                for letter in fresh:
                    code = max(code, await _letter(outbox, carry, letter, copied=bool(account.sent)))
    except _NOT_NOW as error:
        reason = visible(str(error) or type(error).__name__)
        waiting = [one for one in outbox.all() if one.account == account.name and not one.sent]
        for letter in waiting:
            outbox.change(replace(letter, attempts=letter.attempts + 1, problem=reason))
        if waiting:
            click.echo(f"fubako: {account.name}: {reason}; {len(waiting)} in the outbox", err=True)
    for letter in outbox.all():
        if letter.sent and letter.account == account.name:
            await kept.keep(outbox, account, letter)
    return code


async def _letter(outbox: Outbox, carry: Carry, letter: Waiting, *, copied: bool) -> int:
    done = await settle(outbox, carry, letter, copied=copied)
    if done.held:
        click.echo(
            f"fubako: {letter.number}: {visible(done.held)}; it stays in the outbox, and is tried again by --flush",
            err=True,
        )
        return DATAERR
    if done.later:
        click.echo(f"fubako: {letter.number}: {visible(done.later)}; it stays in the outbox", err=True)
        return 0
    for recipient, why in done.refused:
        click.echo(f"fubako: {letter.number}: {visible(recipient)}: {visible(why)}", err=True)
    return DATAERR if done.refused else 0


def _list(outbox: Outbox, *, as_json: bool) -> int:
    for letter in outbox.all():
        facts = {name: getattr(letter, name) for name in Waiting.__slots__}
        if as_json:
            click.echo(json.dumps(facts))
        else:
            what = f"{letter.number} {mail_date(letter.created)} {letter.account}: {', '.join(letter.recipients)}"
            click.echo(visible(f"{what} ({letter.problem or 'not tried yet'})"))
    return 0

"""`fubako send`: a letter into the outbox, and from there to a submission server."""

import json
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import click

from fubako import app
from fubako.cli.configured import json_option
from fubako.cli.exits import DATAERR, TEMPFAIL, USAGE
from fubako.cli.fetching import FAULTS
from fubako.cli.trusting import known_peers
from fubako.client import settings
from fubako.client.outbox import Outbox, Waiting, settle
from fubako.client.roads import Roads
from fubako.client.settings import Account, SettingsError
from fubako.client.smtp import SmtpConnection
from fubako.clock import Env
from fubako.message import compose
from fubako.message.address import AddressError, parse_address
from fubako.message.trace import mail_date
from fubako.telemetry import visible

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
@click.option("--list", "listed", is_flag=True, help="Take no letter; show what is in the outbox.")
@json_option
def send(
    recipients: tuple[str, ...], name: str, accounts_file: Path | None, from_header: bool, sender: str, subject: str, sealed: bool,
    now: bool, flush: bool, listed: bool, as_json: bool,
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

    Exit codes: 0 it was sent, or is in the outbox; 65 the server will never take it; with --now 75 it had to wait.
    """
    outbox = Outbox(settings.home() / "outbox")
    if listed:
        return _list(outbox, as_json=as_json)
    accounts = [
        one for one in settings.load(accounts_file or settings.home() / "accounts.toml") if one.protocol == "smtp"
    ]
    chosen = next((one for one in accounts if one.name == name or not name), None)
    if chosen is None:
        raise SettingsError(f"there is no account of protocol smtp{f' called {name}' if name else ''}")
    if not flush:
        made = _taken(
            outbox, chosen, recipients, from_header=from_header, sender=sender, subject=subject, sealed=sealed
        )
        if made:
            return made
    with outbox.alone():
        return app.run(_emptied(outbox, accounts, now=now, flush=flush))


def _taken(
    outbox: Outbox,
    account: Account,
    given: tuple[str, ...],
    *,
    from_header: bool,
    sender: str,
    subject: str,
    sealed: bool,
) -> int:
    """The letter is in the outbox; or an exit code, with a sentence."""
    env = Env()
    octets = sys.stdin.buffer.read(LETTER_OCTETS_MAX + 1)
    if len(octets) > LETTER_OCTETS_MAX:
        click.echo(f"fubako: the letter is longer than {LETTER_OCTETS_MAX} octets", err=True)
        return DATAERR
    try:
        address = parse_address(sender or account.user)
        if not address.domain:
            raise AddressError(f"{address} is no sender without a domain; -f says another one")
        named = [parse_address(one if "@" in one else f"{one}@{address.domain}") for one in given]
    except AddressError as error:
        click.echo(f"fubako: {error}", err=True)
        return USAGE
    letter = compose.draft(octets)
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
    number = env.trace_id()
    done = compose.complete(letter, compose.Given(address, "", address.domain, env.clock.now(), number))
    waiting = Waiting(number, account.name, str(address), tuple(map(str, recipients)), int(env.clock.now()), sealed)
    outbox.put(waiting, done.content)
    return 0


async def _emptied(outbox: Outbox, accounts: list[Account], *, now: bool, flush: bool) -> int:
    """Everything that waits, a connection an account."""
    by_account: defaultdict[str, list[Waiting]] = defaultdict(list)
    for letter in outbox.all():
        if flush or not letter.held:
            by_account[letter.account].append(letter)
    roads, code = Roads(known_peers(), Env(), resolver=app.resolver), 0
    try:
        for account in accounts:
            letters = by_account.pop(account.name, [])
            if letters:
                code = max(code, await _one(outbox, roads, account, letters))
    finally:
        await roads.close()
    waiting = [letter for letter in outbox.all() if not letter.held]
    return TEMPFAIL if now and not code and waiting else code


async def _one(outbox: Outbox, roads: Roads, account: Account, letters: list[Waiting]) -> int:
    code = 0
    try:
        async with roads.ready(account) as connection:
            assert isinstance(connection, SmtpConnection)
            for letter in letters:
                code = max(code, await _letter(outbox, connection, letter))
            await connection.quit()
    except tuple(kind for kind, _ in FAULTS) as error:
        reason = visible(str(error) or type(error).__name__)
        waiting = [one for one in outbox.all() if one.account == account.name]
        for letter in waiting:
            outbox.change(replace(letter, attempts=letter.attempts + 1, problem=reason))
        if waiting:
            click.echo(f"fubako: {account.name}: {reason}; {len(waiting)} in the outbox", err=True)
    return code


async def _letter(outbox: Outbox, connection: SmtpConnection, letter: Waiting) -> int:
    done = await settle(outbox, connection, letter)
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

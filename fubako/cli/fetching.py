"""`fubako fetch`: letters from elsewhere."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec

from fubako import app
from fubako.cli.configured import json_option
from fubako.cli.troubles import FINAL, TROUBLES, code_of
from fubako.cli.trusting import ask as ask_at_terminal
from fubako.cli.trusting import known_peers, telling, transcript_option
from fubako.client import fetchmailrc, settings
from fubako.client.fetch import Fetcher, Outcome, Seen, adopt_states, state_key
from fubako.client.imap import ImapConnection
from fubako.client.places import place
from fubako.client.pop3 import Pop3Connection
from fubako.client.roads import Ask, Roads, reject
from fubako.client.settings import Account, SettingsError
from fubako.clock import Env
from fubako.telemetry import visible

NOTHING_NEW = 1
WATCH_SECONDS = 60
IDLE_SECONDS = 25 * 60.0  # a server may end it after 30 minutes (RFC 2177 §3)
PAUSE_SECONDS, PAUSE_SECONDS_MAX = 5, 300  # after trouble
Passwords = dict[tuple[str, ...], str]  # by `Account.source`


@click.command()
@click.argument("names", nargs=-1, metavar="[ACCOUNT]...")
@click.option(
    "--accounts",
    "accounts_file",
    type=click.Path(path_type=Path),
    help="accounts.toml; in ~/.config/fubako when not given.",
)
@click.option(
    "--fetchmailrc", "rc_file", type=click.Path(path_type=Path), help="Read fetchmail's configuration instead."
)
@click.option("--every", type=click.IntRange(1), metavar="SECONDS", help="Go on, with this pause between two rounds.")
@click.option(
    "--watch", is_flag=True, help="Go on: new letters come at once where the server has IDLE, else every --every seconds (60)."
)  # fmt: skip
@transcript_option
@click.option("--batch", is_flag=True, help="Never ask; also what happens without a terminal.")
@json_option
def fetch(
    names: tuple[str, ...],
    accounts_file: Path | None,
    rc_file: Path | None,
    every: int | None,
    watch: bool,
    transcript: str,
    batch: bool,
    as_json: bool,
) -> int:
    """Bring new letters of other mailboxes here: IMAP or POP3, into a Maildir, an mbox, LMTP, SMTP or a program.

    \b
    ~/.config/fubako/accounts.toml:
      [[account]]
      name = "work"
      host = "imap.example.org"          # protocol = "imap", tls = "implicit" when nothing is said
      user = "ann"
      password_file = "~/.secrets/work"  # mode 0600; or password_command
      deliver = "maildir:~/Mail"
      keep = true                        # leave letters there

    A letter is deleted there only after it is durable here. Without TLS nothing is said, unless the account says `tls = "none"`
    by name, for a tunnel or this machine. Servers that were met are remembered (`fubako trust`).

    \b
    Exit codes: 0 letters came, 1 nothing new, 69 no connection, 77 login refused, 78 settings,
    80 certificate not believed, 81 certificate CHANGED, 82 the server offers less protection than before, 83 no TLS.
    """
    accounts, passwords = _accounts(accounts_file, rc_file)
    accounts = [one for one in accounts if one.protocol in ("imap", "pop3")]
    unknown = set(names) - {one.name for one in accounts}
    if unknown:
        raise click.UsageError(f"there is no account {min(unknown)}")
    chosen = [one for one in accounts if not names or one.name in names]
    adopt_states(settings.home() / "fetched", accounts)
    ask = reject if batch or not sys.stdin.isatty() else ask_at_terminal
    if watch:
        return app.run(_watched(chosen, passwords, ask, every or WATCH_SECONDS, as_json, telling(transcript)))
    return app.run(_rounds(chosen, passwords, ask, every, as_json, telling(transcript)))


def _accounts(accounts_file: Path | None, rc_file: Path | None) -> tuple[list[Account], Passwords]:
    if rc_file is None:
        return settings.load(accounts_file or settings.home() / "accounts.toml"), {}
    try:
        if rc_file.stat().st_mode & 0o077:
            raise SettingsError(f"{rc_file} can be read by others; chmod 600 {rc_file}")
        polls = fetchmailrc.parse(rc_file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{rc_file}: {error}") from None
    except fetchmailrc.FetchmailFault as fault:
        raise SettingsError(f"{rc_file}: {fault}") from None
    for poll in polls:
        for warning in poll.warnings:
            click.echo(f"fubako: {poll.account.name}: {warning}", err=True)
        settings.check(poll.account, str(rc_file))
    netrc = Path.home() / ".netrc"
    accounts = [
        msgspec.structs.replace(poll.account, password_netrc=str(netrc))
        if not poll.password and netrc.exists()
        else poll.account
        for poll in polls
    ]
    return accounts, {poll.account.source: poll.password for poll in polls if poll.password}


async def _rounds(
    accounts: list[Account],
    passwords: Passwords,
    ask: Ask,
    every: int | None,
    as_json: bool,
    tell: Callable[[str], None] | None,
) -> int:
    roads = Roads(known_peers(), Env(), ask, resolver=app.resolver)
    roads.passwords, roads.transcript = passwords, tell
    try:
        while True:
            # one who is asked should not be asked two things at once
            if ask is reject:
                found = await asyncio.gather(*(_one(one, roads) for one in accounts))
            else:
                found = [await _one(one, roads) for one in accounts]
            code = _told(found, as_json=as_json)
            if every is None:
                return code
            await asyncio.sleep(every)
    finally:
        await roads.close()


async def _watched(
    accounts: list[Account],
    passwords: Passwords,
    ask: Ask,
    every: int,
    as_json: bool,
    tell: Callable[[str], None] | None,
) -> int:
    """Until it is ended. An account whose server is not believed, or does not take the login, is left; its exit code counts."""
    roads = Roads(known_peers(), Env(), ask, resolver=app.resolver)
    roads.passwords, roads.transcript = passwords, tell
    try:
        codes = await asyncio.gather(*(_followed(one, roads, every, as_json=as_json) for one in accounts))
        return next((code for code in codes if code), 0)
    finally:
        await roads.close()


async def _followed(account: Account, roads: Roads, every: int, *, as_json: bool) -> int:
    """One account; returns where trying again is no use."""
    pause = PAUSE_SECONDS
    while True:
        outcome, code = await _one(account, roads, partial(_stay, account, every, as_json))
        if outcome.problem or outcome.fetched:
            _told([(outcome, code)], as_json=as_json)
        if code in FINAL:
            return code
        pause = min(2 * pause, PAUSE_SECONDS_MAX) if outcome.problem else PAUSE_SECONDS
        await asyncio.sleep(pause if outcome.problem else every)


async def _stay(account: Account, every: int, as_json: bool, connection: ImapConnection, outcome: Outcome) -> None:
    """Between two looks at a mailbox, on the same connection."""
    if outcome.fetched:
        _told([(outcome, 0)], as_json=as_json)
    there = outcome.there
    outcome.fetched = outcome.there = outcome.octets = outcome.deleted = outcome.large = 0
    if "IDLE" in connection.capabilities and len(account.folders) == 1:  # it watches one folder
        await connection.wait(IDLE_SECONDS, there)
    else:
        await asyncio.sleep(every)


async def _one(
    account: Account, roads: Roads, stay: Callable[[ImapConnection, Outcome], Awaitable[None]] | None = None
) -> tuple[Outcome, int]:
    """What became of one account, and its exit code; no account stops another one. `stay`: an IMAP connection is kept, and
    looked at again whenever it returns."""
    env = Env()
    outcome = Outcome(account.name)
    try:
        target, seen = await asyncio.to_thread(_opened, account)
        fetcher = Fetcher(account, target, seen, env, _progress(account.name))
        outcome = fetcher.outcome
        try:
            async with roads.ready(account) as connection:
                fetcher.hop = connection.hop()
                outcome.hop = fetcher.hop.describe()
                if isinstance(connection, ImapConnection):
                    await fetcher.imap(connection)
                    while stay is not None:
                        await stay(connection, outcome)
                        await fetcher.imap(connection)
                    await connection.logout()
                elif isinstance(connection, Pop3Connection):
                    await fetcher.pop3(connection)
        finally:
            await target.close()
            seen.close()
    except TROUBLES as error:
        outcome.problem = visible(str(error) or type(error).__name__)
        return outcome, code_of(error)
    return outcome, 0 if outcome.fetched else NOTHING_NEW


def _opened(account: Account) -> tuple[Any, Seen]:
    key = state_key(*account.source, account.deliver)
    if account.deliver.startswith("store:"):
        from fubako.cli.ownstore import StorePlace  # the server's half, for who asks for it

        return StorePlace(account), Seen(settings.home() / "fetched" / key)
    folder = settings.home() / "fetched"
    return place(account, folder / f"{key}.mbox"), Seen(folder / key)


def _progress(name: str) -> Any:
    if not sys.stderr.isatty():
        return lambda _done, _all: None
    began = time.monotonic()

    def told(done: int, count: int) -> None:
        rate = done / max(time.monotonic() - began, 0.001)
        click.echo(f"\r{name}: {done} of {count} letters, {rate:.0f}/s", err=True, nl=done == count)

    return told


def _told(found: list[tuple[Outcome, int]], *, as_json: bool) -> int:
    """Problems count more than letters, letters more than nothing."""
    for outcome, code in found:
        facts = {name: getattr(outcome, name) for name in Outcome.__slots__} | {"exit": code}
        if as_json:
            click.echo(json.dumps(facts, ensure_ascii=False))
        elif outcome.problem:
            click.echo(f"fubako: {outcome.account}: {outcome.problem}", err=True)
        else:
            more = f", {outcome.deleted} deleted there" if outcome.deleted else ""
            more += f", {outcome.large} too large" if outcome.large else ""
            click.echo(f"{outcome.account}: {outcome.fetched} of {outcome.there} letters{more}; {visible(outcome.hop)}")
    codes = [code for _, code in found]
    return next((code for code in codes if code not in (0, NOTHING_NEW)), 0 if 0 in codes else NOTHING_NEW)

"""`fubako read`: letters in a terminal."""

import os
import sys
import time
from pathlib import Path

import click

from fubako import app
from fubako.cli.exits import USAGE
from fubako.cli.trusting import known_peers
from fubako.client import muttrc, settings
from fubako.client.roads import Roads
from fubako.client.settings import Account, SettingsError
from fubako.clock import Env
from fubako.trust import foreign
from fubako.trust.rules import Rule, RuleFault


@click.command()
@click.argument("where", default="", metavar="[ACCOUNT|MAILBOX]")
@click.option(
    "--accounts", "accounts_file", type=click.Path(path_type=Path), help="accounts.toml; in ~/.config/fubako when not given."
)  # fmt: skip
@click.option("-F", "--muttrc", "mutt_file", type=click.Path(path_type=Path), help="Read mutt's configuration instead.")
@click.option("-f", "--folder", default="", help="The folder to open; the account's first one when not given.")
@click.option("-R", "--read-only", is_flag=True, help="Change nothing there, not even what is read.")
def read(where: str, accounts_file: Path | None, mutt_file: Path | None, folder: str, read_only: bool) -> int:
    """Read letters, with mutt's keys; ? shows them.

    \b
    fubako read                                  the first account of accounts.toml
    fubako read work                             that account
    fubako read imaps://ann@imap.example.org/    a mailbox, as mutt writes it; pops:// for POP3
    fubako read '{imap.example.org/ssl}INBOX'
    fubako read -F ~/.muttrc                     what mutt's configuration says: spoolfile, folder, tunnel, preconnect …

    Each letter in the list bears its seal: how it was protected on its way, where the server knows that (a Fubako does); J shows
    the way. The line at the bottom is the road: how the connection to the server is protected now. A server that nobody vouches
    for is shown, and asked about: reject, once, always; one whose key CHANGED is refused.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        click.echo("fubako: read wants a terminal; `fubako fetch` works without one", err=True)
        return USAGE
    try:
        from fubako.reader.app import Reader
        from fubako.reader.road import Asked
    except ImportError:
        raise SettingsError("the reader needs Textual: pip install 'fubako[tui]'") from None
    asked = Asked()
    roads = Roads(known_peers(), Env(), asked, resolver=app.resolver)
    accounts, made = _settings(where, accounts_file, mutt_file)
    account = _chosen(where, accounts, made, roads)
    if made is not None and made.values.get("certificate_file"):
        roads.extra = _certificates(Path(made.values["certificate_file"]).expanduser())
    if account.user and not (
        account.password_file or account.password_command or account.source in roads.passwords or account.tunnel
    ):
        if account.tls != "none":
            roads.passwords[account.source] = click.prompt(
                f"Password of {account.user} at {account.host}", hide_input=True
            )
    values = made.values if made else {}
    reader = Reader(
        account, roads, asked, senders=[one for one in accounts if one.protocol == "smtp"], folder=folder,
        home=settings.home(), editor=values.get("editor") or os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi",
        sender=_sender(values), read_only=read_only,
    )  # fmt: skip
    return reader.run() or 0


def _settings(
    where: str, accounts_file: Path | None, mutt_file: Path | None
) -> tuple[list[Account], muttrc.Muttrc | None]:
    path = accounts_file or settings.home() / "accounts.toml"
    accounts = settings.load(path) if accounts_file or path.exists() else []
    if mutt_file is None:
        return accounts, None
    try:
        made = muttrc.read(mutt_file)
        for warning in made.warnings:
            click.echo(f"fubako: {warning}", err=True)
        sender = muttrc.place(made.values.get("smtp_url", ""))
        if sender is not None:
            accounts = [muttrc.account(made, sender, "smtp_url")[0], *accounts]
    except muttrc.MuttFault as fault:
        raise SettingsError(str(fault)) from None
    return accounts, made


def _certificates(path: Path) -> list[Rule]:
    """What mutt was told to believe. Raises SettingsError."""
    try:
        rules, warnings = foreign.mutt(path.read_text(errors="replace"), str(path), int(time.time()))
    except FileNotFoundError:
        return []
    except (OSError, RuleFault) as error:
        raise SettingsError(f"{path}: {error}") from None
    for warning in warnings:
        click.echo(f"fubako: {path}: {warning}", err=True)
    return rules


def _chosen(where: str, accounts: list[Account], made: muttrc.Muttrc | None, roads: Roads) -> Account:
    """Raises SettingsError."""
    readable = [one for one in accounts if one.protocol in ("imap", "pop3")]
    named = next((one for one in readable if one.name == where), None)
    if named is not None:
        return named
    try:
        values = made.values if made is not None else {}
        text = where or values.get("spoolfile") or values.get("folder", "")
        place = muttrc.place(_whole(text, values.get("folder", "")))
        if place is not None:
            account, password = muttrc.account(made or muttrc.Muttrc(), place)
            if password:
                roads.passwords[account.source] = password
            settings.check(account, where or "muttrc")
            return account
    except muttrc.MuttFault as fault:
        raise SettingsError(str(fault)) from None
    if where or made is not None:
        raise SettingsError(f"{where or 'spoolfile'} is neither an account nor a mailbox like imaps://user@host/INBOX")
    if not readable:
        raise SettingsError(
            "there is no account of protocol imap or pop3 in accounts.toml; `fubako fetch --help` shows how one is written"
        )
    return readable[0]


def _whole(text: str, folder: str) -> str:
    """`+name` and `=name` lie in `folder`."""
    return f"{folder.rstrip('/')}/{text[1:]}" if text[:1] in "+=" and text and folder else text


def _sender(values: dict[str, str]) -> str:
    address, name = values.get("from", ""), values.get("realname", "")
    return f"{name} <{address}>" if name and address and "<" not in address else address

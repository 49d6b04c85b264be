"""`fubako account`: find out where the mail of an address is, try it, and write it down."""

import asyncio
import json
import os
import re
import shlex
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec

from fubako import app, modes
from fubako.cli.configured import json_option, show
from fubako.cli.exits import CANTCREAT, NOHOST, NOPERM
from fubako.cli.troubles import TROUBLES, code_of
from fubako.cli.trusting import ask, known_peers, telling, transcript_option
from fubako.client import discover, passwords, settings
from fubako.client.connection import LoginRefused
from fubako.client.discover import Checked, Endpoint
from fubako.client.muttrc import MuttFault, place
from fubako.client.roads import Roads, reject
from fubako.client.settings import Account, SettingsError
from fubako.clock import Env
from fubako.message.address import Address, AddressError, parse_address
from fubako.protocol.sasl import SaslFailure
from fubako.telemetry import visible

FILTERS_SECONDS = 4.0
_accounts_option = click.option(
    "--accounts", "accounts_file", type=click.Path(path_type=Path), help="accounts.toml; in ~/.config/fubako when not given."
)  # fmt: skip


@click.group()
def account() -> None:
    """Your accounts elsewhere: accounts.toml, which `fetch`, `read` and `send` use."""


@dataclass(slots=True)
class Wanted:
    """What the command line says. URLs as mutt writes them: imaps://host:port is TLS at once, imap:// is STARTTLS."""

    address: Address
    name: str
    user: str
    incoming: str
    outgoing: str
    pop3: bool
    trust: tuple[str, ...]
    yes: bool


@account.command("add")
@click.argument("address")
@click.option("--name", default="", help="How you call it; the domain when not given.")
@click.option("--user", default="", help="Who you are there; what the domain says, else the address.")
@click.option(
    "--incoming",
    default="",
    metavar="URL",
    help="imaps://host, or imap://host for STARTTLS; pops:// and pop://.",
)
@click.option(
    "--outgoing", default="", metavar="URL", help="smtps://host or smtp://host; `none` for an account that only reads."
)
@click.option("--pop3", is_flag=True, help="POP3, even where there is IMAP.")
@click.option("--trust", multiple=True, help="Whom to believe, as in accounts.toml; public authorities when not given.")
@click.option("--password-command", default="", help="A program and its arguments that writes the password.")
@click.option("--password-file", type=click.Path(path_type=Path), help="A file of mode 0600 with the password.")
@click.option(
    "--netrc", "netrc_file", type=click.Path(path_type=Path), help="A netrc file of mode 0600 with the password."
)
@click.option("--keyring", is_flag=True, help="The password is in the system's keyring.")
@click.option("--dns", default="", metavar="HOST:PORT", help="Ask this resolver.")
@click.option(
    "--yes", is_flag=True, help="Use servers outside the domain that nobody proves to be its own, without asking."
)
@click.option("--no-test", is_flag=True, help="Do not log in before it is written down.")
@_accounts_option
@json_option
def account_add(
    address: str, name: str, user: str, incoming: str, outgoing: str, pop3: bool, trust: tuple[str, ...], password_command: str,
    password_file: Path | None, netrc_file: Path | None, keyring: bool, dns: str, yes: bool, no_test: bool,
    accounts_file: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Add an account: ADDRESS is enough, the rest is found out, tried, and asked.

    The domain's own description (autoconfig, over HTTPS), its SRV records and the usual names are looked at; the most secure server
    that is there, and whose certificate is believed, is taken. Then both are logged in to, and the account is appended to
    accounts.toml; so is one for filters (`fubako sieve`), where the server has ManageSieve. The password is never written there: it
    goes into the system's keyring, or a file of mode 0600.

    \b
    Exit codes: 68 no server was found, 77 the login was refused, 78 settings, 80 to 83 the server is not believed, or has no TLS.
    """
    try:
        parsed = parse_address(address)
        if not parsed.domain:
            raise AddressError(f"{address} has no domain")
    except AddressError as error:
        raise click.UsageError(str(error)) from None
    path = accounts_file or settings.home() / "accounts.toml"
    known = settings.load(path) if path.exists() else []
    name = name or parsed.domain
    taken = {one.name for one in known} & {name, f"{name}-send", f"{name}-filters"}
    if taken:
        click.echo(f"fubako: {path} has an account {min(taken)} already; give another --name", err=True)
        return CANTCREAT
    given: dict[str, object] = {}
    if password_command:
        given["password_command"] = tuple(shlex.split(password_command))
    elif password_file:
        given["password_file"] = str(password_file)
    elif netrc_file:
        given["password_netrc"] = str(netrc_file)
    elif keyring:
        given["password_keyring"] = True
    wanted = Wanted(parsed, name, user, incoming, outgoing, pop3, trust or ("public",), yes)
    return app.run(_add(wanted, path, given, dns, no_test=no_test, as_json=as_json))


async def _add(wanted: Wanted, path: Path, given: dict[str, object], dns: str, *, no_test: bool, as_json: bool) -> int:
    roads = Roads(known_peers(), Env(), ask if sys.stdin.isatty() else reject, resolver=app.resolver)
    try:
        chosen = await _servers(wanted, dns)
        if isinstance(chosen, int):
            return chosen
        made, good = [_account(wanted, one, given) for one in chosen], list[Account]()
        words = "" if given or no_test else _typed(made[0])
        for one in made:
            settings.check(one, one.name)
            if words:
                roads.passwords[one.source] = words
            if not no_test:
                tried = await _tried(one, roads)
                if isinstance(tried, int) and one.protocol == "sieve":
                    click.echo(f"{one.name} is left out", err=True)
                    continue
                if isinstance(tried, int):
                    return tried
                click.echo(f"{one.name}: {visible(str(tried))}", err=True)
            good.append(one)
        made = good
        if words:
            where = _keep([one.name for one in made], words)
            made = [msgspec.structs.replace(one, **where) for one in made]
        _append(path, made)
    finally:
        await roads.close()
    rows = [_row(one) for one in made]
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        show(rows, as_json=False)
        click.echo(
            f"written to {path}; `fubako fetch {wanted.name}`, `fubako read {wanted.name}`, `fubako send` can use it"
        )
    return 0


async def _servers(wanted: Wanted, dns: str) -> list[Endpoint] | int:
    """The server to read from, the one to send by, and where filters are kept; or the exit code, and the reason was said."""
    resolver = app.resolver(dns)
    incoming = _url(wanted.incoming, wanted, ("imap", "pop3"))
    outgoing = _url(wanted.outgoing, wanted, ("smtp",)) if wanted.outgoing != "none" else None
    found = discover.Found()
    if incoming is None or (outgoing is None and wanted.outgoing != "none"):
        click.echo(f"looking for the mail servers of {wanted.address.domain} …", err=True)
        found = await discover.discover(wanted.address, resolver, app.LateHttps(resolver))
        for remark in found.remarks:
            click.echo(f"  {visible(remark)}", err=True)
    files = tuple(Path(one).expanduser() for one in wanted.trust if one.startswith(("/", "~")))  # noqa: ASYNC240 (the user's home)
    chosen: list[Endpoint] = []
    reading = ("pop3",) if wanted.pop3 else ("imap", "pop3")
    for given, protocols, purpose in ((incoming, reading, "to read from"), (outgoing, ("smtp",), "to send by")):
        if purpose == "to send by" and wanted.outgoing == "none":
            continue
        checked = Checked(given) if given is not None else await discover.best(found.endpoints, protocols, files)
        if checked is None:
            click.echo(
                f"fubako: no server of {wanted.address.domain} was found {purpose}; name it (--incoming, --outgoing)",
                err=True,
            )
            return NOHOST
        if given is None and not _agreed(checked, wanted):
            return NOHOST
        chosen.append(checked.endpoint)
    return [*chosen, *await _filters(found, chosen[0], wanted, files)]


async def _filters(
    found: discover.Found, incoming: Endpoint, wanted: Wanted, files: tuple[Path, ...]
) -> list[Endpoint]:
    """Where scripts are kept, if anywhere: what DNS says, else ManageSieve on the machine that is read from. It is no must."""
    if incoming.protocol != "imap":
        return []
    beside = Endpoint("sieve", incoming.host, settings.PORTS["sieve", "starttls"], "starttls", "guess", incoming.user)
    said = [one for one in found.endpoints if one.protocol == "sieve"]
    sure = [one for one in said if one.told or one.inside(wanted.address.domain.lower()) or one.host == incoming.host]
    checked = None
    with suppress(TimeoutError):  # where nobody listens, many networks do not even say so
        async with asyncio.timeout(FILTERS_SECONDS):
            checked = await discover.best([*sure, beside], ("sieve",), files)
    if checked is None or checked.problem:
        return []
    one = checked.endpoint
    click.echo(
        f"  sieve: {one.host}:{one.port}, {checked.tls}, {', '.join(checked.mechanisms) or 'no mechanism'}", err=True
    )
    return [one]


def _agreed(checked: Checked, wanted: Wanted) -> bool:
    """The domain's own word is enough; of anything else the user has to be sure."""
    one = checked.endpoint
    click.echo(
        f"  {one.protocol}: {one.host}:{one.port}, {checked.tls}, {', '.join(checked.mechanisms) or 'no mechanism'}",
        err=True,
    )
    if one.told or one.inside(wanted.address.domain.lower()) or wanted.yes:
        return True
    question = f"{one.host} is not within {wanted.address.domain}, and nobody proves that it speaks for it. Use it?"
    if not sys.stdin.isatty():
        click.echo(f"fubako: {question} (--yes, or --incoming and --outgoing)", err=True)
        return False
    return click.confirm(question, err=True)


def _url(text: str, wanted: Wanted, protocols: tuple[str, ...]) -> Endpoint | None:
    if not text:
        return None
    try:
        where = place(text)
    except MuttFault as fault:
        raise click.UsageError(str(fault)) from None
    if where is None or where.protocol not in protocols:
        raise click.UsageError(f"{text} is no server: imaps://host, pops://host or smtps://host is meant")
    tls = "implicit" if where.secure else "starttls"
    user = where.user or str(wanted.address)
    return Endpoint(
        where.protocol, where.host, where.port or settings.PORTS[where.protocol, tls], tls, "given", user, told=True
    )


def _account(wanted: Wanted, one: Endpoint, given: dict[str, object]) -> Account:
    name = wanted.name + {"smtp": "-send", "sieve": "-filters"}.get(one.protocol, "")
    port = 0 if settings.PORTS[one.protocol, one.tls] == one.port else one.port
    facts: dict[str, object] = {
        "name": name, "protocol": one.protocol, "host": one.host, "port": port, "tls": one.tls, "user": wanted.user or one.user,
        "trust": wanted.trust, **given,
    }  # fmt: skip
    return Account(**facts)  # type: ignore[arg-type]  # put together above


def _typed(one: Account) -> str:
    if not sys.stdin.isatty():
        raise click.UsageError(
            "without a terminal say where the password is: --password-file, --password-command, --netrc, --keyring"
        )
    words: str = click.prompt(f"Password of {one.user} at {one.host}", hide_input=True, err=True)
    return words


async def _tried(one: Account, roads: Roads) -> str | int:
    """How the login went; or an exit code, and the reason was said."""
    try:
        async with roads.ready(one) as connection:
            return connection.hop().describe()
    except (LoginRefused, SaslFailure) as error:
        click.echo(f"fubako: {one.name}: {one.user} at {one.host}: {visible(str(error))}", err=True)
        return NOPERM
    except TROUBLES as error:
        click.echo(f"fubako: {one.name}: {visible(str(error) or type(error).__name__)}", err=True)
        return code_of(error)


def _keep(names: list[str], words: str) -> dict[str, object]:
    """The typed password goes into the keyring, or a file of its own. Raises SettingsError."""
    if all(passwords.into_keyring(name, words) for name in names):
        return {"password_keyring": True}
    file = settings.home() / "passwords" / re.sub(r"[^A-Za-z0-9.@_-]", "_", names[0])
    modes.folder(file.parent)
    try:
        with open(file, "x", opener=modes.opener, encoding="utf-8") as output:
            output.write(words + "\n")
            output.flush()
            os.fsync(output.fileno())
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from None
    return {"password_file": str(file)}


def _row(one: Account) -> dict[str, object]:
    return {
        "name": one.name, "protocol": one.protocol, "host": one.host, "port": one.port_used, "tls": one.tls, "user": one.user
    }  # fmt: skip


def _append(path: Path, made: list[Account]) -> None:
    """Behind what is there; not a letter of it is changed."""
    plain = Account(name="x")
    text = ""
    for one in made:
        rows = [
            f"{name} = {_toml(value)}"
            for name in one.__struct_fields__
            if (value := getattr(one, name)) != getattr(plain, name) or name in ("name", "protocol", "host")
        ]
        text += "\n[[account]]\n" + "\n".join(rows) + "\n"
    modes.folder(path.parent)
    with open(path, "a", opener=modes.opener, encoding="utf-8") as file:
        file.write(text if file.tell() else text.lstrip("\n"))
        file.flush()
        os.fsync(file.fileno())


def _toml(value: object) -> str:
    """JSON is TOML for texts, numbers, booleans and lists of them, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@account.command("list")
@_accounts_option
@json_option
def account_list(accounts_file: Path | None, as_json: bool) -> None:
    """Every account."""
    every = settings.load(accounts_file or settings.home() / "accounts.toml")
    rows = [_row(one) | {"road": one.tunnel or one.ssh or one.socks or one.socket or "tcp"} for one in every]
    show(rows, as_json=as_json)


@account.command("test")
@click.argument("names", nargs=-1, metavar="[ACCOUNT]...")
@transcript_option
@_accounts_option
@json_option
def account_test(names: tuple[str, ...], transcript: str, accounts_file: Path | None, as_json: bool) -> int:
    """Log in and out again; how each leg is protected is told."""
    every = settings.load(accounts_file or settings.home() / "accounts.toml")
    unknown = set(names) - {one.name for one in every}
    if unknown:
        raise click.UsageError(f"there is no account {min(unknown)}")

    async def tried() -> int:
        roads, code = Roads(known_peers(), Env(), ask if sys.stdin.isatty() else reject, resolver=app.resolver), 0
        roads.transcript = telling(transcript)
        try:
            for one in every:
                if names and one.name not in names:
                    continue
                said = await _tried(one, roads)
                refused, hop = (said, "") if isinstance(said, int) else (0, said)
                code = code or refused
                if as_json:
                    click.echo(json.dumps({"account": one.name, "exit": refused, "hop": hop}))
                elif hop:
                    click.echo(f"{one.name}: {visible(str(hop))}")
        finally:
            await roads.close()
        return code

    return app.run(tried())

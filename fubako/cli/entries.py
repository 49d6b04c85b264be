"""`fubako domain|user|alias …` and `fubako trace`."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import click

from fubako.accounts import directory, enrol, secrets
from fubako.admin import journey, users
from fubako.cli.configured import config_option, json_option, load_found, show, with_store
from fubako.cli.exits import DATAERR, NOINPUT
from fubako.clock import Env
from fubako.config import possible_mechanisms
from fubako.telemetry import visible

ENV = Env()


@click.group()
def domain() -> None:
    """Domains whose mail is kept here."""


@domain.command("add")
@click.argument("name")
@config_option
def domain_add(name: str, config_file: Path | None) -> None:
    """Take mail for NAME."""
    with_store(config_file, lambda store: users.add_domain(store.database, ENV, name))


@domain.command("list")
@config_option
@json_option
def domain_list(config_file: Path | None, as_json: bool) -> None:
    """Every domain and how many users it has."""
    show(with_store(config_file, lambda store: users.list_domains(store.database)), as_json=as_json)


@domain.command("show")
@click.argument("name")
@config_option
@json_option
def domain_show(name: str, config_file: Path | None, as_json: bool) -> None:
    """The users of one domain."""
    show(with_store(config_file, lambda store: users.list_users(store.database, name)), as_json=as_json)


@domain.command("remove")
@click.argument("name")
@config_option
def domain_remove(name: str, config_file: Path | None) -> None:
    """Take no more mail for NAME; it must have no users."""
    with_store(config_file, lambda store: store.database.write(lambda tx: directory.remove_domain(tx, name)))


@click.group()
def user() -> None:
    """People with a mailbox."""


def _given_password(from_stdin: bool) -> str | None:
    """A password never stands on the command line, where every process could read it."""
    if not from_stdin:
        return None
    line = sys.stdin.readline().rstrip("\n")
    if not line:
        raise click.UsageError("no password on standard input")
    return line


secret_option = click.option(
    "--keep-secret", is_flag=True, help="Keep the password readable in the store, so that CRAM-MD5 and APOP can use it."
)
stdin_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input, else make one."
)


@user.command("add")
@click.argument("address")
@stdin_option
@secret_option
@config_option
@json_option
def user_add(address: str, password_stdin: bool, keep_secret: bool, config_file: Path | None, as_json: bool) -> None:
    """Create ADDRESS. A password that was made is shown once."""
    given = _given_password(password_stdin)
    password = with_store(
        config_file, lambda store: users.add_user(store.database, ENV, address, given, keep_secret=keep_secret)
    )
    show_secret(address, None if given else password, as_json)


def show_secret(address: str, password: str | None, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"address": address, **({"password": password} if password else {})}))
    elif password:
        click.echo(f"password of {address}, shown only now: {password}")


@user.command("passwd")
@click.argument("address")
@stdin_option
@secret_option
@config_option
@json_option
def user_passwd(address: str, password_stdin: bool, keep_secret: bool, config_file: Path | None, as_json: bool) -> None:
    """Change the password of ADDRESS."""
    given = _given_password(password_stdin)
    password = with_store(
        config_file, lambda store: enrol.set_password(store.database, ENV, address, given, keep_secret=keep_secret)
    )
    show_secret(address, None if given else password, as_json)


@user.command("disable")
@click.argument("address")
@config_option
def user_disable(address: str, config_file: Path | None) -> None:
    """Switch ADDRESS off: nobody comes in, and open sessions end within five seconds. Its mail stays, and still arrives."""
    with_store(config_file, lambda store: users.switch_user(store.database, address, enabled=False))


@user.command("enable")
@click.argument("address")
@config_option
def user_enable(address: str, config_file: Path | None) -> None:
    """Switch ADDRESS on again."""
    with_store(config_file, lambda store: users.switch_user(store.database, address, enabled=True))


@user.command("limit")
@click.argument("address")
@click.option("--until", type=click.DateTime(), help="The moment, in UTC, from which nobody comes in any more.")
@click.option(
    "--protocol", "protocols", multiple=True, type=click.Choice(secrets.PROTOCOLS), help="Only these; once for each."
)
@click.option(
    "--network", "networks", multiple=True, help="Only from these, as 192.0.2.0/24 or `local`; once for each."
)
@config_option
def user_limit(
    address: str,
    until: datetime | None,
    protocols: tuple[str, ...],
    networks: tuple[str, ...],
    config_file: Path | None,
) -> None:
    """What holds for ADDRESS whatever it proves itself with, in place of what was said before; with no option nothing."""
    expires = int(until.replace(tzinfo=UTC).timestamp()) if until is not None else 0
    with_store(
        config_file,
        lambda store: users.limit_user(
            store.database, address, expires=expires, protocols=protocols, networks=networks
        ),
    )


@user.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--domain", "domain_name", default="", help="The domain of users that are written without one.")
@click.option("--create", is_flag=True, help="Create users that are not there yet.")
@secret_option
@config_option
@json_option
def user_import(
    file: BinaryIO, domain_name: str, create: bool, keep_secret: bool, config_file: Path | None, as_json: bool
) -> int:
    """Take over users and their passwords from FILE: htpasswd, shadow, a passwd-file as Dovecot's, or Cyrus SASL's sasldb2.

    Known are crypt(3) with MD5, SHA-2, bcrypt and yescrypt, Apache's MD5, {SHA}, {SSHA}, {SSHA256}, {SSHA512}, {PLAIN-MD5} and
    argon2. At a user's first login with the password itself (PLAIN, LOGIN, USER and PASS) our own hash takes its place; until then
    SCRAM does not work for him. A sasldb2 holds the passwords themselves: everything works at once, and with --keep-secret
    CRAM-MD5, DIGEST-MD5 and APOP go on too. Exit code 65: a user could not be taken.
    """
    octets = file.read()
    if octets[12:16] in (b"\x61\x15\x06\x00", b"\x00\x06\x15\x61"):  # Berkeley DB
        rows = with_store(
            config_file,
            lambda store: users.take_sasldb(store.database, ENV, octets, create=create, keep_secret=keep_secret),
        )
    else:
        lines = octets.decode("utf-8", "surrogateescape").splitlines()
        rows = with_store(
            config_file, lambda store: users.take_over(store.database, ENV, lines, domain_name, create=create)
        )
    show(rows, as_json=as_json)
    return 0 if all(row["taken"] for row in rows) else DATAERR


@user.command("list")
@click.argument("domain_name", metavar="[DOMAIN]", default="")
@click.option("--sasl", is_flag=True, help="User, realm and mechanisms instead, as sasldblistusers tells them.")
@config_option
@json_option
def user_list(domain_name: str, sasl: bool, config_file: Path | None, as_json: bool) -> None:
    """Every user, with number and size of messages."""
    if sasl:
        offered = possible_mechanisms(load_found(config_file)[0])
        show(
            with_store(config_file, lambda store: users.list_sasl(store.database, domain_name, offered)),
            as_json=as_json,
        )
        return
    show(with_store(config_file, lambda store: users.list_users(store.database, domain_name)), as_json=as_json)


@user.command("show")
@click.argument("address")
@config_option
@json_option
def user_show(address: str, config_file: Path | None, as_json: bool) -> None:
    """One user: credentials (never secrets) and mailboxes."""
    facts = with_store(config_file, lambda store: users.show_user(store.database, address))
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    click.echo(f"{facts['address']}{'' if facts['enabled'] else ' (disabled)'}")
    show(facts["credentials"], as_json=False)
    show(facts["mailboxes"], as_json=False)


@user.command("remove")
@click.argument("address")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
def user_remove(address: str, yes: bool, config_file: Path | None) -> None:
    """Remove ADDRESS and all its mail."""
    if not yes:
        click.confirm(f"Remove {address} and all its mail?", abort=True)
    with_store(config_file, lambda store: users.remove_user(store.database, address))


@click.group()
def alias() -> None:
    """Addresses that stand for others."""


@alias.command("add")
@click.argument("address")
@click.argument("targets", nargs=-1, required=True)
@click.option(
    "--user", "run_as", default="", help="The Unix user as whom programs run and files are written; never root."
)
@config_option
def alias_add(address: str, targets: tuple[str, ...], run_as: str, config_file: Path | None) -> None:
    """Deliver mail for ADDRESS to TARGETS; `@domain` is for everybody there who is nobody else.

    \b
    A target is one of
      ann@example.org          an address, here or elsewhere
      '|/usr/bin/prog -x'      a program with its arguments; no shell sees them. It gets the message on its standard input
      /var/mail/list           an mbox file, or with a slash at the end a Maildir
      :include:/etc/list       a file of addresses, one a line, that root or the server owns

    A server that does not run as root runs programs and writes files as its own user. One that runs as root needs --user.
    """
    with_store(config_file, lambda store: users.add_alias(store.database, address, targets, run_as))


@alias.command("list")
@config_option
@json_option
def alias_list(config_file: Path | None, as_json: bool) -> None:
    """Every alias."""
    show(with_store(config_file, lambda store: users.list_aliases(store.database)), as_json=as_json)


@alias.command("show")
@click.argument("address")
@config_option
@json_option
def alias_show(address: str, config_file: Path | None, as_json: bool) -> None:
    """One alias."""
    rows = with_store(config_file, lambda store: users.list_aliases(store.database))
    found = [row for row in rows if row["address"] == address.lower()]
    if not found:
        raise directory.NoSuchEntry(f"there is no alias {address}")
    show(found, as_json=as_json)


@alias.command("remove")
@click.argument("address")
@config_option
def alias_remove(address: str, config_file: Path | None) -> None:
    """Remove an alias."""
    with_store(config_file, lambda store: store.database.write(lambda tx: directory.remove_alias(tx, address)))


@click.command()
@click.argument("trace_id", metavar="ID")
@config_option
@json_option
def trace(trace_id: str, config_file: Path | None, as_json: bool) -> int:
    """Show where a letter is and how it was protected on its way.

    The ID stands in the letter's Received field and in the reply its sender got.
    """
    copies = with_store(config_file, lambda store: journey.trace(store.database, trace_id))
    sent = with_store(config_file, lambda store: journey.outgoing(store.database, trace_id))
    if as_json:
        click.echo(json.dumps([*copies, *sent], ensure_ascii=False, indent=2))
    for one in [] if as_json else sent:
        click.echo(visible(f"{one['recipient']}: {one['state']}{': ' + one['reply'] if one['reply'] else ''}"))
        for line in journey.lines([journey.hop_from_dict(facts) for facts in one["journey"]]):
            click.echo(f"  {visible(line)}")
    for copy in [] if as_json else copies:
        click.echo(f"{copy['account']} {copy['mailbox']} UID {copy['uid']}: {copy['octets']} octets, {copy['seal']}")
        for line in journey.lines([journey.hop_from_dict(facts) for facts in copy["journey"]]):
            click.echo(f"  {visible(line)}")
    if not copies and not sent:
        click.echo(f"fubako: no letter with the id {trace_id} is kept here", err=True)
        return NOINPUT
    return 0

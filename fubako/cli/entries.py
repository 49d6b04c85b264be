"""`fubako domain|user|alias …` and `fubako trace`."""

import json
import sys
from pathlib import Path
from typing import BinaryIO, TextIO

import click

from fubako.accounts import directory, enrol, keys, secrets
from fubako.admin import journey, users
from fubako.cli.configured import config_option, json_option, load_found, show, with_store
from fubako.cli.exits import DATAERR, NOINPUT
from fubako.clock import Env
from fubako.config import MECHANISMS, possible_mechanisms

ENV = Env()
USES = (*secrets.PROTOCOLS, *MECHANISMS, "APOP")


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
    _show_secret(address, None if given else password, as_json)


def _show_secret(address: str, password: str | None, as_json: bool) -> None:
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
    _show_secret(address, None if given else password, as_json)


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


@user.group("device")
def user_device() -> None:
    """Passwords of devices: random, one each, and good for CRAM-MD5 and APOP too."""


@user_device.command("add")
@click.argument("address")
@click.option("--label", default="", help="What device it is for.")
@click.option(
    "--only", multiple=True, metavar="WHAT", type=click.Choice(USES, case_sensitive=False),
    help="A protocol (imap, pop3, smtp, ssh) or a mechanism (CRAM-MD5 …) it is good for. Give it once for each.",
)  # fmt: skip
@config_option
@json_option
def device_add(address: str, label: str, only: tuple[str, ...], config_file: Path | None, as_json: bool) -> None:
    """Make a device password for ADDRESS. It is shown once."""
    password = with_store(config_file, lambda store: users.add_device(store.database, ENV, address, label, only))
    _show_secret(address, password, as_json)


@user_device.command("list")
@click.argument("address")
@config_option
@json_option
def device_list(address: str, config_file: Path | None, as_json: bool) -> None:
    """The device passwords of ADDRESS, never what they are."""
    show(with_store(config_file, lambda store: users.list_devices(store.database, address)), as_json=as_json)


@user_device.command("revoke")
@click.argument("address")
@click.argument("number", type=int, metavar="ID")
@config_option
def device_revoke(address: str, number: int, config_file: Path | None) -> None:
    """A device is lost: its password is no longer good."""
    with_store(config_file, lambda store: users.revoke_device(store.database, address, number))


@user.group("key")
def user_key() -> None:
    """SSH keys: who holds one comes in at the SSH door."""


@user_key.command("add")
@click.argument("address")
@click.argument("file", type=click.File())
@click.option("--only", multiple=True, metavar="COMMAND", type=click.Choice(keys.COMMANDS),
              help=f"What the key may be used for: {', '.join(keys.COMMANDS)}. Give it once for each.")  # fmt: skip
@config_option
@json_option
def key_add(address: str, file: TextIO, only: tuple[str, ...], config_file: Path | None, as_json: bool) -> None:
    """Let the keys in FILE (id_ed25519.pub; - is standard input) prove ADDRESS.

    A line that begins with `cert-authority` is the key of an authority: who shows a certificate that it signed for the login name
    (ssh-keygen -s CA -n ADDRESS) comes in.
    """
    text = file.read()
    made = with_store(config_file, lambda store: enrol.add_keys(store.database, ENV, address, text, only))
    if as_json:
        click.echo(json.dumps([key.fingerprint for key in made]))
    for key in [] if as_json else made:
        click.echo(f"{key.fingerprint} {'authority ' if key.authority else ''}{key.kind}")


@user_key.command("list")
@click.argument("address")
@config_option
@json_option
def key_list(address: str, config_file: Path | None, as_json: bool) -> None:
    """The SSH keys of ADDRESS."""
    show(with_store(config_file, lambda store: enrol.list_keys(store.database, address)), as_json=as_json)


@user_key.command("remove")
@click.argument("address")
@click.argument("fingerprint")
@config_option
def key_remove(address: str, fingerprint: str, config_file: Path | None) -> None:
    """A key is lost: FINGERPRINT (SHA256:…) proves nobody any more. Open connections go on."""
    with_store(config_file, lambda store: enrol.remove_key(store.database, address, fingerprint))


@user.group("cert")
def user_cert() -> None:
    """Certificates of TLS clients: who shows one can log in with EXTERNAL."""


@user_cert.command("add")
@click.argument("address")
@click.argument("file", type=click.File("rb"))
@click.option("--label", default="", help="What it is; the subject when not given.")
@config_option
@json_option
def cert_add(address: str, file: BinaryIO, label: str, config_file: Path | None, as_json: bool) -> None:
    """Let the certificate in FILE (PEM) prove ADDRESS; it need not be signed by anybody. Only its key proves anything."""
    pem = file.read()
    made = with_store(config_file, lambda store: enrol.add_certificate(store.database, ENV, address, pem, label))
    click.echo(json.dumps({"address": address, "sha256": made.sha256}) if as_json else f"SHA-256 {made.sha256}")


@user_cert.command("list")
@click.argument("address")
@config_option
@json_option
def cert_list(address: str, config_file: Path | None, as_json: bool) -> None:
    """The client certificates of ADDRESS."""
    show(with_store(config_file, lambda store: enrol.list_certificates(store.database, address)), as_json=as_json)


@user_cert.command("remove")
@click.argument("address")
@click.argument("sha256")
@config_option
def cert_remove(address: str, sha256: str, config_file: Path | None) -> None:
    """The certificate with this SHA-256 proves nobody any more."""
    with_store(config_file, lambda store: enrol.remove_certificate(store.database, address, sha256))


@user.group("totp")
def user_totp() -> None:
    """A second factor: six digits of an authenticator program behind the main password."""


@user_totp.command("add")
@click.argument("address")
@config_option
@json_option
def totp_add(address: str, config_file: Path | None, as_json: bool) -> None:
    """Demand a code of ADDRESS. The secret is shown once, for an authenticator program.

    From then on the main password holds only with the current code behind it (`wordsAndWords123456`), where the password itself
    is said: PLAIN, LOGIN, USER and PASS, SSH. Programs that log in by themselves use device passwords; SSH keys and
    certificates go on as they are.
    """
    issuer = load_found(config_file)[0].hostname
    made = with_store(config_file, lambda store: enrol.add_totp(store.database, ENV, address, issuer))
    click.echo(
        json.dumps(made) if as_json else f"secret of {made['address']}, shown only now: {made['secret']}\n{made['uri']}"
    )


@user_totp.command("remove")
@click.argument("address")
@config_option
def totp_remove(address: str, config_file: Path | None) -> None:
    """The main password of ADDRESS is enough again."""
    with_store(config_file, lambda store: enrol.remove_totp(store.database, address))


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
@config_option
def alias_add(address: str, targets: tuple[str, ...], config_file: Path | None) -> None:
    """Deliver mail for ADDRESS to TARGETS."""
    with_store(config_file, lambda store: users.add_alias(store.database, address, targets))


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
        click.echo(f"{one['recipient']}: {one['state']}{': ' + one['reply'] if one['reply'] else ''}")
        for line in journey.lines([journey.hop_from_dict(facts) for facts in one["journey"]]):
            click.echo(f"  {line}")
    for copy in [] if as_json else copies:
        click.echo(f"{copy['account']} {copy['mailbox']} UID {copy['uid']}: {copy['octets']} octets, {copy['seal']}")
        for line in journey.lines([journey.hop_from_dict(facts) for facts in copy["journey"]]):
            click.echo(f"  {line}")
    if not copies and not sent:
        click.echo(f"fubako: no letter with the id {trace_id} is kept here", err=True)
        return NOINPUT
    return 0

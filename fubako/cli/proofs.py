"""`fubako user device|key|cert|totp …`: what an account can prove itself with besides its password."""

import json
from pathlib import Path
from typing import BinaryIO, TextIO

import click

from fubako.accounts import enrol, keys, secrets
from fubako.admin import users
from fubako.cli.configured import config_option, json_option, load_found, show, with_store
from fubako.cli.entries import ENV, show_secret, user
from fubako.config import MECHANISMS

USES = (*secrets.PROTOCOLS, *MECHANISMS, "APOP")


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
    show_secret(address, password, as_json)


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

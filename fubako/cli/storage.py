"""`fubako config check` and `fubako store …`."""

import json
import os
import sys
from pathlib import Path

import click
import msgspec

from fubako import app
from fubako.admin import transfer
from fubako.cli.configured import config_option, json_option, load_found, refuse_root, with_store
from fubako.cli.exits import DATAERR
from fubako.clock import Env
from fubako.config import warnings


@click.group()
def config() -> None:
    """The configuration."""


@config.command("check")
@config_option
def config_check(config_file: Path | None) -> None:
    """Read the configuration and its certificates; name every fault by its place."""
    found, base = load_found(config_file)
    app.load_tls(found, base)
    if found.access:
        app.load_access(base / found.access)
    if os.geteuid() == 0 and not found.user:
        refuse_root(found, base)
    for warning in warnings(found):
        click.echo(f"warning: {warning}", err=True)
    click.echo("the configuration is good")


@click.group()
def store() -> None:
    """The store: check it, copy it, get mail in and out."""


class _Progress:
    """A line on standard error while long work goes on; only where somebody looks."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        if self._shown:
            click.echo(f"\r{self._what}: {done}{f' of {total}' if total else ''}", err=True, nl=False)
            if done == total:
                click.echo("", err=True)


def _directory(config_file: Path | None) -> Path:
    config, base = load_found(config_file)
    return base / config.directory


@store.command("verify")
@config_option
@json_option
def store_verify(config_file: Path | None, as_json: bool) -> int:
    """Check every checksum, count and reference. Changes nothing; may run while the server does."""
    report = app.verify_store(_directory(config_file), _Progress("segments checked"))
    facts = msgspec.structs.asdict(report)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        for line in (*report.faults, *report.passed_over):
            click.echo(line)
        click.echo(
            f"{report.messages} messages, {report.blobs} contents, {report.octets} octets,"
            f" {report.orphan_octets} octets to be given back, {len(report.faults)} faults"
        )
    return DATAERR if report.faults else 0


@store.command("compact")
@config_option
def store_compact(config_file: Path | None) -> None:
    """Give back the room of removed messages. May run while the server does."""
    done = app.compact_store(_directory(config_file))
    click.echo(f"{done.octets} octets given back")
    for reason in done.damaged:
        click.echo(f"left where it is: {reason}", err=True)
    if done.short:
        click.echo("there is no room to move what lives out of some segments: make some, and run this again", err=True)


@store.command("backup")
@click.argument("target", type=click.Path(path_type=Path))
@config_option
def store_backup(target: Path, config_file: Path | None) -> None:
    """Copy the whole store to the folder TARGET. May run while the server does; a second run copies what is new."""
    octets = app.backup_store(_directory(config_file), target, _Progress("octets copied"))
    click.echo(f"{octets} octets in {target}")


@store.command("migrate")
@click.option("--dry-run", is_flag=True, help="Try all of it, and write nothing.")
@click.option("--back", is_flag=True, help="Go back to the rows as they were before the last migration.")
@click.option(
    "--without-newer", is_flag=True, help="With --back: also when messages came since, which are then not there."
)
@config_option
def store_migrate(config_file: Path | None, *, dry_run: bool, back: bool, without_newer: bool) -> int:
    """Bring the rows of a store to the format of this Fubako, while no server runs on it.

    A server does the same when it starts. The rows as they were are kept beside for a week; --back puts them in place again, for
    the older Fubako, as long as no content was moved since.
    """
    directory = _directory(config_file)
    if back:
        return _go_back(directory, without_newer=without_newer)
    done = app.migrate_store(directory, dry_run=dry_run)
    if done is None:
        click.echo("the store has the format of this Fubako")
    elif dry_run:
        click.echo(f"format {done.found} can become {done.version} by {done.statements} steps; nothing was written")
    else:
        click.echo(f"format {done.found} is {done.version} now; {done.copy} holds the rows as they were")
    return 0


def _go_back(directory: Path, *, without_newer: bool) -> int:
    newer = app.look_back(directory).messages
    if newer and not without_newer:
        click.echo(f"{newer} messages came since: `fubako store export` keeps them; then add --without-newer", err=True)
        return DATAERR
    done = app.back_store(directory)
    click.echo(f"the store has format {done.found} again; the newer rows are kept as mail.sqlite.newer")
    return 0


@store.command("export")
@click.argument("target", type=click.Path(path_type=Path))
@click.argument("addresses", nargs=-1)
@click.option("--format", "kind", type=click.Choice(["maildir", "mbox"]), default="maildir", show_default=True)
@config_option
def store_export(target: Path, addresses: tuple[str, ...], kind: str, config_file: Path | None) -> None:
    """Write mail to the folder TARGET, as Maildir++ or mbox, with flags and dates; of ADDRESSES, or of everybody."""

    async def work(opened: app.Store) -> int:
        progress = _Progress("messages written")
        return await transfer.export(opened.database, opened.blobs, list(addresses), target, kind, progress)

    click.echo(f"{with_store(config_file, work)} messages in {target}")


@store.command("import")
@click.argument("address")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--mailbox", default="", help="Where an mbox, or the Maildir itself, goes; INBOX when not given.")
@config_option
def store_import(address: str, source: Path, mailbox: str, config_file: Path | None) -> None:
    """Read SOURCE, a Maildir with its folders or an mbox file, into the mailboxes of ADDRESS, with flags and dates."""

    async def work(opened: app.Store) -> int:
        progress = _Progress("messages read")
        now = int(Env().clock.now())
        return await transfer.import_(opened.database, opened.blobs, address, source, mailbox, now, progress)

    click.echo(f"{with_store(config_file, work)} messages imported")

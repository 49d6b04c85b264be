"""`fubako queue …` and `fubako peer …`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fubako.admin import queue as admin
from fubako.cli.configured import config_option, json_option, show, with_store
from fubako.cli.exits import NOINPUT
from fubako.clock import Env
from fubako.message.trace import mail_date
from fubako.store.waiting import HOLD_FIELDS, Selection
from fubako.telemetry import visible

ENV = Env()


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which recipients are meant."""
    for name, text in (
        ("domain", "Recipients of this domain."),
        ("recipient", "This recipient."),
        ("sender", "Letters of this sender."),
    ):
        command = click.option(f"--{name}", default="", help=text)(command)
    return command


@click.group()
def queue() -> None:
    """Letters on their way to other servers."""


@queue.command("list")
@selection_options
@click.option("--limit", default=1000, show_default=True, help="At most so many recipients.")
@config_option
@json_option
def queue_list(sender: str, recipient: str, domain: str, limit: int, config_file: Path | None, as_json: bool) -> None:
    """What waits, a line a recipient."""
    selection = Selection("", sender, recipient, domain)
    rows = with_store(config_file, lambda store: admin.listed(store.database, selection, limit))
    show(rows if as_json else [_short(row) for row in rows], as_json=as_json)


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["queue_id"],
        "since": mail_date(row["created"])[5:22],
        "size": row["size"],
        "sender": row["sender"] or "<>",
        "recipient": row["recipient"],
        "tried": row["attempts"],
        "next": "held" if row["held"] else mail_date(row["next_attempt"])[5:22],
        "last answer": row["status"][:60],
    }


@queue.command("show")
@click.argument("queue_id")
@config_option
@json_option
def queue_show(queue_id: str, config_file: Path | None, as_json: bool) -> int:
    """Everything about one letter."""
    rows = with_store(config_file, lambda store: admin.listed(store.database, Selection(queue_id), 1000))
    if as_json:
        show(rows, as_json=True)
        return 0 if rows else NOINPUT
    for row in rows:
        for name, value in row.items():
            click.echo(f"{name:<13} {mail_date(value) if name in ('created', 'next_attempt') else visible(str(value))}")
        click.echo("")
    return 0 if rows else NOINPUT


@queue.command("why")
@click.argument("queue_id")
@config_option
@json_option
def queue_why(queue_id: str, config_file: Path | None, as_json: bool) -> None:
    """Why a letter is still here, what happens next, and when."""
    rows = with_store(config_file, lambda store: admin.why(store.database, ENV, queue_id))
    if as_json:
        show(rows, as_json=True)
        return
    for row in rows:
        click.echo(visible(f"{row['recipient']}: {row['why']}"))


def _changing(action: str, text: str, done: str) -> click.Command:
    """retry, hold, release and drop differ in one word."""

    @click.command(action, help=text)
    @click.argument("queue_id", default="", metavar="[ID]")
    @click.option("--all", "everything", is_flag=True, help="Every letter in the queue.")
    @selection_options
    @config_option
    def command(
        queue_id: str, everything: bool, sender: str, recipient: str, domain: str, config_file: Path | None
    ) -> int:
        selection = Selection(queue_id, sender, recipient, domain)
        if not everything and selection == Selection():
            raise click.UsageError("say which: an ID, --sender, --recipient, --domain or --all")
        count = with_store(config_file, lambda store: admin.change(store.database, ENV, action, selection))
        click.echo(f"{count} recipient{'' if count == 1 else 's'} {done}")
        return 0 if count else NOINPUT

    return command


for _command in (
    _changing("retry", "Try again now.", "will be tried now"),
    _changing(
        "requeue", "Send letters through the intake again: aliases, routes and filters as they are now.", "requeued"
    ),
    _changing("hold", "Keep letters where they are until they are released.", "held"),
    _changing("release", "Let held letters go on.", "released"),
    _changing("drop", "Throw letters away; nobody is told.", "dropped"),
):
    queue.add_command(_command)


@queue.group("rule")
def queue_rule() -> None:
    """Rules that hold letters to come, by sender, recipient or domain, until `fubako queue release`."""


field_argument = click.argument("field", type=click.Choice(HOLD_FIELDS))


@queue_rule.command("add")
@field_argument
@click.argument("value")
@click.option("--reason", default="", help="Why, for those who come after you.")
@config_option
def rule_add(field: str, value: str, reason: str, config_file: Path | None) -> None:
    """Hold every letter to come whose FIELD is VALUE."""
    with_store(config_file, lambda store: admin.add_hold_rule(store.database, ENV, field, value, reason))


@queue_rule.command("list")
@config_option
@json_option
def rule_list(config_file: Path | None, as_json: bool) -> None:
    """Every rule."""
    show(with_store(config_file, lambda store: admin.hold_rules(store.database)), as_json=as_json)


@queue_rule.command("remove")
@field_argument
@click.argument("value")
@config_option
def rule_remove(field: str, value: str, config_file: Path | None) -> None:
    """Let letters pass again; those that are held stay held."""
    with_store(config_file, lambda store: admin.remove_hold_rule(store.database, field, value))


@queue.command("summary")
@config_option
@json_option
def queue_summary(config_file: Path | None, as_json: bool) -> None:
    """How many recipients wait for each domain, by age in minutes."""
    show(with_store(config_file, lambda store: admin.summary(store.database, ENV)), as_json=as_json)


@click.group()
def peer() -> None:
    """What other servers were seen to offer.

    What a server offered at two times at least a day apart, and never less in between, is demanded of it for 30 days: one
    that offers less gets no message until it offers that again, or until it is forgotten here.
    """


@peer.command("list")
@config_option
@json_option
def peer_list(config_file: Path | None, as_json: bool) -> None:
    """Every server that is remembered, and its best protection."""
    rows = with_store(config_file, lambda store: admin.known_peers(store.database))
    if not as_json:
        rows = [row | {name: mail_date(row[name]) for name in ("first_seen", "last_seen")} for row in rows]
    show(rows, as_json=as_json)


@peer.command("forget")
@click.argument("server")
@config_option
def peer_forget(server: str, config_file: Path | None) -> None:
    """Let SERVER, named as `fubako peer list` names it, offer less than it did: its messages go on with what it offers now."""
    with_store(config_file, lambda store: admin.forget_peer(store.database, server))

"""`fubako report …`: what other domains told us of our mail, and what we saw of theirs."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from fubako.admin import reporting
from fubako.cli.configured import config_option, json_option, show, with_store
from fubako.cli.exits import DATAERR
from fubako.clock import Env

ENV = Env()


@click.group()
def report() -> None:
    """Reports about TLS (TLSRPT) and about forged letters (DMARC)."""


kind_option = click.option(
    "--kind", type=click.Choice(["tls", "dmarc"]), default="tls", show_default=True, help="Which reports."
)


@report.command("seen")
@kind_option
@config_option
@json_option
def report_seen(kind: str, config_file: Path | None, as_json: bool) -> None:
    """What this server saw of other domains, and will tell them."""
    show(with_store(config_file, lambda store: reporting.seen(store.database, kind)), as_json=as_json)


@report.command("read")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--mailbox", default="", metavar="ADDRESS", help="Read the letters in the INBOX of this user.")
@config_option
@json_option
def report_read(files: tuple[Path, ...], mailbox: str, config_file: Path | None, as_json: bool) -> int:
    """Read reports that others sent: letters or attachments, packed or not; `-` is standard input.

    They are kept, each once, and shown by `fubako report list`.
    """
    given = [(str(one), sys.stdin.buffer.read() if str(one) == "-" else one.read_bytes()) for one in files]
    rows = with_store(
        config_file,
        lambda store: reporting.read(store.database, store.blobs, store.pool, ENV, given, mailbox=mailbox),
    )
    show(rows, as_json=as_json)
    return DATAERR if any(row["problem"] for row in rows) else 0


@report.command("list")
@kind_option
@config_option
@json_option
def report_list(kind: str, config_file: Path | None, as_json: bool) -> None:
    """What others told us, summed up."""
    rows = with_store(config_file, lambda store: reporting.received(store.database, kind))
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    show([_short(row) for row in rows], as_json=False)


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "details"}

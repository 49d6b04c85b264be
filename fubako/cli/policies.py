"""`fubako policy try`: ask the rules before a letter does."""

import json
from pathlib import Path
from typing import Any

import click

from fubako import app
from fubako.accounts.recipients import Found, Recipients
from fubako.admin import trial
from fubako.cli.configured import config_option, json_option, load_found, with_store
from fubako.cli.exits import NOPERM, TEMPFAIL
from fubako.clock import Env
from fubako.message.address import parse_address
from fubako.policy.access import Access, checked_address
from fubako.policy.verdict import Verdict


@click.group()
def policy() -> None:
    """Who may send what to whom."""


@policy.command("try")
@click.option("--client", required=True, metavar="IP", help="Where the letter comes from.")
@click.option("--hello", "--name", "name", default="", metavar="NAME", help="The client's name.")
@click.option("--from", "sender", required=True, metavar="ADDR", help="The sender; <> is the null sender.")
@click.option("--to", "recipient", required=True, metavar="ADDR", help="The recipient.")
@click.option("--access", "access_file", type=click.Path(path_type=Path), metavar="FILE", help="Try this table alone.")
@config_option
@json_option
def policy_try(
    client: str,
    name: str,
    sender: str,
    recipient: str,
    access_file: Path | None,
    config_file: Path | None,
    as_json: bool,
) -> int:
    """What the service smtp would say to a letter, and the rule and line that decide: the access table and, with a
    configuration, the DNS lists and the recipient. Greylisting, rates and what is in the letter are not tried.

    Exit code 0: it is taken (or discarded), 77: refused, 75: refused for now.
    """
    letter = trial.Letter(client, sender, recipient, name)
    if access_file is not None:
        access, known = app.load_access(access_file), None
    else:
        access, known = _configured(config_file, letter)
    said = trial.tried(access, letter, known)
    _print(said, as_json)
    return {"reject": NOPERM, "defer": TEMPFAIL}.get(str(said["verdict"]), 0)


def _configured(config_file: Path | None, letter: trial.Letter) -> tuple[Access, trial.Known]:
    config, base = load_found(config_file)
    access = app.load_access(base / config.access) if config.access else Access({})
    address = parse_address(checked_address(letter.recipient))
    sender_domain = checked_address(letter.sender).rpartition("@")[2]

    async def look(store: app.Store) -> tuple[Found, str, Verdict]:
        gate = app.gate(config, app.LateResolver(config), store.database, Env())
        found = await Recipients(store.database, Env().clock).find(address)
        name = letter.name or (await gate.name(letter.client) if access.by_name else "")
        return found, name, await gate.sender(letter.client, letter.name, sender_domain)

    found, name, listed = with_store(config_file, look)
    routed = any(route.matches(address.domain) for route in app.routes(config, base))
    return access, trial.Known(local=found.local, mailbox=found.known, routed=routed, name=name, listed=listed)


def _print(said: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(said, ensure_ascii=False, indent=2))
        return
    click.echo(f"{said['verdict']}: {said['reply']}")
    if said["rule"]:
        where = f"line {said['line']}, at {said['stage']}" if said["line"] else "a rule of the server itself"
        click.echo(f"by {said['rule']} ({where})")
    if said["note"]:
        click.echo(said["note"])

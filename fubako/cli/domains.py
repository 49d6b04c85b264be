"""`fubako domain dns` and `fubako domain dkim …`: what the world must know of a domain."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click

from fubako import app
from fubako.admin import domains
from fubako.cli.configured import config_option, json_option, load_found, show, with_store
from fubako.cli.entries import domain
from fubako.cli.exits import TEMPFAIL
from fubako.clock import Env
from fubako.config import Config
from fubako.net.interface import Resolver
from fubako.store.domainkeys import DomainKey

T = TypeVar("T")
ENV = Env()
DIFFERS = 1


def _with_dns(config_file: Path | None, work: Callable[[app.Store, Config, Path, Resolver], Awaitable[T]]) -> T:
    config, base = load_found(config_file)
    resolver = app.LateResolver(config)
    return with_store(config_file, lambda store: work(store, config, base, resolver))


@domain.command("dns")
@click.argument("name")
@click.option("--check", "checked", is_flag=True, help="Ask DNS, and say of each record whether it is there.")
@config_option
@json_option
def domain_dns(name: str, checked: bool, config_file: Path | None, as_json: bool) -> int:
    """The DNS records that NAME needs: MX, SPF, DKIM, DMARC, MTA-STS, TLSRPT, DANE, SRV.

    Printed as a zone file. With --check the exit code is 1 when one is missing or different, 75 when DNS did not answer.
    """

    async def work(store: app.Store, config: Config, base: Path, resolver: Resolver) -> list[dict[str, str]]:
        chains = [chain.read_bytes() for chain, _ in config.certificate_paths(base)]
        wanted = await domains.records(store.database, config, name, chains)
        if checked:
            return await domains.check(resolver, wanted, name.lower())
        return [
            {"name": one.name, "type": one.type, "value": one.value, "why": one.why, "line": one.zone_line}
            for one in wanted
        ]

    rows = _with_dns(config_file, work)
    if not checked:
        _print(rows, config_file, name, as_json)
        return 0
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
    else:
        show(
            [
                {"state": row["state"], "name": row["name"], "type": row["type"], "found": row["found"][:70]}
                for row in rows
            ],
            as_json=False,
        )
    states = {row["state"] for row in rows}
    return TEMPFAIL if "unanswered" in states else DIFFERS if states - {"ok"} else 0


def _print(rows: list[dict[str, str]], config_file: Path | None, name: str, as_json: bool) -> None:
    config, _ = load_found(config_file)
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    for row in rows:
        click.echo(f"; {row['why']}")
        click.echo(row["line"])
    click.echo(f"\n; https://mta-sts.{name}/.well-known/mta-sts.txt")
    for line in domains.policy_file(config).splitlines():
        click.echo(f"; {line}")


@domain.group("dkim")
def domain_dkim() -> None:
    """Keys that sign the letters of a domain."""


@domain_dkim.command("list")
@click.argument("name", default="")
@config_option
@json_option
def dkim_list(name: str, config_file: Path | None, as_json: bool) -> None:
    """Every key, or those of NAME; private keys are never shown."""
    rows = with_store(config_file, lambda store: domains.keys(store.database, name))
    show(rows if as_json else [{k: v for k, v in row.items() if k != "record"} for row in rows], as_json=as_json)


@domain_dkim.command("rotate")
@click.argument("name")
@click.option("--force", is_flag=True, help="Do not look whether the new records are published.")
@config_option
@json_option
def dkim_rotate(name: str, force: bool, config_file: Path | None, as_json: bool) -> int:
    """Make keys for NAME, or change to new ones.

    The first keys sign at once. Later the command is called twice: it makes new keys and prints their records; called again, it
    sees that they are published, and they sign from then on. Leave the records of the old keys for a week, then
    `fubako domain dkim remove`. Exit code 75: the new records are not published yet.
    """

    async def work(store: app.Store, _c: Config, _b: Path, resolver: Resolver) -> tuple[str, list[DomainKey]]:
        async def published(key: DomainKey) -> bool:
            return force or await domains.is_published(resolver, key)

        return await domains.rotate(store.database, ENV, name, published)

    state, keys = _with_dns(config_file, work)
    lines = [row for row in _lines(config_file, name) if any(key.selector in row for key in keys)]
    if as_json:
        click.echo(json.dumps({"state": state, "selectors": [key.selector for key in keys], "records": lines}))
    else:
        click.echo(
            {
                "begun": "made; publish these records"
                + (", then call this again:" if keys[0].state == "new" else "; they sign already:"),
                "waits": "not published yet, the old keys go on signing:",
                "done": "these keys sign now:",
            }[state]
        )
        for line in lines:
            click.echo(line)
    return TEMPFAIL if state == "waits" else 0


def _lines(config_file: Path | None, name: str) -> list[str]:
    async def work(store: app.Store, config: Config, _b: Path, _r: Resolver) -> list[str]:
        return [one.zone_line for one in await domains.records(store.database, config, name, [])]

    return _with_dns(config_file, work)


@domain_dkim.command("remove")
@click.argument("name")
@click.argument("selector")
@config_option
def dkim_remove(name: str, selector: str, config_file: Path | None) -> None:
    """Forget a key; take its record out of DNS afterwards."""
    with_store(config_file, lambda store: domains.remove_key(store.database, name, selector))

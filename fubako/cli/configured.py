"""Finding the configuration and opening the store: what most commands begin with."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from fubako import app
from fubako.config import Config, ConfigError, load
from fubako.telemetry import visible

T = TypeVar("T")

config_option = click.option(
    "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="The configuration."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for other programs.")


def find_config(given: Path | None) -> Path:
    """`--config`, $FUBAKO_CONFIG, ./fubako.toml, /etc/fubako/fubako.toml: the first that is there."""
    if given is not None:
        return given
    named = os.environ.get("FUBAKO_CONFIG")
    if named:
        return Path(named)
    for path in (Path("fubako.toml"), Path("/etc/fubako/fubako.toml")):
        if path.exists():
            return path
    raise ConfigError("no configuration: name one with --config or $FUBAKO_CONFIG, or make one with `fubako up DIR`")


def load_found(given: Path | None) -> tuple[Config, Path]:
    """The configuration and the folder it stands in."""
    path = find_config(given)
    return load(path), path.resolve().parent


def refuse_root(config: Config, base: Path) -> None:
    """For a server that would go on as root. Raises ConfigError with all that would then run, or be written, as root."""
    as_root = app.runs_as_root(config, base / config.directory)
    if as_root:
        raise ConfigError(f"nothing is run or written as root: {'; '.join(as_root)}; or set `user`")


@asynccontextmanager
async def opened(given: Path | None) -> AsyncIterator[app.Store]:
    config, base = load_found(given)
    store = app.open_store(base / config.directory)
    try:
        yield store
    finally:
        await store.close()


def with_store(given: Path | None, work: Callable[[app.Store], Awaitable[T]]) -> T:
    """Run one operation on the store of the configuration."""
    result: list[T] = []

    async def main() -> int:
        async with opened(given) as store:
            result.append(await work(store))
        return 0

    app.run(main())
    return result[0]


def show(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """A table for people, one JSON array for programs."""
    if as_json:
        import json

        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    if not rows:
        return
    heads = list(rows[0])
    cells = [[_cell(row[head]) for head in heads] for row in rows]
    widths = [max(len(head), *(len(row[i]) for row in cells)) for i, head in enumerate(heads)]
    click.echo("  ".join(head.ljust(width) for head, width in zip(heads, widths, strict=True)).rstrip())
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return visible(", ".join(map(str, value)))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return visible(str(value))

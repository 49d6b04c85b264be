"""`fubako config check` and `fubako store …`."""

from pathlib import Path

import click

from fubako import app
from fubako.cli.configured import config_option, load_found


@click.group()
def config() -> None:
    """The configuration."""


@config.command("check")
@config_option
def config_check(config_file: Path | None) -> None:
    """Read the configuration and its certificates; name every fault by its place."""
    found, base = load_found(config_file)
    app.load_tls(found, base)
    if not found.listen:
        click.echo("warning: listen: no service is configured", err=True)
    if not found.tls.certificates:
        click.echo("warning: tls.certificates: none, so nobody can log in", err=True)
    click.echo("the configuration is good")


@click.group()
def store() -> None:
    """The store: check it, copy it, get mail in and out."""

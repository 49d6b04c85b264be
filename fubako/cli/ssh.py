"""`fubako ssh …`: what users of the SSH door need to know."""

import json
from pathlib import Path

import click

from fubako import app
from fubako.cli.configured import config_option, json_option, load_found


@click.group()
def ssh() -> None:
    """The SSH door."""


@ssh.command("fingerprints")
@config_option
@json_option
def fingerprints(config_file: Path | None, as_json: bool) -> int:
    """The server's host keys: as ssh shows them, as a line of known_hosts, and as SSHFP records for DNS (RFC 4255).

    Tell the fingerprint to your users by a way that nobody can change; it is what they compare at the first connection.
    """
    config, base = load_found(config_file)
    rows = [
        {"type": line.partition(" ")[0], "fingerprint": fingerprint, "known_hosts": f"{config.hostname} {line}",
         "sshfp": f"{config.hostname}. IN SSHFP {record}"}
        for line, fingerprint, record in app.public_host_keys(config, base)
    ]  # fmt: skip
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    for row in [] if as_json else rows:
        click.echo(f"{row['fingerprint']} ({row['type']})\n  {row['known_hosts']}\n  {row['sshfp']}")
    return 0

"""`fubako`: the list of commands."""

from importlib import import_module

import click

from fubako import __version__
from fubako.cli.exits import Sentences

_HOMES = {
    "account": "accounting", "alias": "entries", "compat": "compat", "config": "storage", "domain": "domains",
    "fetch": "fetching", "imapd": "pipes", "lmtpd": "pipes", "mx": "roads", "peer": "queueing", "policy": "policies",
    "pop3d": "pipes", "probe": "probing", "queue": "queueing", "read": "reading", "report": "reporting", "send": "sending",
    "serve": "serve", "sieve": "sieve", "smtpd": "pipes", "ssh": "ssh", "store": "storage", "trace": "entries",
    "trust": "trusting", "up": "up", "user": "proofs", "wrap": "roads",
}  # fmt: skip


class Commands(Sentences):
    """Each command is loaded when it is called, so that none waits for what another one needs."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return sorted(_HOMES)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        home = _HOMES.get(name)
        if home is None:
            return None
        command: click.Command = getattr(import_module(f"fubako.cli.{home}"), name)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fubako")
def fubako() -> None:
    """A mail server that takes a letter safely the whole way, and shows how.

    \b
    fubako up            a whole server on this machine, with two users, in a minute
    fubako serve         for real use, from a configuration
    fubako trace ID      how a letter was protected on each leg of its way
    """

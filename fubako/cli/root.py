"""`fubako`: the list of commands."""

import click

from fubako import __version__
from fubako.cli.exits import Sentences


@click.group(cls=Sentences, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fubako")
def fubako() -> None:
    """A mail server that takes a letter safely the whole way, and shows how.

    \b
    fubako up            a whole server on this machine, with two users, in a minute
    fubako serve         for real use, from a configuration
    fubako trace ID      how a letter was protected on each leg of its way
    """


def _register() -> None:
    from fubako.cli import compat, domains, entries, policies, queueing, reporting, serve, storage, up

    for command in (
        up.up, serve.serve, entries.domain, entries.user, entries.alias, entries.trace, queueing.queue, queueing.peer,
        policies.policy, reporting.report, compat.compat, storage.config, storage.store,
    ):  # fmt: skip
        fubako.add_command(command)
    entries.domain.add_command(domains.domain_dns)
    entries.domain.add_command(domains.domain_dkim)


_register()

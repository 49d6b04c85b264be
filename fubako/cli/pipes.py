"""`fubako imapd|pop3d|smtpd|lmtpd`: one session on standard input and output, for inetd, systemd, ssh, and mutt's tunnel."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import click

from fubako import app
from fubako.accounts import directory
from fubako.accounts.identity import Identity
from fubako.cli.configured import config_option, load_found
from fubako.clock import Env
from fubako.net import stdio, tcp
from fubako.net.interface import Stream
from fubako.net.stdio import StdioStream
from fubako.server.imap import ImapSession
from fubako.server.pop3 import Pop3Session
from fubako.server.session import Arrival, Resources, Session
from fubako.server.smtp import SmtpSession
from fubako.telemetry import Telemetry

# the mechanism that is recorded: nobody was asked, because only the right one can be at the other end
PREAUTH = "PREAUTH"
Kind = Callable[[Resources, Arrival], Session]


async def _connection(trusted: bool) -> tuple[Stream, asyncio.Future[None] | None]:
    """Standard input: a network connection, or a pipe. Over a pipe the bytes are as safe as whoever holds its other end."""
    connection = stdio.inherited_socket()
    if connection is not None:
        stream = await tcp.accepted(connection)
        return stream, stream.closed
    pipe, written = await stdio.standard(f"user {os.environ.get('USER') or os.getuid()}")
    assert isinstance(pipe, StdioStream)
    pipe.local = trusted
    return pipe, written


def _owns(store: Path) -> bool:
    """Whether the caller could read every letter anyway: root, or the owner of the store."""
    return os.geteuid() in (0, store.stat().st_uid)


def _same_file(one: int, other: int) -> bool:
    return os.path.sameopenfile(one, other)


async def _talk(
    kind: Kind, service: str, protocol: str, config_file: Path | None, user: str, trusted: bool, implicit_tls: bool
) -> int:
    config, base = load_found(config_file)
    folder = base / config.directory
    if user and stdio.inherited_socket() is not None:
        raise PermissionError("--user is for a pipe: whoever comes over the network has to log in")
    store = app.open_store(folder)
    if user and not _owns(folder):
        raise PermissionError(f"only root and the owner of {folder} may open the mailbox of {user} without a login")
    env = Env()
    quiet = config.quiet or bool(user) or _same_file(0, 2)  # under inetd standard error is the connection
    application = app.Application(config, base, store, Telemetry(quiet=quiet), env)
    try:
        proved = None
        if user:
            account = await store.database.read(lambda tx: directory.account(tx, user))
            proved = Identity(account, PREAUTH)
        stream, written = await _connection(trusted or bool(user))
        tls = application.tls.get(protocol)
        arrival = Arrival(stream, service, tls.pump if tls is not None else None, implicit_tls, proved)
        await kind(application.resources, arrival).run()
        if written is not None:
            await written
    finally:
        await application.close()
    return 0


def _command(name: str, kind: Kind, service: str, protocol: str, what: str) -> click.Command:
    @click.command(name, help=f"{what} on standard input and output, for inetd, systemd (Accept=yes), ssh, or by hand.\n\n"
                   "With --user it begins without a login, as that user; only root and the owner of the store may say so, and only "
                   "on a pipe. Without it a login is asked for, and before it TLS, unless --trusted-pipe says that nobody else can "
                   "read the pipe.")  # fmt: skip
    @click.option("--user", default="", metavar="ADDRESS", help="Begin as this user, without a login.")
    @click.option(
        "--trusted-pipe", is_flag=True, help="Nobody else can read this pipe: a password may be said without TLS."
    )
    @click.option("--tls", "implicit_tls", is_flag=True, help="TLS from the first byte.")
    @config_option
    def command(user: str, trusted_pipe: bool, implicit_tls: bool, config_file: Path | None) -> int:
        return app.run(_talk(kind, service, protocol, config_file, user, trusted_pipe, implicit_tls))

    return command


imapd = _command("imapd", ImapSession, "imap", "imap", "IMAP")
pop3d = _command("pop3d", Pop3Session, "pop3", "pop3", "POP3")
smtpd = _command("smtpd", SmtpSession, "submission", "smtp", "Submission (SMTP)")


@click.command("lmtpd")
@config_option
def lmtpd(config_file: Path | None) -> int:
    """LMTP on standard input and output: letters for the users here, from a program that may write into the store."""
    return app.run(_talk(SmtpSession, "lmtp", "smtp", config_file, "", True, False))

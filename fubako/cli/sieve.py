"""`fubako sieve`: filters of a mailbox elsewhere, by ManageSieve."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click

from fubako import app, modes
from fubako.cli.configured import json_option, show
from fubako.cli.exits import DATAERR, NOINPUT
from fubako.cli.troubles import TROUBLES, code_of
from fubako.cli.trusting import ask, known_peers, telling, transcript_option
from fubako.client import settings
from fubako.client.connection import ClientError
from fubako.client.managesieve import ManageSieveConnection
from fubako.client.roads import Roads, reject
from fubako.client.settings import Account, SettingsError
from fubako.clock import Env
from fubako.message.display import clean
from fubako.protocol.managesieve import SCRIPT_MAX
from fubako.telemetry import visible

Work = Callable[[ManageSieveConnection], Awaitable[int]]


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every command of the group takes."""
    for option in (
        json_option,
        transcript_option,
        click.option(
            "--accounts",
            "accounts_file",
            type=click.Path(path_type=Path),
            help="accounts.toml; in ~/.config/fubako when not given.",
        ),
        click.option(
            "-a", "--account", "name", default="", help="The account; the first of protocol sieve when not given."
        ),
    ):
        command = option(command)
    return command


@click.group()
def sieve() -> None:
    """Filters of a mailbox elsewhere: Sieve scripts on its server, by ManageSieve (RFC 5804).

    \b
    ~/.config/fubako/accounts.toml:
      [[account]]
      name = "work-filters"
      protocol = "sieve"
      tls = "starttls"
      host = "imap.example.org"
      user = "ann"
      password_file = "~/.secrets/work"

    One script is active: it filters. Exit codes: 65 the server does not take the script, 69 no connection or it refuses, 77 login
    refused, 78 settings, 80 certificate not believed, 81 certificate CHANGED, 82 less protection than before, 83 no TLS.
    """


def _account(name: str, accounts_file: Path | None) -> Account:
    """Raises SettingsError."""
    path = accounts_file or settings.home() / "accounts.toml"
    chosen = [one for one in settings.load(path) if one.protocol == "sieve" and name in ("", one.name)]
    if not chosen:
        raise SettingsError(f"{path}: there is no account{' ' + name if name else ''} of protocol sieve")
    return chosen[0]


def _run(name: str, accounts_file: Path | None, transcript: str, work: Work) -> int:
    """Log in, do it, leave."""
    account = _account(name, accounts_file)

    async def done() -> int:
        roads = Roads(known_peers(), Env(), ask if sys.stdin.isatty() else reject, resolver=app.resolver)
        roads.transcript = telling(transcript)
        try:
            async with roads.ready(account) as connection:
                assert isinstance(connection, ManageSieveConnection)
                code = await work(connection)
                await connection.leave()
                return code
        except TROUBLES as error:
            click.echo(f"fubako: {account.name}: {visible(str(error) or type(error).__name__)}", err=True)
            return code_of(error)
        finally:
            await roads.close()

    return app.run(done())


def _told(connection: ManageSieveConnection, what: str, facts: dict[str, object], *, as_json: bool) -> int:
    """What was done, and what the server added to it."""
    if as_json:
        click.echo(json.dumps(facts | {"server": connection.said}, ensure_ascii=False))
        return 0
    click.echo(visible(what))
    if connection.said:
        click.echo(f"the server says: {_lines(connection.said)}", err=True)
    return 0


def _read(file: Path) -> bytes:
    """Raises OSError, click.UsageError."""
    content = sys.stdin.buffer.read(SCRIPT_MAX + 1) if str(file) == "-" else file.read_bytes()
    if len(content) > SCRIPT_MAX:
        raise click.UsageError(f"{file} is larger than any script ({SCRIPT_MAX} octets)")
    return content


def _written(output: Path, content: bytes) -> None:
    """Raises OSError where there is a file already."""
    with open(output, "xb", opener=modes.opener) as file:
        file.write(content)


def _lines(text: str) -> str:
    """What a server says of a script has many lines."""
    return "\n".join(map(visible, text.splitlines()))


async def _refusable(work: Awaitable[None]) -> str:
    """What the server has against a script; empty: nothing."""
    try:
        await work
    except ClientError as error:
        return str(error)
    return ""


@sieve.command("list")
@_common
def sieve_list(name: str, accounts_file: Path | None, transcript: str, as_json: bool) -> int:
    """Every script there, and which one is active."""

    async def work(connection: ManageSieveConnection) -> int:
        show([{"script": one, "active": active} for one, active in await connection.scripts()], as_json=as_json)
        return 0

    return _run(name, accounts_file, transcript, work)


@sieve.command("get")
@click.argument("script")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A new file; standard output when not given.")
@_common
def sieve_get(
    script: str, output: Path | None, name: str, accounts_file: Path | None, transcript: str, as_json: bool
) -> int:  # fmt: skip
    """Read a script. To a terminal it is written without what would steer the terminal, to a file or program as it is."""

    async def work(connection: ManageSieveConnection) -> int:
        content = await connection.script(script)
        if output is not None:
            await asyncio.to_thread(_written, output, content)
        if as_json:
            click.echo(
                json.dumps({"script": script, "content": content.decode("utf-8", "replace")}, ensure_ascii=False)
            )
        elif output is None and sys.stdout.isatty():
            click.echo(clean(content.decode("utf-8", "replace")))
        elif output is None:
            sys.stdout.buffer.write(content)
            sys.stdout.flush()
        return 0

    return _run(name, accounts_file, transcript, work)


@sieve.command("put")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--name", "script", default="", help="How it is called there; the file's name without .sieve when not given."
)
@click.option("--activate", is_flag=True, help="It filters from now on.")
@_common
def sieve_put(
    file: Path, script: str, activate: bool, name: str, accounts_file: Path | None, transcript: str, as_json: bool
) -> int:
    """Keep FILE there (- for standard input); a script of that name is replaced, once the server has understood the new one."""
    called = script or ("" if str(file) == "-" else file.name.removesuffix(".sieve").removesuffix(".siv"))
    if not called:
        raise click.UsageError("what is it called there? --name NAME")
    try:
        content = _read(file)
    except OSError as error:
        click.echo(f"fubako: {file}: {error.strerror}", err=True)
        return NOINPUT

    async def work(connection: ManageSieveConnection) -> int:
        against = await _refusable(connection.put(called, content))
        if against:
            click.echo(_lines(f"fubako: {called}: {against}"), err=True)
            return DATAERR
        said = connection.said
        if activate:
            await connection.activate(called)
            connection.said = said
        what = f"{called} is kept{' and active' if activate else ''}"
        return _told(connection, what, {"script": called, "active": activate}, as_json=as_json)

    return _run(name, accounts_file, transcript, work)


@sieve.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@_common
def sieve_check(file: Path, name: str, accounts_file: Path | None, transcript: str, as_json: bool) -> int:
    """Whether the server understands FILE (- for standard input); nothing is kept."""
    try:
        content = _read(file)
    except OSError as error:
        click.echo(f"fubako: {file}: {error.strerror}", err=True)
        return NOINPUT

    async def work(connection: ManageSieveConnection) -> int:
        against = await _refusable(connection.check(content))
        if against:
            click.echo(_lines(f"fubako: {file}: {against}"), err=True)
            return DATAERR
        return _told(connection, f"{file} is understood", {"file": str(file)}, as_json=as_json)

    return _run(name, accounts_file, transcript, work)


@sieve.command("activate")
@click.argument("script")
@_common
def sieve_activate(script: str, name: str, accounts_file: Path | None, transcript: str, as_json: bool) -> int:
    """Let SCRIPT filter from now on."""

    async def work(connection: ManageSieveConnection) -> int:
        await connection.activate(script)
        return _told(connection, f"{script} is active", {"script": script, "active": True}, as_json=as_json)

    return _run(name, accounts_file, transcript, work)


@sieve.command("deactivate")
@_common
def sieve_deactivate(name: str, accounts_file: Path | None, transcript: str, as_json: bool) -> int:
    """Let no script filter; all of them stay there."""

    async def work(connection: ManageSieveConnection) -> int:
        await connection.activate("")
        return _told(connection, "no script is active", {"script": "", "active": False}, as_json=as_json)

    return _run(name, accounts_file, transcript, work)


@sieve.command("delete")
@click.argument("script")
@_common
def sieve_delete(script: str, name: str, accounts_file: Path | None, transcript: str, as_json: bool) -> int:
    """Remove SCRIPT there; the active one has to be deactivated first."""

    async def work(connection: ManageSieveConnection) -> int:
        await connection.delete(script)
        return _told(connection, f"{script} is deleted", {"deleted": script}, as_json=as_json)

    return _run(name, accounts_file, transcript, work)


@sieve.command("rename")
@click.argument("old")
@click.argument("new")
@_common
def sieve_rename(old: str, new: str, name: str, accounts_file: Path | None, transcript: str, as_json: bool) -> int:
    """Call OLD there NEW; an active script stays active."""

    async def work(connection: ManageSieveConnection) -> int:
        await connection.rename(old, new)
        return _told(connection, f"{old} is {new} now", {"old": old, "new": new}, as_json=as_json)

    return _run(name, accounts_file, transcript, work)

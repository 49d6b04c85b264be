"""`fubako up`: a whole server on this machine that proves itself, then serves."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import click

from fubako import app, modes
from fubako.admin import journey, quickstart
from fubako.admin.proof import prove
from fubako.admin.recipes import recipes
from fubako.clock import Env
from fubako.config import SERVICES, UNIX_SERVICES, Config, load, split_address
from fubako.store.interface import StoreError
from fubako.store.migration import Migration
from fubako.telemetry import Telemetry

RENEW_LOOK_SECONDS = 6 * 3600.0


@click.command()
@click.argument("directory", metavar="[DIR]", type=click.Path(path_type=Path), default=Path("fubako-data"))
@click.option("--once", is_flag=True, help="Stop after the proof; the exit code tells whether it held.")
@click.option(
    "--offset", type=click.IntRange(0, 60000), default=2000, show_default=True, help="Added to every standard port."
)
@click.option("--bind", multiple=True, metavar="ADDRESS", help="Where to listen; 127.0.0.1 and ::1 when not given.")
@click.option("--events", is_flag=True, help="Show the server's events as they happen.")
def up(directory: Path, once: bool, offset: int, bind: tuple[str, ...], events: bool) -> int:
    """Make a mail server in DIR, prove it with a real letter, serve.

    The first time, DIR gets a configuration, a certificate authority of its own, the domain fubako.test and the users alice
    and bob with random passwords (in DIR/quickstart.json). After that everything is found as it was; --offset and --bind
    count only the first time. Ctrl-C ends it.
    """
    app.tune()
    place = quickstart.Place(directory)
    hosts = bind or tuple(host for host in ("127.0.0.1", "::1") if host != "::1" or _has_ipv6())
    app.act_as_owner(directory)
    try:
        modes.folder(directory)
    except OSError as error:
        raise StoreError(f"{directory} cannot be made: {error.strerror}") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise StoreError(f"{directory} cannot be written to")
    first = not place.facts.exists()
    quickstart.write_config(place, hosts, offset)
    return app.run(_up(place, once=once, first=first, events=events))


def _tell_migrated(done: Migration) -> None:
    click.echo(f"format {done.found} of the store is {done.version} now; {done.copy} holds the rows as they were")


def _has_ipv6() -> bool:
    return Path("/proc/net/if_inet6").exists() and bool(Path("/proc/net/if_inet6").read_text().strip())


async def _up(place: quickstart.Place, *, once: bool, first: bool, events: bool) -> int:
    env = Env()
    config = load(place.config)
    held = app.claim(place.root / config.directory, _tell_migrated)
    app.mend_modes(place.root / config.directory)
    hosts = sorted(
        {
            split_address(address)[0]
            for one in config.listen
            if one.service not in UNIX_SERVICES
            for address in one.addresses
        }
    )
    quickstart.ensure_certificates(place, hosts, env.clock.now())
    for what in app.mend(place.root / config.directory):
        click.echo(f"mended after an unclean end: {what}")
    if os.geteuid() == 0:
        for what in app.runs_as_root(config, place.root / config.directory):
            click.echo(f"waits, because nothing is run or written as root: {what}")
    bound = app.bind(config, place.root)
    telemetry = Telemetry(quiet=not events)
    store = app.open_store(place.root / config.directory, pool=app.pool(config, telemetry))
    application = app.Application(config, place.root, store, telemetry, env, server=True)
    try:
        facts = await quickstart.ensure_accounts(place, application.store.database, env, _services(config, place.root))
        await application.listen(bound)
        proof = await prove(facts, application.store.database, env)
        _show_proof(proof, first, place, facts)
        if not once:
            await _serve(application, place, hosts, env)
        return 0
    finally:
        await application.close()
        place.lmtp.unlink(missing_ok=True)
        os.close(held)


def _services(config: Config, base: Path) -> dict[str, Any]:
    services: dict[str, Any] = {}
    for one in config.listen:
        if one.service in SERVICES and one.addresses:
            host, port = split_address(one.addresses[0])
            services[one.service] = {"host": host, "port": port}
    if "ssh" in services:
        line, fingerprint, _ = app.public_host_keys(config, base)[0]
        services["ssh"] |= {"fingerprint": fingerprint, "host_key": line}
    return services


def _show_proof(proof: Any, first: bool, place: quickstart.Place, facts: dict[str, Any]) -> None:
    click.echo("A letter went from alice to bob and was read back, octet for octet. Its way:")
    for line in journey.lines(proof.hops):
        click.echo(f"  {line}")
    click.echo(
        f"Seal of the whole way: {proof.seal.value}. See it again: fubako trace {proof.trace_id} --config {place.config}\n"
    )
    if first:
        click.echo("Two users, passwords shown only now (they stand in quickstart.json too):")
        for account in facts["accounts"]:
            click.echo(
                f"  {account['address']}  password {account['password']}  device password {account['device_password']}"
            )
        click.echo("")
    if not first:
        click.echo(f"Users and passwords stand in {place.facts}.\n")
    click.echo("Ready to copy:")
    for program, text in recipes(facts):
        click.echo(f"  {program}:\n    {text}")
    click.echo("")


async def _serve(application: app.Application, place: quickstart.Place, hosts: list[str], env: Env) -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    application.keep_house()
    application.run_queue()
    click.echo("Serving. Ctrl-C ends it.")
    while not stopping.is_set():
        try:
            await asyncio.wait_for(stopping.wait(), RENEW_LOOK_SECONDS)
        except TimeoutError:
            if quickstart.ensure_certificates(place, hosts, env.clock.now()):
                application.reload(load(place.config))
    click.echo("Ended cleanly.")

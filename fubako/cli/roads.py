"""`fubako wrap` and `mx`: TLS for programs that have none; where mail goes."""

import asyncio
import json
import signal
from pathlib import Path

import click

from fubako import app
from fubako.admin.lookup import NoMail, lookup
from fubako.cli.configured import json_option
from fubako.cli.exits import NOHOST, TEMPFAIL
from fubako.client import wrap as wrapping
from fubako.client.connection import ClientError, Peer
from fubako.clock import Env
from fubako.config import Config, ConfigError, Dns, is_loopback, split_address
from fubako.net import tcp
from fubako.net.interface import Stream, StreamClosed, StreamTimeout, TlsError
from fubako.net.tls import Certificate, ServerTls
from fubako.protocol.engine import ProtocolError
from fubako.telemetry import visible
from fubako.trust.judge import NotBelieved

CONNECTIONS_MAX = 500


@click.command()
@click.argument("listen", metavar="LISTEN")
@click.argument("target", metavar="TARGET")
@click.option("--starttls", type=click.Choice(wrapping.STARTTLS), help="Towards TARGET by STARTTLS of this protocol.")
@click.option(
    "--server-name", default="", help="The name that TARGET's certificate must hold; its host when not given."
)
@click.option(
    "--ca-file", multiple=True, type=click.Path(path_type=Path), help="Believe this authority (PEM), and no public one."
)
@click.option("--pin", multiple=True, metavar="SHA256", help="Believe this certificate alone.")
@click.option(
    "--cert", type=click.Path(path_type=Path), help="Our certificate (PEM): TLS in front of TARGET, which has none."
)
@click.option("--key", type=click.Path(path_type=Path), help="Its key (PEM).")
@click.option(
    "--anywhere", is_flag=True, help="Let the side without TLS be on another machine, where others can read it."
)
def wrap(
    listen: str, target: str, starttls: str | None, server_name: str, ca_file: tuple[Path, ...], pin: tuple[str, ...],
    cert: Path | None, key: Path | None, anywhere: bool,
) -> int:  # fmt: skip
    """TLS where a program has none, until Ctrl-C. LISTEN and TARGET are host:port.

    \b
    fubako wrap 127.0.0.1:1143 imap.example.org:993                   towards a server, TLS from the first byte
    fubako wrap 127.0.0.1:1025 mail.example.org:587 --starttls smtp   towards a server, STARTTLS
    fubako wrap 0.0.0.0:993 127.0.0.1:143 --cert c.pem --key k.pem    in front of a server that has none

    Towards a server its certificate is checked, always; there is no way to leave that out but a pin. The side without TLS has
    to be this machine.
    """  # fmt: skip
    here, there = split_address(listen, "LISTEN", "address"), split_address(target, "TARGET", "address")
    plain = there if cert else here
    if not is_loopback(plain[0]) and not anywhere:
        raise ConfigError(
            f"{plain[0]} is not this machine, and that side is not encrypted (--anywhere, if you know better)"
        )
    if (cert is None) is not (key is None) or (cert and (starttls or pin or ca_file)):
        raise click.UsageError("--cert and --key belong together, and are for TLS in front of a server")
    name = server_name or there[0]
    authority = "an authority of yours" if ca_file else "a public authority"
    peer = Peer(*there, name, ca_file, not ca_file, authority, frozenset(map(str.lower, pin)), starttls is None)
    ours = ServerTls([Certificate.load(cert, key)]) if cert and key else None
    return app.run(_wrap(here, peer, ours, starttls or ""))


async def _wrap(here: tuple[str, int], peer: Peer, ours: ServerTls | None, starttls: str) -> int:
    tasks: set[asyncio.Task[None]] = set()
    env = Env()

    async def one(near: tcp.TcpStream) -> None:
        try:
            if ours is None:
                await wrapping.towards(near, peer, env, starttls)
            else:
                await wrapping.before(near, ours.pump(), connected)
        except (ClientError, NotBelieved, TlsError, ProtocolError, StreamClosed, StreamTimeout, OSError) as error:
            click.echo(f"fubako: {near.peer}: {visible(str(error) or type(error).__name__)}", err=True)
        finally:
            near.close()

    async def connected() -> Stream:
        return await tcp.connect(peer.host, peer.port)

    def came(near: tcp.TcpStream) -> None:
        if len(tasks) >= CONNECTIONS_MAX:
            near.close()
            return
        task = asyncio.get_running_loop().create_task(one(near))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    try:
        server = await tcp.listen(tcp.bound_socket(*here), came)
    except OSError as error:
        raise ConfigError(f"LISTEN: {here[0]}:{here[1]}: {error.strerror}") from None
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    click.echo(f"{here[0]}:{here[1]} -> {peer.host}:{peer.port}. Ctrl-C ends it.")
    await stopping.wait()
    server.close()
    for task in tasks:
        task.cancel()
    return 0


@click.command()
@click.argument("domain")
@click.option(
    "--dns",
    "servers",
    multiple=True,
    metavar="HOST:PORT",
    help="Ask this resolver; DNSSEC counts only on this machine.",
)
@click.option("--no-https", is_flag=True, help="Do not fetch the MTA-STS policy.")
@json_option
def mx(domain: str, servers: tuple[str, ...], no_https: bool, as_json: bool) -> int:
    """Where letters to DOMAIN go, and what would be demanded of each host before anything is said there.

    Exit codes: 68 there is nowhere to go, 75 DNS does not tell now.
    """
    config = Config(hostname="localhost", dns=Dns(servers=servers))
    for one in servers:
        split_address(one, "--dns", "address")
    resolver = app.LateResolver(config)
    found: list[dict[str, object]] = []

    async def ask() -> int:
        found.append(await lookup(resolver, None if no_https else app.LateHttps(resolver), domain))
        return 0

    try:
        app.run(ask())
    except NoMail as reason:
        click.echo(f"fubako: {reason}", err=True)
        return NOHOST
    facts = found[0]
    hosts = facts["hosts"]
    assert isinstance(hosts, list)
    code = TEMPFAIL if all(host["problem"] for host in hosts) else 0
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False, indent=2))
        return code
    click.echo(f"{domain}: DNSSEC {'holds' if facts['dnssec'] else 'says nothing'}; MTA-STS {facts['mta_sts'] or 'none'}"
               f"{' (' + str(facts['mta_sts_problem']) + ')' if facts['mta_sts_problem'] else ''}")  # fmt: skip
    for host in hosts:
        click.echo(visible(f"{host['preference']:>5} {host['host']}  {' '.join(host['addresses'])}"))
        click.echo(visible(f"      {host['problem'] or host['demand']}"))
    return code

"""`fubako wrap` and `mx`: TLS for programs that have none; where mail goes."""

import asyncio
import json
import signal
import socket
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
from fubako.net import proxy as proxying
from fubako.net import tcp
from fubako.net.interface import Stream, StreamClosed, StreamTimeout, TlsError, TlsFacts
from fubako.net.tls import Certificate, ServerTls
from fubako.protocol.engine import ProtocolError
from fubako.telemetry import visible
from fubako.trust.judge import NotBelieved

CONNECTIONS_MAX = 500


@click.command()
@click.argument("listen", metavar="LISTEN")
@click.argument("target", metavar="TARGET")
@click.option("--starttls", type=click.Choice(wrapping.STARTTLS), help="TLS by STARTTLS of this protocol.")
@click.option(
    "--server-name",
    default="",
    help="The name that TARGET's certificate must hold, and that is asked for; its host when not given.",
)
@click.option(
    "--ca-file", multiple=True, type=click.Path(path_type=Path), help="Believe this authority (PEM), and no public one."
)
@click.option("--pin", multiple=True, metavar="SHA256", help="Believe this certificate alone.")
@click.option("--client-cert", type=click.Path(path_type=Path), help="A certificate (PEM) to show to TARGET.")
@click.option("--client-key", type=click.Path(path_type=Path), help="Its key (PEM).")
@click.option(
    "--cert",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Our certificate (PEM): TLS in front of TARGET, which has none.",
)
@click.option(
    "--key",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Its key; several pairs are chosen by the name that is asked for.",
)
@click.option(
    "--client-ca",
    multiple=True,
    type=click.Path(path_type=Path),
    help="In front: only clients with a certificate of this authority.",
)
@click.option(
    "--proxy", type=click.Choice(["v1", "v2"]), help="Tell TARGET who the client is (PROXY protocol; v2 with its TLS)."
)
@click.option(
    "--anywhere", is_flag=True, help="Let the side without TLS be on another machine, where others can read it."
)
def wrap(
    listen: str, target: str, starttls: str | None, server_name: str, ca_file: tuple[Path, ...], pin: tuple[str, ...],
    client_cert: Path | None, client_key: Path | None, cert: tuple[Path, ...], key: tuple[Path, ...], client_ca: tuple[Path, ...],
    proxy: str | None, anywhere: bool,
) -> int:  # fmt: skip
    """TLS where a program has none, until Ctrl-C. LISTEN and TARGET are host:port.

    \b
    fubako wrap 127.0.0.1:1143 imap.example.org:993                   towards a server, TLS from the first byte
    fubako wrap 127.0.0.1:1025 mail.example.org:587 --starttls smtp   towards a server, STARTTLS
    fubako wrap 0.0.0.0:993 127.0.0.1:143 --cert c.pem --key k.pem    in front of a server that has none
    fubako wrap 0.0.0.0:143 127.0.0.1:1143 --starttls imap --cert c.pem --key k.pem

    Towards a server its certificate is checked, always; there is no way to leave that out but a pin. In front of one, STARTTLS is
    the only thing that is answered before TLS. The side without TLS has to be this machine.
    """
    here, there = split_address(listen, "LISTEN", "address"), split_address(target, "TARGET", "address")
    plain = there if cert else here
    if not is_loopback(plain[0]) and not anywhere:
        raise ConfigError(
            f"{plain[0]} is not this machine, and that side is not encrypted (--anywhere, if you know better)"
        )
    if len(cert) != len(key) or (cert and (pin or ca_file or client_cert)) or (client_ca and not cert):
        raise click.UsageError("--cert and --key belong together, and are for TLS in front of a server")
    if (client_cert is None) is not (client_key is None):
        raise click.UsageError("--client-cert and --client-key belong together")
    name = server_name or there[0]
    authority = "an authority of yours" if ca_file else "a public authority"
    own = (client_cert, client_key) if client_cert and client_key else None
    peer = Peer(
        *there, name, ca_file, not ca_file, authority, frozenset(map(str.lower, pin)), starttls is None, certificate=own
    )
    pairs = [Certificate.load(*pair) for pair in zip(cert, key, strict=True)]
    ours = ServerTls(pairs, ask=bool(client_ca), client_ca_files=client_ca) if pairs else None
    return app.run(_wrap(here, peer, ours, starttls or "", int(proxy[1]) if proxy else 0, asks=bool(client_ca)))


async def _wrap(
    here: tuple[str, int], peer: Peer, ours: ServerTls | None, starttls: str, proxy: int, *, asks: bool
) -> int:
    tasks: set[asyncio.Task[None]] = set()
    env, name = Env(), socket.getfqdn()

    def admitted(facts: TlsFacts | None) -> bool:
        return facts is not None and facts.peer is not None and not facts.peer.chain_error

    async def one(near: tcp.TcpStream) -> None:
        async def connected() -> Stream:
            far = await tcp.connect(peer.host, peer.port)
            if proxy:
                far.write(proxying.header(proxy, near.peer, here, near.tls))
            return far

        try:
            if ours is None:
                said = proxying.header(proxy, near.peer, here) if proxy else b""
                await wrapping.towards(near, peer, env, starttls, said)
            else:
                admits = admitted if asks else None
                await wrapping.before(near, ours.pump(), connected, starttls=starttls, name=name, admits=admits)
        except (ClientError, NotBelieved, TlsError, ProtocolError, StreamClosed, StreamTimeout, OSError) as error:
            click.echo(f"fubako: {near.peer}: {visible(str(error) or type(error).__name__)}", err=True)
        finally:
            near.close()

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

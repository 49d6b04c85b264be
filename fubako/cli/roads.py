"""`fubako wrap` and `mx`: TLS for programs that have none; where mail goes."""

import asyncio
import json
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

import click

from fubako import app
from fubako.admin.lookup import NoMail, lookup
from fubako.cli.configured import json_option
from fubako.cli.exits import NOHOST, TEMPFAIL
from fubako.client import wrap as wrapping
from fubako.client.connection import ClientError, Peer
from fubako.clock import Env
from fubako.config import Config, ConfigError, Dns, Network, is_loopback, networks, split_address
from fubako.net import proxy as proxying
from fubako.net import tcp
from fubako.net.interface import Stream, StreamClosed, StreamTimeout, TlsError, TlsFacts
from fubako.net.proxy import ProxyError
from fubako.net.tls import Certificate, ServerTls
from fubako.policy.gate import within
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
    "--accept-proxy",
    "proxies",
    multiple=True,
    metavar="NETWORK",
    help="Who connects is a proxy of this network, and says who the client is (PROXY protocol v1 or v2); nobody else is let in.",
)
@json_option
@click.option(
    "--anywhere", is_flag=True, help="Let the side without TLS be on another machine, where others can read it."
)
def wrap(
    listen: str, target: str, starttls: str | None, server_name: str, ca_file: tuple[Path, ...], pin: tuple[str, ...],
    client_cert: Path | None, client_key: Path | None, cert: tuple[Path, ...], key: tuple[Path, ...], client_ca: tuple[Path, ...],
    proxy: str | None, proxies: tuple[str, ...], as_json: bool, anywhere: bool,
) -> int:  # fmt: skip
    """TLS where a program has none, until Ctrl-C. LISTEN and TARGET are host:port.

    \b
    fubako wrap 127.0.0.1:1143 imap.example.org:993                   towards a server, TLS from the first byte
    fubako wrap 127.0.0.1:1025 mail.example.org:587 --starttls smtp   towards a server, STARTTLS
    fubako wrap 0.0.0.0:993 127.0.0.1:143 --cert c.pem --key k.pem    in front of a server that has none
    fubako wrap 0.0.0.0:143 127.0.0.1:1143 --starttls imap --cert c.pem --key k.pem

    Towards a server its certificate is checked, always; there is no way to leave that out but a pin. In front of one, STARTTLS is
    the only thing that is answered before TLS. The side without TLS has to be this machine. With --json a line is written for each
    connection that ended: whose it was, how it was protected, how many octets went there and came back, or why it failed.
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
    wrapped = _Wrapped(
        here, peer, ours, starttls or "", int(proxy[1]) if proxy else 0, bool(client_ca),
        networks(proxies, "--accept-proxy", "NETWORK"), as_json, socket.getfqdn(),
    )  # fmt: skip
    return app.run(_wrap(wrapped))


@dataclass(frozen=True, slots=True)
class _Wrapped:
    """What was asked for. `ours`: TLS of our own, in front of a server; `asks`: and its clients show certificates."""

    here: tuple[str, int]
    peer: Peer
    ours: ServerTls | None
    starttls: str
    proxy: int
    asks: bool
    proxies: tuple[Network, ...]
    as_json: bool
    name: str  # of this machine, for greetings

    def admits(self, facts: TlsFacts | None) -> bool:
        return not self.asks or (facts is not None and facts.peer is not None and not facts.peer.chain_error)

    async def join(self, near: Stream) -> wrapping.Poured:
        """Raises ClientError, NotBelieved, TlsError, ProtocolError, ProxyError, StreamClosed, StreamTimeout, OSError."""
        if self.proxies:
            if not within(near.peer.rpartition(":")[0].strip("[]"), self.proxies):
                raise ProxyError("only proxies may come in here")
            await proxying.introduced(near)
        if self.ours is None:
            said = proxying.header(self.proxy, near.peer, self.here, near.tls) if self.proxy else b""
            return await wrapping.towards(near, self.peer, Env(), self.starttls, said)

        async def connected() -> Stream:
            far = await tcp.connect(self.peer.host, self.peer.port)
            if self.proxy:
                far.write(proxying.header(self.proxy, near.peer, self.here, near.tls))
            return far

        return await wrapping.before(
            near, self.ours.pump(), connected, starttls=self.starttls, name=self.name, admits=self.admits
        )

    def tell(self, near: Stream, poured: wrapping.Poured, why: str) -> None:
        if self.as_json:
            tls = poured.tls
            click.echo(
                json.dumps({
                    "client": near.peer, "tls": tls.version if tls else "", "cipher": tls.cipher if tls else "",
                    "octets_there": poured.there, "octets_back": poured.back, "error": why,
                }, ensure_ascii=False)
            )  # fmt: skip
        elif why:
            click.echo(f"fubako: {near.peer}: {visible(why)}", err=True)


async def _wrap(wrapped: _Wrapped) -> int:
    tasks: set[asyncio.Task[None]] = set()

    async def one(near: tcp.TcpStream) -> None:
        poured, why = wrapping.Poured(), ""
        try:
            poured = await wrapped.join(near)
        except (
            ClientError,
            NotBelieved,
            TlsError,
            ProtocolError,
            ProxyError,
            StreamClosed,
            StreamTimeout,
            OSError,
        ) as error:
            why = str(error) or type(error).__name__
        finally:
            near.close()
        wrapped.tell(near, poured, why)

    def came(near: tcp.TcpStream) -> None:
        if len(tasks) >= CONNECTIONS_MAX:
            near.close()
            return
        task = asyncio.get_running_loop().create_task(one(near))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    try:
        server = await tcp.listen(tcp.bound_socket(*wrapped.here), came)
    except OSError as error:
        raise ConfigError(f"LISTEN: {wrapped.here[0]}:{wrapped.here[1]}: {error.strerror}") from None
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    here, there = wrapped.here, wrapped.peer
    click.echo(f"{here[0]}:{here[1]} -> {there.host}:{there.port}. Ctrl-C ends it.", err=wrapped.as_json)
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

"""`Config`, the whole of it, and how it is read: TOML in, every fault with its place."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from fubako.config.addresses import ConfigError, networks, split_address
from fubako.config.inbound import ContentFilter, DnsListing, Inbound, Milter, Rates
from fubako.config.listening import Limits, Listen, Positive, Ssh, Tls, check_listen, with_addresses
from fubako.config.logins import (
    KerberosTickets,
    Login,
    OAuth,
    PasswordBackend,
    check_backend,
    check_mechanisms,
    check_oauth,
)  # fmt: skip
from fubako.config.outbound import Dns, MasqueradeAs, Queue, Reports, Route, Submission, check_route
from fubako.config.scanning import Scan


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole configuration. Relative paths are taken from the folder of the file."""

    hostname: Annotated[
        str, Meta(description="The server's own name, as it greets and as its certificate says.", min_length=1)
    ]
    directory: Annotated[str, Meta(description="Folder of the store; created when missing.")] = "store"
    listen: Annotated[tuple[Listen, ...], Meta(description="The services.")] = ()
    tls: Annotated[Tls, Meta(description="Certificates.")] = Tls()
    limits: Annotated[Limits, Meta(description="Limits.")] = Limits()
    login: Annotated[Login, Meta(description="Logins.")] = Login()
    password_backend: Annotated[tuple[PasswordBackend, ...], Meta(description="Passwords that others check.")] = ()
    kerberos: Annotated[KerberosTickets, Meta(description="Kerberos tickets.")] = KerberosTickets()
    oauth: Annotated[OAuth, Meta(description="OAuth tokens.")] = OAuth()
    ssh: Annotated[Ssh, Meta(description="The SSH door.")] = Ssh()
    access: Annotated[
        str,
        Meta(
            description="Access table of the service smtp, as sendmail's file is written, or TOML when its name ends so."
        ),
    ] = ""
    route: Annotated[tuple[Route, ...], Meta(description="Ways to other domains.")] = ()
    inbound: Annotated[Inbound, Meta(description="Letters of strangers.")] = Inbound()
    dns_list: Annotated[tuple[DnsListing, ...], Meta(description="DNS lists.")] = ()
    milter: Annotated[tuple[Milter, ...], Meta(description="Milters.")] = ()
    filter: Annotated[ContentFilter, Meta(description="Other filters.")] = ContentFilter()
    rates: Annotated[Rates, Meta(description="Rate limits.")] = Rates()
    submission: Annotated[Submission, Meta(description="Letters of users.")] = Submission()
    masquerade: Annotated[MasqueradeAs, Meta(description="Masquerading.")] = MasqueradeAs()
    reports: Annotated[Reports, Meta(description="Reports to other domains.")] = Reports()
    queue: Annotated[Queue, Meta(description="The queue.")] = Queue()
    dns: Annotated[Dns, Meta(description="Resolvers.")] = Dns()
    scan: Annotated[Scan, Meta(description="Reading of messages apart from the sessions.")] = Scan()
    workers: Annotated[int, Meta(description="Worker processes of `serve`; 0 is one for each core.", ge=0)] = 0
    user: Annotated[
        str,
        Meta(
            description="Unix user to become once the ports are bound, before the store is touched; the store must be his. Keys of"
            " certificates may be root's: they are read before, at a start, but cannot be at SIGHUP. Empty: stay who we are."
        ),
    ] = ""
    erase_hours: Annotated[
        Positive,
        Meta(
            description="Contents of expunged messages and of removed users leave the disk within so many hours, and two; their"
            " words leave the search index within two. Copies that others made (backups) are not reached."
        ),
    ] = 24
    confine: Annotated[
        str,
        Meta(
            description="`auto`: each worker of `serve` gives up what it does not need (files outside the store and those that"
            " settings and aliases name, programs, system calls), as far as the kernel can hold it, before it hears a stranger; the"
            " event worker.confined tells what is missing. Programs are started, and the system's names looked up, by a process of"
            " its own. `off`: each worker keeps all of it.",
            pattern="^(auto|off)$",
        ),
    ] = "auto"
    apart: Annotated[
        str,
        Meta(
            description="`auto`: what is said on smtp, submission and submissions is read by a process of its own, which has no"
            " file, no key and no network but the connections that it is handed; TLS of these, of IMAP and of POP3 is done by"
            " another one, which has its keys alone. The event sandbox.applied tells what is held, part.unavailable that they"
            " cannot be had. `off`: both by the worker that owns the store. Only `serve` does this.",
            pattern="^(auto|off)$",
        ),
    ] = "auto"
    quiet: Annotated[bool, Meta(description="Write no events to standard error.")] = False

    def certificate_paths(self, base: Path) -> list[tuple[Path, Path]]:
        return [(base / one.chain, base / one.key) for one in self.tls.certificates]


def load(path: Path) -> Config:
    """Read and check a configuration. Raises ConfigError with the place of the fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is no TOML: {error}") from None
    return parse(raw, str(path))


def parse(raw: dict[str, Any], place: str) -> Config:
    """Check what TOML said. Raises ConfigError."""
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{place}: {_plain(str(error))}") from None
    for listen in config.listen:
        check_listen(listen, place)
    check_mechanisms(config.login.mechanisms, place, "login.mechanisms")
    for backend in config.password_backend:
        check_backend(backend, place)
    check_oauth(config.oauth, place)
    for route in config.route:
        check_route(route, place)
    _check_inbound(config, place)
    for server in config.dns.servers:
        split_address(server, place, "dns.servers")
    return msgspec.structs.replace(config, listen=tuple(map(with_addresses, config.listen)))


def _check_inbound(config: Config, place: str) -> None:
    if config.filter.next_hop and not re.fullmatch(r"(lmtp|smtp)://\S+", config.filter.next_hop):
        raise ConfigError(
            f"{place}: filter.next_hop: {config.filter.next_hop} is no lmtp://host:port or smtp://host:port"
        )
    for milter in config.milter:
        if not milter.address.startswith("/"):
            split_address(milter.address, place, "milter.address")
    networks(config.inbound.exempt_networks, place, "inbound.exempt_networks")
    networks(config.inbound.xclient_networks, place, "inbound.xclient_networks")
    networks(config.inbound.lenient_networks, place, "inbound.lenient_networks")
    for one in config.dns_list:
        networks(one.returns, place, f"dns_list.returns of {one.zone}")


def warnings(config: Config) -> list[str]:
    """What works, and is not wise."""
    found = []
    if not config.listen:
        found.append("listen: no service is configured")
    if not config.tls.certificates:
        found.append("tls.certificates: none, so nobody can log in")
    if config.inbound.pop_before_smtp_minutes:
        found.append(
            "inbound.pop_before_smtp_minutes: whoever shares a user's address (a household, a company, a carrier's NAT) may"
            " send in his name without a password; submission on 465 or 587 needs none of that"
        )
    return found


def possible_mechanisms(config: Config) -> tuple[str, ...]:
    """Those of the configuration that some account here can use: without a keytab there are no tickets, without an issuer no
    tokens."""
    lacking = {"ANONYMOUS"}
    if not config.kerberos.keytab:
        lacking |= {"GSSAPI", "GS2-KRB5", "GS2-KRB5-PLUS"}
    if not (config.oauth.keys or config.oauth.introspection):
        lacking |= {"OAUTHBEARER", "XOAUTH2"}
    return tuple(name for name in config.login.mechanisms if name not in lacking)


def _plain(text: str) -> str:
    """msgspec's message with the path in front: `$.limits` becomes limits."""
    message, _, path = text.partition(" - at `")
    path = path.rstrip("`").removeprefix("$").removeprefix(".")
    return f"{path}: {message}" if path else message

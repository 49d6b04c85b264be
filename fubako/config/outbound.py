"""How letters leave: routes, patience, names, reports, resolvers."""

import ipaddress
import re
from typing import Annotated

from msgspec import Meta, Struct

from fubako.config.addresses import ConfigError, split_address
from fubako.config.listening import Positive
from fubako.message.target import command_line


class Route(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where letters to other domains go. Write one `[[route]]` a rule; the first that matches holds, and without any rule
    nothing leaves this server."""

    domain: Annotated[
        str,
        Meta(
            description='Which domains: "example.org" itself, ".example.org" all below it, "*" every one.', min_length=1
        ),
    ] = "*"
    to: Annotated[
        str,
        Meta(
            description="`mx` (as DNS says), `smtp://host:port` (STARTTLS), `smtps://host:port`, `lmtp://host:port`,"
            " `lmtp:/path/of/socket`, or `program`."
        ),
    ]
    tls: Annotated[
        str,
        Meta(
            description="How well the leg must be protected: `may`, `encrypt`, or `verify` (a certificate for the right name)."
            " Empty: no worse than the server was seen to do before.",
            pattern="^(may|encrypt|verify)?$",
        ),
    ] = ""
    port: Annotated[int, Meta(description="Port for `mx`.", ge=1, le=65535)] = 25
    user: Annotated[str, Meta(description="Name to log in with; only said to a server that proved who it is.")] = ""
    password_file: Annotated[str, Meta(description="File with the password, readable by its owner only.")] = ""
    password_command: Annotated[
        tuple[str, ...], Meta(description="Program and arguments, without a shell, that writes the password as a line.")
    ] = ()
    sources: Annotated[
        tuple[str, ...], Meta(description="Our addresses to come from, at most one of IPv4 and one of IPv6.")
    ] = ()
    socks: Annotated[str, Meta(description="A SOCKS5 proxy, `host:port`, that makes the connections.")] = ""
    socks_user: Annotated[str, Meta(description="Name to log in with at the proxy.")] = ""
    socks_password_file: Annotated[str, Meta(description="File with that password, readable by its owner only.")] = ""
    program: Annotated[
        tuple[str, ...],
        Meta(
            description="Program and arguments, without a shell; `{sender}`, `{recipient}`, `{recipients}` are filled in."
        ),
    ] = ()
    run_as: Annotated[
        str,
        Meta(
            description="The Unix user as whom `program`, or `password_command`, runs. Needed where the server itself runs as"
            " root, and never root; else empty, or the server's own user."
        ),
    ] = ""
    ca_files: Annotated[tuple[str, ...], Meta(description="Authorities to believe besides the system's, in PEM.")] = ()


class Queue(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How patient the queue is."""

    first_gap_seconds: Annotated[Positive, Meta(description="Pause after the first attempt; it doubles with each.")] = (
        300
    )
    longest_gap_seconds: Annotated[Positive, Meta(description="Longest pause between two attempts.")] = 14_400
    warn_hours: Annotated[Positive, Meta(description="When the sender is told that it takes long.")] = 4
    give_up_days: Annotated[Positive, Meta(description="When a letter goes back.")] = 5


class Submission(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Letters of your own users, by whichever service they come. A user writes under his address, its subaddresses (`name+x@`), and
    every alias that leads to him; never under an address of somebody else here."""

    foreign_addresses: Annotated[
        str,
        Meta(
            description="Whether users may write under an address of a domain that is not yours (another provider's):"
            " `refuse` or `accept`. Such letters are not signed, and most receivers refuse them (DMARC).",
            pattern="^(refuse|accept)$",
        ),
    ] = "refuse"


class MasqueradeAs(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Under which name letters of our own users and programs leave."""

    name: Annotated[str, Meta(description="The domain that is shown (MASQUERADE_AS); empty is off.")] = ""
    domains: Annotated[tuple[str, ...], Meta(description="Which are hidden behind it (MASQUERADE_DOMAIN).")] = ()
    entire_domain: Annotated[bool, Meta(description="Also everything below them (masquerade_entire_domain).")] = False
    envelope: Annotated[bool, Meta(description="Also in the reverse path (masquerade_envelope).")] = False
    add_domain: Annotated[bool, Meta(description="Addresses without a domain get it (always_add_domain).")] = False
    exposed_users: Annotated[tuple[str, ...], Meta(description="Who keeps the true name (EXPOSED_USER).")] = ("root",)


class Reports(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What other domains are told once a day: how TLS with them went (TLSRPT), what came in their name (DMARC)."""

    sender: Annotated[str, Meta(description="Address that reports come from; empty: none are sent.")] = ""
    organization: Annotated[str, Meta(description="Who reports; empty: the host name.")] = ""


class Dns(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The domain name system."""

    servers: Annotated[
        tuple[str, ...],
        Meta(
            description='Resolvers as "host:port"; empty: those of the system. DNSSEC counts only by a resolver on this machine.'
        ),
    ] = ()


_TO = re.compile(r"mx|program|(smtp|smtps|lmtp)://(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+)(:[0-9]{1,5})?|lmtp:/\S+")


def check_route(route: Route, place: str) -> None:
    """Raises ConfigError."""
    if not _TO.fullmatch(route.to):
        raise ConfigError(f"{place}: route.to: {route.to} is no way out; see docs/configuration.md")
    if (route.to == "program") is not bool(route.program):
        raise ConfigError(f'{place}: route.program belongs to `to = "program"`, and is needed there')
    if word := command_line(route.program):
        raise ConfigError(
            f"{place}: route.program: a shell would read the address in {word!r} as commands; it has $SENDER and $RECIPIENT"
        )
    if bool(route.user) is not bool(route.password_file or route.password_command):
        raise ConfigError(f"{place}: route.user and route.password_file (or password_command) belong together")
    if route.password_file and route.password_command:
        raise ConfigError(f"{place}: route.password_file and route.password_command exclude each other")
    if route.socks:
        split_address(route.socks, place, "route.socks")
    if bool(route.socks_user) is not bool(route.socks_password_file) or (route.socks_user and not route.socks):
        raise ConfigError(f"{place}: route.socks, route.socks_user and route.socks_password_file belong together")
    for source in route.sources:
        try:
            ipaddress.ip_address(source)
        except ValueError:
            raise ConfigError(f"{place}: route.sources: {source} is no address") from None
    if route.user and route.tls == "may":
        raise ConfigError(f'{place}: route.tls: a password is never said with "may"; leave it out or write "verify"')

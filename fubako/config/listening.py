"""Where the server listens, what it shows there, and what a peer may ask of it."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from fubako.config.addresses import ConfigError, is_loopback, networks, split_address
from fubako.config.logins import check_mechanisms

SERVICES: dict[str, tuple[int, bool]] = {
    # name: (standard port, TLS from the first byte)
    "smtp": (25, False),
    "submissions": (465, True),
    "submission": (587, False),
    "pop3": (110, False),
    "pop3s": (995, True),
    "imap": (143, False),
    "imaps": (993, True),
    "ssh": (22, False),
}
SSH_ADDRESSES = ("0.0.0.0:2222", "[::]:2222")
AUTH_SERVERS = ("saslauthd", "dovecot-auth")
UNIX_SERVICES = ("lmtp", *AUTH_SERVERS)
Positive = Annotated[int, Meta(ge=1)]


class Listen(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One service and where it listens. Write one `[[listen]]` a service."""

    service: Annotated[
        str,
        Meta(
            description=f"One of {', '.join(SERVICES)}, lmtp, filtered; saslauthd and dovecot-auth answer other"
            " programs that want to know whether a login holds, over a Unix socket."
        ),
    ]
    addresses: Annotated[
        tuple[str, ...],
        Meta(
            description='Where it listens: "127.0.0.1:2993", "[::1]:2993", or for lmtp, saslauthd and dovecot-auth a Unix socket.'
            " Only ssh may say nothing: it is then port 2222 of every address."
        ),
    ] = ()
    proxy_networks: Annotated[
        tuple[str, ...],
        Meta(description="Clients that are proxies and must say by the PROXY protocol, 1 or 2, for whom they speak."),
    ] = ()
    mechanisms: Annotated[
        tuple[str, ...], Meta(description="SASL mechanisms offered here, instead of those of [login].")
    ] = ()
    socket_mode: Annotated[
        str,
        Meta(
            description="Who may connect to a Unix socket: its permissions in octal, for its owner, its group and others.",
            pattern="^0?[0-7]{3}$",
        ),
    ] = "0660"
    socket_group: Annotated[
        str, Meta(description="Group of a Unix socket, one that the server is in; its own when empty.")
    ] = ""
    certificate_login: Annotated[
        bool,
        Meta(
            description="imaps: a client whose certificate proves an account begins logged in, without a command (PREAUTH)."
        ),
    ] = False


class Certificate(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A certificate to show. The first one is for clients that name no host."""

    chain: Annotated[str, Meta(description="File with the certificate and its intermediates in PEM, leaf first.")]
    key: Annotated[str, Meta(description="File with the private key in PEM, readable by its owner only.")]


class Tls(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Transport Layer Security."""

    certificates: Annotated[tuple[Certificate, ...], Meta(description="Certificates by host name (SNI).")] = ()
    minimum: Annotated[str, Meta(description="Lowest version spoken: 1.2 or 1.3.", pattern="^1\\.[23]$")] = "1.2"
    client_certificates: Annotated[
        bool,
        Meta(
            description="Ask clients for a certificate; `fubako user cert add` tells whose it is, and EXTERNAL logs in with it."
        ),
    ] = False
    client_ca_files: Annotated[
        tuple[str, ...],
        Meta(
            description="Authorities, in PEM, that may say whose a certificate is: by the one mail address in it (rfc822Name)."
        ),
    ] = ()


class Limits(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a peer may ask of the server."""

    message_octets: Annotated[Positive, Meta(description="Largest letter taken by SMTP and APPEND.")] = 50 * 1024 * 1024
    recipients: Annotated[Positive, Meta(description="Recipients of one letter.")] = 1000
    connections: Annotated[Positive, Meta(description="Open connections of one worker.")] = 20_000
    connections_per_network: Annotated[
        Positive, Meta(description="Open connections of one worker from one IPv4 address or IPv6 /64.")
    ] = 5_000
    unknown_recipients: Annotated[
        int,
        Meta(
            description="Recipients that do not exist, named by strangers of one IPv4 address or IPv6 /64 within a quarter of an"
            " hour, after which the network is sent away with 421; beyond 20 each is answered a second later. 0: no limit.",
            ge=0,
        ),
    ] = 100
    smtp_idle_seconds: Annotated[Positive, Meta(description="Silence after which an SMTP session ends.")] = 300
    pop3_idle_seconds: Annotated[Positive, Meta(description="Silence after which a POP3 session ends.")] = 600
    imap_idle_seconds: Annotated[Positive, Meta(description="Silence after which an IMAP session ends.")] = 1800
    login_seconds: Annotated[
        Positive, Meta(description="From the connection to the login, handshake and failed attempts included.")
    ] = 60
    commands_before_login: Annotated[Positive, Meta(description="Commands that a client may say before its login.")] = (
        50
    )
    memory_octets: Annotated[
        Positive,
        Meta(
            description="Memory of one worker for messages: a quarter for those that are coming in, which lie on the disk"
            " beyond 256 KiB each, and so much for all copies of those that are being taken. The others wait their turn,"
            " and are told to come again where that takes a minute."
        ),
    ] = 256 * 1024 * 1024
    spool_octets: Annotated[
        Positive, Meta(description="Room on the disk, of one worker, for messages that are still coming in.")
    ] = 4 * 1024 * 1024 * 1024
    imap_command_octets: Annotated[
        Annotated[int, Meta(ge=65537)],
        Meta(description="One IMAP command after the login, without the messages of APPEND."),
    ] = 1024 * 1024
    search_keys: Annotated[Positive, Meta(description="Search keys in one SEARCH.")] = 250
    smtp_transaction_seconds: Annotated[
        Positive,
        Meta(
            description="Service smtp, without a login: from the connection, or the end of a message, to the end of the next one,"
            " and one more for each `octets_per_second` of it."
        ),
    ] = 600
    smtp_session_seconds: Annotated[
        Positive,
        Meta(description="Service smtp, without a login: from the connection, after which no further message begins."),
    ] = 3600
    smtp_session_messages: Annotated[
        Positive, Meta(description="Service smtp, without a login: messages of one session, the refused ones too.")
    ] = 1000
    command_seconds: Annotated[Positive, Meta(description="From a command's first octet to its last.")] = 60
    content_seconds: Annotated[
        Positive,
        Meta(
            description="From the first octet of a message, or of an IMAP literal, to the last, and one more for each"
            " `octets_per_second` of it."
        ),
    ] = 120
    octets_per_second: Annotated[Positive, Meta(description="The least rate at which content has to come.")] = 1000
    taking_seconds: Annotated[
        Positive, Meta(description="In which a client has to take the next 64 KiB of what it asked for.")
    ] = 120


class Ssh(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The SSH door: accounts come in by their keys, without a system account. It needs `[[listen]] service = "ssh"`."""

    host_keys: Annotated[
        tuple[str, ...],
        Meta(
            description="Files with private host keys, in OpenSSH's or PEM's form. Empty: an Ed25519 key that is made at the first"
            " start, `ssh/host_ed25519` in the store's folder. `fubako ssh fingerprints` shows them."
        ),
    ] = ()
    password: Annotated[
        bool, Meta(description="Take passwords too; otherwise only keys and certificates of an account's authority.")
    ] = False
    forward: Annotated[bool, Meta(description="Let connections be forwarded to this server's own mail services.")] = (
        True
    )
    forward_login: Annotated[
        str,
        Meta(
            description="`ask`: a forwarded connection has to log in as any other. `known`: it belongs to whoever came in by SSH"
            " and begins logged in; every program on the machine that ssh runs on can then use it.",
            pattern="^(ask|known)$",
        ),
    ] = "ask"


def with_addresses(listen: Listen) -> Listen:
    """ssh may leave out where."""
    return listen if listen.addresses else msgspec.structs.replace(listen, addresses=SSH_ADDRESSES)


def check_listen(listen: Listen, place: str) -> None:
    """Raises ConfigError."""
    if listen.service not in (*SERVICES, *UNIX_SERVICES, "filtered"):
        known = f"{', '.join(SERVICES)}, {', '.join(UNIX_SERVICES)}, filtered"
        raise ConfigError(f"{place}: listen.service: {listen.service} is not one of {known}")
    if not listen.addresses and listen.service != "ssh":
        raise ConfigError(f"{place}: listen.addresses: {listen.service} listens nowhere")
    if listen.proxy_networks and listen.service == "ssh":
        raise ConfigError(
            f"{place}: listen.proxy_networks: ssh knows no PROXY protocol; let the proxy pass it as it is"
        )
    for address in listen.addresses if listen.service not in UNIX_SERVICES else ():
        host, _ = split_address(address, place)
        if listen.service == "filtered" and not is_loopback(host):
            raise ConfigError(f"{place}: listen.addresses: filtered takes anything, so it may only listen on loopback")
    check_mechanisms(listen.mechanisms, place, f"listen.mechanisms of {listen.service}")
    networks(listen.proxy_networks, place, f"listen.proxy_networks of {listen.service}")

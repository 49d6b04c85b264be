"""Every setting, frozen and typed. TOML in; an unknown key is an error with its path; nobody else reads a configuration.

The reference in docs/configuration.md is generated from the definitions here.
"""

import ipaddress
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

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
MECHANISMS = (
    "SCRAM-SHA-512-PLUS", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1",
    "DIGEST-MD5", "CRAM-MD5", "EXTERNAL", "GS2-KRB5-PLUS", "GS2-KRB5", "GSSAPI", "OAUTHBEARER", "XOAUTH2",
    "PLAIN", "LOGIN", "ANONYMOUS",
)  # fmt: skip

# not CRAM-MD5 and DIGEST-MD5: who sees it offered uses it, and it fails for every password that is kept as it should be
# EXTERNAL, Kerberos and tokens are only announced where a certificate was shown, and where [kerberos] and [oauth] say how
DEFAULT_MECHANISMS = (
    "EXTERNAL", "GSSAPI", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN",
)  # fmt: skip
BACKENDS = (
    "passwd-file",
    "shadow",
    "pam",
    "ldap",
    "sqlite",
    "postgresql",
    "kerberos",
    "sasldb",
    "saslauthd",
    "checkpassword",
    "program",
)
AUTH_SERVERS = ("saslauthd", "dovecot-auth")
UNIX_SERVICES = ("lmtp", *AUTH_SERVERS)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Positive = Annotated[int, Meta(ge=1)]


class ConfigError(Exception):
    """The configuration cannot be used; the message names the place."""


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
    smtp_idle_seconds: Annotated[Positive, Meta(description="Silence after which an SMTP session ends.")] = 300
    pop3_idle_seconds: Annotated[Positive, Meta(description="Silence after which a POP3 session ends.")] = 600
    imap_idle_seconds: Annotated[Positive, Meta(description="Silence after which an IMAP session ends.")] = 1800
    login_seconds: Annotated[Positive, Meta(description="Silence allowed before a login and in a handshake.")] = 60


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


class ActAs(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who may act as whom: a client logs in with its own proof and names another account (the authorization identity)."""

    user: Annotated[str, Meta(description='Who proves himself: an address, "*@example.org", or "*".', min_length=1)]
    accounts: Annotated[tuple[str, ...], Meta(description="As whom he may go on, written in the same way.")]


class PasswordBackend(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where passwords are checked that our own store does not know. Write one `[[password_backend]]` each; they are asked in this
    order, with a password that a user says (PLAIN, LOGIN, USER and PASS, SSH). One that does not answer makes a login a
    temporary failure."""

    kind: Annotated[str, Meta(description=f"One of {', '.join(BACKENDS)}.")]
    domains: Annotated[tuple[str, ...], Meta(description="Whose users it is asked about; empty: all.")] = ()
    seconds: Annotated[float, Meta(description="How long it may take.", gt=0, le=60)] = 5.0
    create: Annotated[bool, Meta(description="Whoever it knows gets a mailbox at his first login.")] = False
    names: Annotated[
        str,
        Meta(
            description="How it knows users: `address` (alice@example.org) or `local` (alice). Empty: local for shadow, pam and"
            " kerberos, address for all others.",
            pattern="^(address|local)?$",
        ),
    ] = ""
    path: Annotated[
        str,
        Meta(
            description="The file (passwd-file, shadow, sqlite, sasldb), the socket (saslauthd), the keytab (kerberos)."
        ),
    ] = ""
    service: Annotated[str, Meta(description="The name that PAM, saslauthd and Kerberos know the service by.")] = "imap"
    program: Annotated[
        tuple[str, ...],
        Meta(
            description="Program and arguments, without a shell. checkpassword: with the program that it runs last, /bin/true."
            ' program: it reads {"user": …, "password": …} and writes {"result": "held", "wrong", "unknown" or "later"}.'
        ),
    ] = ()
    query: Annotated[str, Meta(description="SQL with one ? for the user; its first column is the hash.")] = ""
    dsn_file: Annotated[
        str, Meta(description="File with the connection string of PostgreSQL, readable by its owner only.")
    ] = ""
    uri: Annotated[
        str, Meta(description="LDAP: ldaps://host, ldap://host (StartTLS is always spoken) or ldapi://socket.")
    ] = ""
    base: Annotated[str, Meta(description="LDAP: where users are searched.")] = ""
    filter: Annotated[str, Meta(description="LDAP: which entry is a user's; {user} is filled in.")] = "(mail={user})"
    user_dn: Annotated[
        str, Meta(description="LDAP: the entry's name outright, instead of a search; {user} is filled in.")
    ] = ""
    bind_dn: Annotated[str, Meta(description="LDAP: as whom to search or compare.")] = ""
    bind_password_file: Annotated[
        str, Meta(description="File with that one's password, readable by its owner only.")
    ] = ""
    compare: Annotated[str, Meta(description="LDAP: an attribute to compare the password with, instead of a bind.")] = (
        ""
    )
    ca_file: Annotated[
        str, Meta(description="LDAP: the authority of its certificate, in PEM; empty: the system's.")
    ] = ""
    host: Annotated[str, Meta(description="Kerberos: the host of our key; empty: our host name.")] = ""
    realm: Annotated[str, Meta(description="Kerberos: the realm of users; empty: the system's.")] = ""


class KerberosTickets(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Logins by ticket: GSSAPI and GS2-KRB5. alice@EXAMPLE.ORG is the account alice@example.org."""

    keytab: Annotated[
        str, Meta(description="File with our keys, of imap/host, pop/host and smtp/host; empty: no tickets are taken.")
    ] = ""
    host: Annotated[str, Meta(description="The host of our keys; empty: any that is in the file.")] = ""


class OAuth(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Logins by token: OAUTHBEARER and XOAUTH2. Tokens are JWTs that an issuer signed, or are asked about (RFC 7662)."""

    issuer: Annotated[str, Meta(description="What the claim `iss` has to say; empty with `introspection`.")] = ""
    audience: Annotated[str, Meta(description="What the claim `aud` has to hold.")] = ""
    keys: Annotated[
        str, Meta(description="The issuer's public keys as a JWK set: a file, or an https URL. Needed for JWTs.")
    ] = ""
    algorithms: Annotated[tuple[str, ...], Meta(description="Signatures that are believed.")] = (
        "RS256",
        "ES256",
        "EdDSA",
    )
    introspection: Annotated[str, Meta(description="https URL where tokens are asked about, instead of keys.")] = ""
    client_id: Annotated[str, Meta(description="As whom we ask there.")] = ""
    client_secret_file: Annotated[str, Meta(description="File with that one's secret, readable by its owner only.")] = (
        ""
    )
    user_claim: Annotated[str, Meta(description="The claim that holds the mail address.")] = "email"
    scope: Annotated[str, Meta(description="A scope that a token must have; empty: none.")] = ""
    discovery: Annotated[
        str, Meta(description="URL of the issuer's metadata, told to clients whose token does not hold.")
    ] = ""


class Login(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How users prove themselves."""

    mechanisms: Annotated[
        tuple[str, ...],
        Meta(
            description=f"SASL mechanisms offered, best first, of {', '.join(MECHANISMS)}; always under TLS only."
            " SCRAM with SHA-1 and SHA-512 works for passwords that were set since Fubako knows them."
        ),
    ] = DEFAULT_MECHANISMS
    act_as: Annotated[
        tuple[ActAs, ...], Meta(description="Who may act as whom; nobody as another one when it is empty.")
    ] = ()
    anonymous: Annotated[
        str,
        Meta(
            description="An account that everybody may read by IMAP and POP3, without a name; it takes ANONYMOUS in `mechanisms`."
        ),
    ] = ""


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
    ca_files: Annotated[tuple[str, ...], Meta(description="Authorities to believe besides the system's, in PEM.")] = ()


class Queue(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How patient the queue is."""

    first_gap_seconds: Annotated[Positive, Meta(description="Pause after the first attempt; it doubles with each.")] = (
        300
    )
    longest_gap_seconds: Annotated[Positive, Meta(description="Longest pause between two attempts.")] = 14_400
    warn_hours: Annotated[Positive, Meta(description="When the sender is told that it takes long.")] = 4
    give_up_days: Annotated[Positive, Meta(description="When a letter goes back.")] = 5


Networks = tuple[str, ...]
LOOPBACK = ("127.0.0.0/8", "::1/128")


class Inbound(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What strangers' letters meet at the service smtp. Networks as 192.0.2.0/24 or 2001:db8::/32."""

    examine: Annotated[
        bool, Meta(description="Look at SPF, DKIM, ARC and DMARC, and write what was found on the letter.")
    ] = True
    dmarc: Annotated[
        str,
        Meta(
            description="`obey`: do as the author's domain wishes (refuse, or mark with the keyword $Junk). `mark`: only write it.",
            pattern="^(obey|mark)$",
        ),
    ] = "obey"
    spf: Annotated[
        str,
        Meta(description="`mark`: an SPF fail is only written. `reject`: it is refused.", pattern="^(mark|reject)$"),
    ] = "mark"
    trusted_sealers: Annotated[
        tuple[str, ...], Meta(description="Domains whose ARC seal lets a forwarded letter in although DMARC fails.")
    ] = ()
    exempt_networks: Annotated[Networks, Meta(description="Clients that are not looked at.")] = LOOPBACK
    greylist_seconds: Annotated[
        int, Meta(description="How long an unknown sender has to wait before a second attempt; 0 is off.", ge=0)
    ] = 0
    pop_before_smtp_minutes: Annotated[
        int,
        Meta(
            description="How long a client's address may send without a login after one by POP3 or IMAP over TLS; 0 is off."
            " Everybody who shares the address may send too: use submission instead where you can.",
            ge=0,
        ),
    ] = 0
    dns_list_weight: Annotated[
        int, Meta(description="The weight of DNS lists from which on a letter is refused.", ge=1)
    ] = 10
    xclient_networks: Annotated[
        Networks, Meta(description="Clients that may say by XCLIENT for whom they speak: a filter or a proxy of yours.")
    ] = ()


class DnsListing(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A DNS list to ask. Write one `[[dns_list]]` a list."""

    zone: Annotated[str, Meta(description="The list's zone: dnsbl.example.org.", min_length=1)]
    stage: Annotated[
        str,
        Meta(
            description="What is asked for: `connect` the client's address, `hello` its name, `sender` the sender's domain.",
            pattern="^(connect|hello|sender)$",
        ),
    ] = "connect"
    weight: Annotated[int, Meta(description="What it weighs; a negative one speaks for the client.")] = 10
    returns: Annotated[Networks, Meta(description="Answers that count.")] = ("127.0.0.0/8",)


class Milter(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A mail filter that speaks the milter protocol. Write one `[[milter]]` a filter; they are asked in this order."""

    address: Annotated[str, Meta(description='Where it listens: "127.0.0.1:8891", or the path of a Unix socket.')]
    fallback: Annotated[
        str,
        Meta(
            description="What happens while it does not answer: `tempfail`, `accept` or `reject`.",
            pattern="^(tempfail|accept|reject)$",
        ),
    ] = "tempfail"
    services: Annotated[tuple[str, ...], Meta(description="Whose letters it sees.")] = (
        "smtp", "submission", "submissions",
    )  # fmt: skip


class ContentFilter(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A filter that is no milter: a program, or a server that takes letters and gives them back."""

    program: Annotated[
        tuple[str, ...],
        Meta(
            description="Program and arguments: the letter on its standard input, the letter to be taken on its standard output."
            " Exit code 0: that one; 99: throw it away; 75: later; 64 to 100: refuse it, with its standard error as the reason."
        ),
    ] = ()
    next_hop: Annotated[
        str,
        Meta(
            description="A server, `lmtp://host:port` or `smtp://host:port`, that takes every letter from smtp and submission"
            " before it is delivered, and gives it back at a listener of the service `filtered`."
        ),
    ] = ""


class Rates(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Recipients an hour; 0 is no limit. Each worker counts for itself."""

    account: Annotated[int, Meta(description="Of one user.", ge=0)] = 0
    account_domain: Annotated[int, Meta(description="Of all users of one domain.", ge=0)] = 0
    network: Annotated[int, Meta(description="From one IPv4 address or IPv6 /64, without a login.", ge=0)] = 0
    sender_domain: Annotated[int, Meta(description="Of strangers who write under one domain.", ge=0)] = 0


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
    masquerade: Annotated[MasqueradeAs, Meta(description="Masquerading.")] = MasqueradeAs()
    reports: Annotated[Reports, Meta(description="Reports to other domains.")] = Reports()
    queue: Annotated[Queue, Meta(description="The queue.")] = Queue()
    dns: Annotated[Dns, Meta(description="Resolvers.")] = Dns()
    workers: Annotated[int, Meta(description="Worker processes of `serve`; 0 is one for each core.", ge=0)] = 0
    user: Annotated[
        str,
        Meta(
            description="Unix user to become once the ports are bound; the keys must be readable for it. Empty: stay who we are."
        ),
    ] = ""
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
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{place}: {_plain(str(error))}") from None
    for listen in config.listen:
        if listen.service not in (*SERVICES, *UNIX_SERVICES, "filtered"):
            known = f"{', '.join(SERVICES)}, {', '.join(UNIX_SERVICES)}, filtered"
            raise ConfigError(f"{place}: listen.service: {listen.service} is not one of {known}")
        if not listen.addresses and listen.service != "ssh":
            raise ConfigError(f"{place}: listen.addresses: {listen.service} listens nowhere")
        if listen.proxy_networks and listen.service == "ssh":
            raise ConfigError(
                f"{place}: listen.proxy_networks: ssh knows no PROXY protocol; let the proxy pass it as it is"
            )
        for address in listen.addresses:
            if listen.service not in UNIX_SERVICES:
                host, _ = split_address(address, place)
                if listen.service == "filtered" and not is_loopback(host):
                    raise ConfigError(
                        f"{place}: listen.addresses: filtered takes anything, so it may only listen on loopback"
                    )
    for what, names in (
        ("login.mechanisms", config.login.mechanisms),
        *((f"listen.mechanisms of {one.service}", one.mechanisms) for one in config.listen),
    ):
        unknown = [name for name in names if name not in MECHANISMS]
        if unknown:
            raise ConfigError(f"{place}: {what}: {unknown[0]} is not one of {', '.join(MECHANISMS)}")
    for backend in config.password_backend:
        _check_backend(backend, place)
    _check_oauth(config.oauth, place)
    for route in config.route:
        _check_route(route, place)
    if config.filter.next_hop and not re.fullmatch(r"(lmtp|smtp)://\S+", config.filter.next_hop):
        raise ConfigError(
            f"{place}: filter.next_hop: {config.filter.next_hop} is no lmtp://host:port or smtp://host:port"
        )
    for milter in config.milter:
        if not milter.address.startswith("/"):
            split_address(milter.address, place, "milter.address")
    for server in config.dns.servers:
        split_address(server, place, "dns.servers")
    for what, given in (
        ("inbound.exempt_networks", config.inbound.exempt_networks),
        ("inbound.xclient_networks", config.inbound.xclient_networks),
        *((f"listen.proxy_networks of {one.service}", one.proxy_networks) for one in config.listen),
        *((f"dns_list.returns of {one.zone}", one.returns) for one in config.dns_list),
    ):
        networks(given, place, what)
    return msgspec.structs.replace(config, listen=tuple(map(_with_addresses, config.listen)))


def _with_addresses(listen: Listen) -> Listen:
    return listen if listen.addresses else msgspec.structs.replace(listen, addresses=SSH_ADDRESSES)


def networks(given: Networks, place: str = "", what: str = "") -> tuple[Network, ...]:
    """Raises ConfigError."""
    found = []
    for text in given:
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError:
            raise ConfigError(f"{place}: {what}: {text} is no network like 192.0.2.0/24") from None
    return tuple(found)


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


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


_TO = re.compile(r"mx|program|(smtp|smtps|lmtp)://(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+)(:[0-9]{1,5})?|lmtp:/\S+")


def _check_route(route: Route, place: str) -> None:
    if not _TO.fullmatch(route.to):
        raise ConfigError(f"{place}: route.to: {route.to} is no way out; see docs/configuration.md")
    if (route.to == "program") is not bool(route.program):
        raise ConfigError(f'{place}: route.program belongs to `to = "program"`, and is needed there')
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


_NEEDS: dict[str, tuple[str, ...]] = {
    "passwd-file": ("path",), "shadow": (), "pam": (), "ldap": ("uri",), "sqlite": ("path", "query"),
    "postgresql": ("dsn_file", "query"), "kerberos": ("path",), "sasldb": (), "saslauthd": (),
    "checkpassword": ("program",), "program": ("program",),
}  # fmt: skip


def _check_backend(backend: PasswordBackend, place: str) -> None:
    if backend.kind not in _NEEDS:
        raise ConfigError(f"{place}: password_backend.kind: {backend.kind} is not one of {', '.join(_NEEDS)}")
    for name in _NEEDS[backend.kind]:
        if not getattr(backend, name):
            raise ConfigError(f"{place}: password_backend.{name}: {backend.kind} needs it")
    if backend.query and backend.query.count("?") != 1:
        raise ConfigError(f"{place}: password_backend.query: it needs one ?, for the user")
    if backend.kind == "ldap":
        if not re.match(r"ldaps?://|ldapi://", backend.uri):
            raise ConfigError(f"{place}: password_backend.uri: {backend.uri} is no ldaps://, ldap:// or ldapi:// URI")
        if not (backend.base or backend.user_dn):
            raise ConfigError(f"{place}: password_backend.base: ldap needs it, or user_dn")
        if bool(backend.bind_dn) is not bool(backend.bind_password_file):
            raise ConfigError(f"{place}: password_backend.bind_dn and bind_password_file belong together")


def _check_oauth(oauth: OAuth, place: str) -> None:
    if oauth.keys and oauth.introspection:
        raise ConfigError(f"{place}: oauth.keys and oauth.introspection exclude each other")
    if oauth.keys and not (oauth.issuer and oauth.audience):
        raise ConfigError(f"{place}: oauth.issuer and oauth.audience: without them any token of any service would hold")
    for name in ("introspection", "discovery"):
        if getattr(oauth, name) and not getattr(oauth, name).startswith("https://"):
            raise ConfigError(f"{place}: oauth.{name}: only https:// is asked")
    if oauth.keys.startswith("http://"):
        raise ConfigError(f"{place}: oauth.keys: only https:// is asked")
    if set(oauth.algorithms) - {
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "PS384",
        "PS512",
        "ES256",
        "ES384",
        "ES512",
        "EdDSA",
        "Ed25519",
    }:
        raise ConfigError(f"{place}: oauth.algorithms: only signatures with public keys are believed")


def _plain(text: str) -> str:
    """msgspec's message with the path in front: `$.limits` becomes limits."""
    message, _, path = text.partition(" - at `")
    path = path.rstrip("`").removeprefix("$").removeprefix(".")
    return f"{path}: {message}" if path else message


def split_address(address: str, place: str = "", what: str = "listen.addresses") -> tuple[str, int]:
    """`host:port` or `[v6]:port`. Raises ConfigError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"{place}: {what}: {address} is not host:port")
    return host.strip("[]"), int(port)


def reference() -> str:
    """docs/configuration.md, from the definitions."""
    out = ["# Configuration", "", "Generated from `fubako/config.py` by `make docs`; do not edit by hand.", ""]
    out += [
        "The file is found by `--config FILE`, `$FUBAKO_CONFIG`, `./fubako.toml`, `/etc/fubako/fubako.toml`, in that order.",
        "`fubako config check` reads it and names every fault by its place.",
        "",
    ]
    for struct, title in (
        (Config, "Top level"), (Listen, "[[listen]]"), (Tls, "[tls]"), (Certificate, "[[tls.certificates]]"),
        (Limits, "[limits]"), (Login, "[login]"), (ActAs, "[[login.act_as]]"),
        (PasswordBackend, "[[password_backend]]"), (KerberosTickets, "[kerberos]"), (OAuth, "[oauth]"),
        (Ssh, "[ssh]"), (Route, "[[route]]"), (Queue, "[queue]"), (Dns, "[dns]"),
        (Inbound, "[inbound]"), (DnsListing, "[[dns_list]]"),
        (Milter, "[[milter]]"), (ContentFilter, "[filter]"), (Rates, "[rates]"), (MasqueradeAs, "[masquerade]"),
        (Reports, "[reports]"),
    ):  # fmt: skip
        out += [f"## {title}", "", str(struct.__doc__), "", "| setting | default | meaning |", "|---|---|---|"]
        for field in msgspec.structs.fields(struct):
            meta = getattr(field.type, "__metadata__", ())
            text = next((one.description for one in reversed(meta) if isinstance(one, Meta) and one.description), "")
            default = "required" if field.default is msgspec.NODEFAULT else _shown(field.default)
            out.append(f"| `{field.name}` | {default} | {text} |")
        out.append("")
    return "\n".join(out)


def _shown(value: Any) -> str:
    if isinstance(value, Struct):
        return "see below"
    return f"`{msgspec.json.encode(value).decode()}`"

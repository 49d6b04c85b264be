"""How users prove themselves, and who else is asked whether a password holds."""

import re
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from fubako.config.addresses import ConfigError

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


class ActAs(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who may act as whom: a client logs in with its own proof and names another account (the authorization identity)."""

    user: Annotated[str, Meta(description='Who proves himself: an address, "*@example.org", or "*".', min_length=1)]
    accounts: Annotated[tuple[str, ...], Meta(description="As whom he may go on, written in the same way.")]


class PasswordBackend(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where passwords are checked that our own store does not know. Write one `[[password_backend]]` each; they are asked in this
    order, with a password that a user says (PLAIN, LOGIN, USER and PASS, SSH). One that does not answer makes a login a
    temporary failure."""

    kind: Annotated[str, Meta(description=f"One of {', '.join(BACKENDS)}.")]
    domains: Annotated[
        tuple[str, ...],
        Meta(
            description="Whose users it is asked about. Empty: all where it knows whole addresses; where it knows `local` names, "
            "the only domain that is kept here, and with several the server does not start before they are named."
        ),
    ] = ()
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
    run_as: Annotated[
        str,
        Meta(
            description="The Unix user as whom pam, ldap, checkpassword and program run; empty: the server's own. Needed where the"
            " server runs as root, which no program does."
        ),
    ] = ""
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
    user_claim: Annotated[
        str, Meta(description="The claim that holds the mail address. `email` is believed only with `email_verified`.")
    ] = "email"
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


_PUBLIC_KEY_SIGNATURES = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
_NEEDS: dict[str, tuple[str, ...]] = {
    "passwd-file": ("path",), "shadow": (), "pam": (), "ldap": ("uri",), "sqlite": ("path", "query"),
    "postgresql": ("dsn_file", "query"), "kerberos": ("path",), "sasldb": (), "saslauthd": (),
    "checkpassword": ("program",), "program": ("program",),
}  # fmt: skip


def check_mechanisms(names: Sequence[str], place: str, what: str) -> None:
    """Raises ConfigError."""
    for name in names:
        if name not in MECHANISMS:
            raise ConfigError(f"{place}: {what}: {name} is not one of {', '.join(MECHANISMS)}")


def check_backend(backend: PasswordBackend, place: str) -> None:
    """Raises ConfigError."""
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


def check_oauth(oauth: OAuth, place: str) -> None:
    """Raises ConfigError."""
    if oauth.keys and oauth.introspection:
        raise ConfigError(f"{place}: oauth.keys and oauth.introspection exclude each other")
    if oauth.keys and not (oauth.issuer and oauth.audience):
        raise ConfigError(f"{place}: oauth.issuer and oauth.audience: without them any token of any service would hold")
    for name in ("introspection", "discovery"):
        if getattr(oauth, name) and not getattr(oauth, name).startswith("https://"):
            raise ConfigError(f"{place}: oauth.{name}: only https:// is asked")
    if oauth.keys.startswith("http://"):
        raise ConfigError(f"{place}: oauth.keys: only https:// is asked")
    if not _PUBLIC_KEY_SIGNATURES.issuperset(oauth.algorithms):
        raise ConfigError(f"{place}: oauth.algorithms: only signatures with public keys are believed")

"""A user's accounts elsewhere: `accounts.toml`, frozen and typed. An unknown key is an error with its place."""

import os
import re
import shlex
import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from fubako.message.target import command_line

PORTS = {("imap", "implicit"): 993, ("imap", "starttls"): 143, ("imap", "none"): 143,
         ("smtp", "implicit"): 465, ("smtp", "starttls"): 587, ("smtp", "none"): 587,
         ("pop3", "implicit"): 995, ("pop3", "starttls"): 110, ("pop3", "none"): 110,
         ("sieve", "implicit"): 4190, ("sieve", "starttls"): 4190, ("sieve", "none"): 4190}  # fmt: skip

BLANK = re.compile("%[TF]")  # where an address is filled in: of each recipient, of the sender
_WORD = re.compile(r"(?<![^\s=])%[TF](?!\S)")
_FILLED = re.compile(r"(?:[\w.+/-]+=)?%[TF]")
_NESTED = ("`", "$(", "<<", "\n")  # what stands inside has quotes of its own


class SettingsError(Exception):
    """The file cannot be used; the message names the place."""


class Account(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One mailbox elsewhere. Write one `[[account]]` each."""

    name: Annotated[str, Meta(description="How you call it.", min_length=1)]
    protocol: Annotated[
        str,
        Meta(
            description="imap, pop3, smtp to send, or sieve for filters (ManageSieve, which has STARTTLS).",
            pattern="^(imap|pop3|smtp|sieve)$",
        ),
    ] = "imap"
    host: Annotated[str, Meta(description="The server.", min_length=1)] = "localhost"
    port: Annotated[int, Meta(description="0: the protocol's own.", ge=0, le=65535)] = 0
    tls: Annotated[
        str,
        Meta(
            description="`implicit` (993, 995), `starttls`, or `none`: then everybody on the way reads all of it; only for a"
            " tunnel, or a connection that something else protects.",
            pattern="^(implicit|starttls|none)$",
        ),
    ] = "implicit"
    server_name: Annotated[str, Meta(description="The name that the certificate must hold; empty: the host.")] = ""
    user: Annotated[str, Meta(description="Who you are there.")] = ""
    password_file: Annotated[str, Meta(description="File with the password, readable by you only.")] = ""
    password_command: Annotated[
        tuple[str, ...], Meta(description="Program and arguments, without a shell, that writes the password as a line.")
    ] = ()
    password_keyring: Annotated[
        bool, Meta(description="The password is in the system's keyring, under the account's name.")
    ] = False
    password_netrc: Annotated[
        str, Meta(description="A netrc file, readable by you only; the machine is the account's name or its host.")
    ] = ""
    mechanisms: Annotated[
        tuple[str, ...], Meta(description="SASL mechanisms that may be used; empty: every good one.")
    ] = ()
    tunnel: Annotated[
        str,
        Meta(
            description="A command, for the shell, whose standard input and output are the connection: ssh -q host imapd"
        ),
    ] = ""
    tunnel_ends_there: Annotated[
        bool,
        Meta(
            description="The tunnel proves the server and protects what is said: no TLS inside, and PREAUTH is believed."
        ),
    ] = True
    ssh: Annotated[
        str,
        Meta(
            description="Machines to go through by SSH, user@host:port, nearest first; the last one makes the connection to"
            " `host`, or runs `ssh_command`. Keys by agent or ~/.ssh, machines by known_hosts, as ssh does."
        ),
    ] = ""
    ssh_command: Annotated[
        str,
        Meta(
            description="A command there whose standard input and output are the connection: imapd. It proves both sides."
        ),
    ] = ""
    ssh_identity: Annotated[
        tuple[str, ...], Meta(description="Files of private keys; empty: the agent's, and ~/.ssh.")
    ] = ()
    ssh_known_hosts: Annotated[str, Meta(description="File of known machines; empty: ~/.ssh/known_hosts.")] = ""
    socks: Annotated[str, Meta(description="host:port of a SOCKS5 proxy.", pattern="^(|.+:[0-9]+)$")] = ""
    socket: Annotated[str, Meta(description="Path of a Unix socket to talk to, instead of host and port.")] = ""
    preconnect: Annotated[
        str, Meta(description="A command, for the shell, that makes the server reachable: ssh -f -L …")
    ] = ""
    preconnect_always: Annotated[
        bool, Meta(description="Run it before every connection, not only when there is none.")
    ] = False
    trust: Annotated[
        tuple[str, ...],
        Meta(
            description="Whom to believe, any of: `public` (the system's authorities), `dane` (what DNSSEC says), `first-use`,"
            " the path of an authority in PEM or of a folder of them; or `sha256:…`, `spki:…` (fingerprint of a certificate or"
            " of a key; then nothing else counts)."
        ),
    ] = ("public",)
    resolver: Annotated[
        str,
        Meta(
            description="host:port of a resolver on this machine that checks DNSSEC, for `dane`; empty: /etc/resolv.conf.",
            pattern="^(|.+:[0-9]+)$",
        ),
    ] = ""
    deliver: Annotated[
        str,
        Meta(
            description="Where letters go: maildir:PATH, mbox:PATH, lmtp:SOCKET, lmtp://host:port, smtp://host:port, store:CONFIG"
            " (a store of Fubako on this machine), or mda."
        ),
    ] = "maildir:~/Maildir"
    recipient: Annotated[str, Meta(description="To whom lmtp and smtp deliver; empty: the user.")] = ""
    mda: Annotated[
        tuple[str, ...], Meta(description="Program and arguments, without a shell; %T and %F are recipient and sender.")
    ] = ()
    identities: Annotated[
        tuple[str, ...],
        Meta(description="To send: senders that this account is for, besides its user: addresses, or *@domain."),
    ] = ()
    program: Annotated[
        tuple[str, ...],
        Meta(
            description="To send without a server: program and arguments, without a shell, that reads the letter; %F is the sender,"
            " %T the recipients (one argument each). With `ssh`, `ssh_command` does the same on the other machine."
        ),
    ] = ()
    from_line: Annotated[
        bool, Meta(description='The program wants a first line "From sender date", as rmail and uux do.')
    ] = False
    sent: Annotated[
        str,
        Meta(
            description="Where a copy of what was sent is kept: maildir:PATH, or ACCOUNT/FOLDER, an account of protocol imap here."
        ),
    ] = ""
    envelope: Annotated[
        tuple[str, ...],
        Meta(
            description="Header fields in which the server wrote for whom a letter is, for a mailbox of several people (multidrop)."
        ),
    ] = ()
    multidrop: Annotated[
        dict[str, str],
        Meta(
            description="Of such a mailbox: an address, or *@domain, and to whom it is delivered; who is in no entry gets it as"
            " `recipient`."
        ),
    ] = msgspec.field(default_factory=dict)
    delete_after_days: Annotated[
        int, Meta(description="Letters that were fetched so long ago are deleted there; 0: `keep` decides.", ge=0)
    ] = 0
    keep: Annotated[bool, Meta(description="Leave letters on the server.")] = True
    folders: Annotated[tuple[str, ...], Meta(description="IMAP folders to fetch.")] = ("INBOX",)
    octets_max: Annotated[int, Meta(description="Larger letters stay where they are; 0: none is too large.", ge=0)] = 0

    @property
    def port_used(self) -> int:
        return self.port or PORTS[self.protocol, self.tls]

    @property
    def source(self) -> tuple[str, ...]:
        """Whose mailbox it is, on which server: two accounts with one source are the same mailbox, and no others are. The port
        and the road belong to it: one name on two ports, or through two tunnels, is two servers."""
        road = self.tunnel or self.socket or (f"{self.ssh} {self.ssh_command}" if self.ssh else "")
        return (self.protocol, self.host.lower(), str(self.port_used), self.user, road)


class Accounts(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    account: tuple[Account, ...] = ()


def home() -> Path:
    """Where a user's files of Fubako lie: $FUBAKO_HOME, else in $XDG_CONFIG_HOME or ~/.config."""
    given = os.environ.get("FUBAKO_HOME")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "fubako"


def load(path: Path) -> list[Account]:
    """Raises SettingsError; a file with passwords' places in it must be its owner's alone."""
    try:
        text = path.read_text(encoding="utf-8")
        found = msgspec.convert(tomllib.loads(text), Accounts)
    except FileNotFoundError:
        raise SettingsError(f"{path}: there is no such file; `fubako fetch --help` shows what stands in it") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from None
    except msgspec.ValidationError as error:
        raise SettingsError(f"{path}: {error}") from None
    names = [one.name for one in found.account]
    if len(set(names)) != len(names):
        raise SettingsError(f"{path}: two accounts have the same name")
    for one in found.account:
        check(one, str(path))
    return list(found.account)


def check(account: Account, place: str) -> None:
    """Raises SettingsError."""
    kind = account.deliver.partition(":")[0]
    if kind not in ("maildir", "mbox", "lmtp", "smtp", "store", "mda") or (kind == "mda") is not bool(account.mda):
        raise SettingsError(f"{place}: deliver of {account.name}: {account.deliver} is no place for letters")
    ways = [name for name in ("tunnel", "ssh", "socks", "socket") if getattr(account, name)]
    if len(ways) > 1:
        raise SettingsError(f"{place}: {account.name}: {' and '.join(ways)} are two roads; one is needed")
    if account.program and (account.protocol != "smtp" or ways):
        raise SettingsError(f"{place}: {account.name}: program is for protocol smtp, and no road beside it")
    _check_blanks(account, place)
    if account.ssh_command and not account.ssh:
        raise SettingsError(f"{place}: {account.name}: ssh_command needs ssh, the machine that runs it")
    if account.protocol == "sieve" and account.tls == "implicit" and not account.port:
        raise SettingsError(
            f'{place}: {account.name}: ManageSieve begins in the clear on 4190: tls = "starttls" is meant'
        )
    proved = account.tunnel or account.socket or account.ssh_command
    if account.tls == "none" and not proved and account.host not in ("localhost", "127.0.0.1", "::1"):
        raise SettingsError(
            f"{place}: tls of {account.name}: none is only for tunnels and for this machine, or the last one of ssh;"
            " everybody could read the password"
        )
    if account.envelope and kind not in ("lmtp", "smtp", "store", "mda"):
        raise SettingsError(f"{place}: envelope of {account.name}: {account.deliver} has one recipient only")
    for one in account.trust:
        if not (one in ("public", "first-use", "dane") or one.startswith(("sha256:", "spki:", "md5:", "/", "~"))):
            raise SettingsError(f"{place}: trust of {account.name}: {one} is nothing that can be believed")


def _check_blanks(account: Account, place: str) -> None:
    """Where an address is filled in it stays an address. Raises SettingsError."""
    if command_line(account.program, BLANK):
        raise SettingsError(
            f"{place}: {account.name}: program: a shell would read the address as commands; %T and %F are arguments of their own"
        )
    if account.protocol == "smtp" and not blanks_are_words(account.ssh_command):
        raise SettingsError(
            f"{place}: {account.name}: ssh_command: %T and %F stand outside of quotes, as words of their own or behind a ="
        )


def blanks_are_words(command: str) -> bool:
    """Whether a quoted address in place of each %T and %F is one word for a shell: within the command's own quotes it would end
    them."""
    blanks = BLANK.findall(command)
    try:
        words = shlex.split(command)
    except ValueError:
        return not blanks
    filled = [word for word in words if BLANK.search(word)]
    plain = len(_WORD.findall(command)) == len(blanks) and all(map(_FILLED.fullmatch, filled))
    return not blanks or (plain and not any(one in command for one in _NESTED))

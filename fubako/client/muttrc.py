"""A muttrc, as far as it says where mail is and how to get there: the variables of the transport, since mutt 1.2.

`set name=value`, `set name`, `set noname`, `unset`, `source`, continued lines and quotes are read; what runs a command at
reading (backticks) is refused, and what has nothing to do with the road is left aside.
"""

import shlex
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fubako.client.settings import Account

SOURCES_MAX = 20
_YES = ("yes", "ask-yes", "1", "true")
_ROAD = {
    "spoolfile", "folder", "preconnect", "imap_preconnect", "tunnel", "tunnel_is_secure", "certificate_file", "ssl_starttls",
    "ssl_force_tls", "imap_force_ssl", "pop_force_ssl", "ssl_usesystemcerts", "ssl_ca_certificates_file", "imap_user", "imap_pass",
    "imap_login", "pop_user", "pop_pass", "pop_host", "smtp_url", "smtp_pass", "from", "realname", "record", "postponed", "mbox",
    "trash", "imap_authenticators", "pop_authenticators", "editor", "sendmail",
}  # fmt: skip
_PREFIX = {"imap": "imap", "imaps": "imap", "pop": "pop3", "pops": "pop3", "smtp": "smtp", "smtps": "smtp"}


class MuttFault(ValueError):
    """The file, or a mailbox in it, cannot be understood; the message names the place."""


@dataclass(slots=True)
class Place:
    """A mailbox as mutt names it. `secure`: TLS from the start was written (imaps:// or /ssl)."""

    protocol: str
    host: str
    port: int = 0
    secure: bool = False
    user: str = ""
    password: str = ""
    box: str = ""


@dataclass(slots=True)
class Muttrc:
    values: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def on(self, name: str, default: bool) -> bool:
        value = self.values.get(name)
        return default if value is None else value.lower() in _YES


def read(path: Path, *, depth: int = 0, into: Muttrc | None = None) -> Muttrc:
    """Raises MuttFault."""
    made = into or Muttrc()
    if depth > SOURCES_MAX:
        raise MuttFault(f"{path}: files source one another without end")
    try:
        text = path.expanduser().read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise MuttFault(f"{path}: {error.strerror}") from None
    for number, row in enumerate(text.replace("\\\n", " ").splitlines(), 1):
        place = f"{path}:{number}"
        reader = shlex.shlex(row, posix=True, punctuation_chars=";")
        reader.whitespace_split, reader.commenters = True, ""
        try:
            words = list(takewhile(lambda word: not word.startswith("#"), reader))
        except ValueError:
            if row.split()[:1] in (["set"], ["unset"]):
                raise MuttFault(f"{place}: a quotation mark is missing") from None
            continue
        if words and words[0] == "source" and len(words) == 2:
            read(path.parent / Path(words[1]).expanduser(), depth=depth + 1, into=made)
        elif words:
            _command(made, words, place)
    return made


def _command(made: Muttrc, words: list[str], place: str) -> None:
    while ";" in words:
        at = words.index(";")
        _command(made, words[:at], place)
        words = words[at + 1 :]
    if not words or words[0] not in ("set", "unset"):
        return
    pairs = _assignments(words[1:])
    for name, value in pairs:
        plain = name.removeprefix("no") if name not in _ROAD and name.startswith("no") else name
        if plain not in _ROAD:
            continue
        if words[0] == "unset" or plain != name:
            made.values[plain] = "no" if plain != name else ""
        elif value is not None and "`" in value:
            made.warnings.append(f"{place}: {name}: a command in backticks is not run; put the value there")
        else:
            made.values[plain] = "yes" if value is None else value


def _assignments(words: list[str]) -> list[tuple[str, str | None]]:
    """`a=b`, `a = b`, `a= b`, and `a` alone."""
    found: list[tuple[str, str | None]] = []
    at = 0
    while at < len(words):
        name, sign, value = words[at].partition("=")
        if sign and not value and at + 1 < len(words):
            at += 1
            value = words[at]
        elif not sign and at + 1 < len(words) and words[at + 1].startswith("="):
            value, sign = words[at + 1][1:], "="
            at += 1
            if not value and at + 1 < len(words):
                at += 1
                value = words[at]
        found.append((name, value if sign else None))
        at += 1
    return found


def place(text: str) -> Place | None:
    """`imap[s]://…`, `pop[s]://…`, `smtp[s]://…`, `{[user@]host[:port][/ssl]}box`; None for a file. Raises MuttFault."""
    if text.startswith("{"):
        inner, close, box = text[1:].partition("}")
        if not close:
            raise MuttFault(f"{text}: the bracket is not closed")
        where, *flags = inner.split("/")
        if any(not flag.startswith("ssl") for flag in flags):
            raise MuttFault(f"{text}: after the host only /ssl is known")
        user, _, where = where.rpartition("@")
        host, port = _host(where, text)
        return Place("imap", host, port, bool(flags) or port == 993, user, "", box)
    scheme, colon, _ = text.partition("://")
    if not colon or scheme.lower() not in _PREFIX:
        return None
    try:
        url = urlsplit(text)
        port = url.port or 0
    except ValueError as error:
        raise MuttFault(f"{text}: {error}") from None
    if not url.hostname:
        raise MuttFault(f"{text}: no server is named")
    user, password, box = unquote(url.username or ""), unquote(url.password or ""), unquote(url.path[1:])
    if not (url.hostname + user + password + box).isprintable():
        raise MuttFault("an address of a mailbox holds a control character")
    return Place(_PREFIX[scheme.lower()], url.hostname, port, scheme.lower().endswith("s"), user, password, box)


def _host(text: str, whole: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = text, "0"
    if not host or not port.isdigit() or int(port) > 65535:
        raise MuttFault(f"{whole}: {text} is no server")
    return host, int(port)


def account(made: Muttrc, where: Place, name: str = "mutt") -> tuple[Account, str]:
    """The account of a place by the file's settings, and the password that the file tells. TLS is demanded, whatever the file's
    version of mutt thought of it; only a tunnel does without, and not when imaps:// or /ssl is written."""
    values = made.values
    prefix = "pop" if where.protocol == "pop3" else where.protocol
    user = where.user or values.get(f"{prefix}_user", "") or values.get("imap_login", "")
    password = where.password or values.get(f"{prefix}_pass", "")
    tunnel = values.get("tunnel", "")
    trust = ["public"] if made.on("ssl_usesystemcerts", True) else []
    authorities = values.get("ssl_ca_certificates_file", "")
    if authorities:
        trust.append(str(Path(authorities).expanduser()))
    preconnect = values.get("preconnect") or values.get("imap_preconnect", "")
    mechanisms = values.get(f"{prefix}_authenticators", "").replace(":", " ").upper().split()
    made_account = Account(
        name=name, protocol=where.protocol, host=where.host, port=where.port, tls="implicit" if where.secure else "starttls",
        user=user, tunnel=tunnel, tunnel_ends_there=made.on("tunnel_is_secure", True) and not where.secure, preconnect=preconnect,
        trust=tuple(trust), mechanisms=tuple(mechanisms), folders=(where.box or "INBOX",),
    )  # fmt: skip
    return made_account, password

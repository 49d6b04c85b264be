"""fetchmail's configuration, read as fetchmail 6 reads it -> accounts. Pure.

What would weaken the protection is not taken over silently: without `sslproto ''` TLS is demanded, and a fingerprint in MD5 is
recognised and told to be weak.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from fubako.client.settings import Account

_TOKEN = re.compile(r'\s*(?:#[^\n]*|("(?:\\.|[^"\\])*")|(\'(?:\\.|[^\'\\])*\')|([^\s,;:"\'#]+)|([,;:]))', re.DOTALL)
_NOISE = frozenset({"and", "with", "has", "wants", "options", "here", ",", ";", ":"})
_SERVER = frozenset(
    [
        "via",
        "proto",
        "protocol",
        "port",
        "service",
        "auth",
        "authenticate",
        "timeout",
        "envelope",
        "qvirtual",
        "aka",
        "localdomains",
        "interface",
        "monitor",
        "plugin",
        "plugout",
        "uidl",
        "interval",
        "dns",
        "checkalias",
        "principal",
        "tracepolls",
        "bad-header",
    ]
)
_VALUED = frozenset(
    [
        "via",
        "proto",
        "protocol",
        "port",
        "service",
        "auth",
        "authenticate",
        "timeout",
        "envelope",
        "qvirtual",
        "interface",
        "monitor",
        "plugin",
        "plugout",
        "interval",
        "principal",
        "bad-header",
        "pass",
        "password",
        "folder",
        "smtphost",
        "fetchdomains",
        "mda",
        "bsmtp",
        "smtpaddress",
        "smtpname",
        "antispam",
        "limit",
        "warnings",
        "batchlimit",
        "fetchlimit",
        "fetchsizelimit",
        "fastuidl",
        "expunge",
        "preconnect",
        "postconnect",
        "sslcert",
        "sslkey",
        "sslproto",
        "sslcertfile",
        "sslcertpath",
        "sslcommonname",
        "sslfingerprint",
    ]
)
_LISTS = frozenset({"aka", "localdomains", "folder", "smtphost", "fetchdomains"})
_FLAGS = frozenset(
    [
        "keep",
        "flush",
        "limitflush",
        "fetchall",
        "rewrite",
        "stripcr",
        "forcecr",
        "pass8bits",
        "dropstatus",
        "dropdelivered",
        "mimedecode",
        "idle",
        "ssl",
        "sslcertck",
        "uidl",
        "dns",
        "checkalias",
        "tracepolls",
    ]
)
_OTHERS = frozenset({"user", "username", "is", "to", "no", "set", "there"})
_GLOBAL = frozenset({"daemon", "postmaster", "logfile", "idfile", "pidfile", "properties"})
_START = ("poll", "server", "skip", "defaults")
_ESCAPES = {"n": "\n", "t": "\t", "b": "\b", "r": "\r"}


class FetchmailFault(Exception):
    """The file cannot be meant; the message names the line."""


@dataclass(slots=True)
class _Token:
    text: str
    line: int
    quoted: bool


@dataclass(slots=True)
class _Poll:
    name: str
    skip: bool
    server: dict[str, str] = field(default_factory=dict)
    users: list[dict[str, str]] = field(default_factory=list)


def _unquoted(text: str) -> str:
    """fetchmail's escapes: \\n, \\t, decimal \\nnn, octal \\0ooo, hexadecimal \\xhh, and a joined line."""

    def one(match: re.Match[str]) -> str:
        sign = match[1]
        if sign.startswith("x"):
            return chr(int(sign[1:], 16))
        if sign.startswith("0") and len(sign) > 1:
            return chr(int(sign, 8))
        if sign.isdigit():
            return chr(int(sign) & 0xFF)
        return "" if sign == "\n" else _ESCAPES.get(sign, sign)

    return re.sub(r"\\(x[0-9A-Fa-f]{1,2}|0[0-7]{1,3}|[0-9]{1,3}|.)", one, text[1:-1], flags=re.DOTALL)


def _tokens(text: str) -> Iterator[_Token]:
    """Raises FetchmailFault."""
    text = text.replace("\\\n", " ")
    position, line, counted, end = 0, 1, 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        line, counted = line + text.count("\n", counted, position), position
        if match is None or match.end() == position:
            raise FetchmailFault(f"line {line}: a quotation mark is not closed")
        position = match.end()
        quoted = match[1] or match[2]
        if quoted:
            yield _Token(_unquoted(quoted), line, True)
        elif match[3] or match[4]:
            yield _Token(match[3] or match[4], line, False)


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = [one for one in _tokens(text) if one.quoted or one.text.lower() not in _NOISE]
        self._at = 0
        self.polls: list[_Poll] = []
        self.defaults = _Poll("", True)

    def _more(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self, after: _Token) -> _Token:
        token = self._more()
        if token is None:
            raise FetchmailFault(f"line {after.line}: {after.text} needs a value")
        self._at += 1
        return token

    def read(self) -> None:
        poll: _Poll | None = None
        while (token := self._more()) is not None:
            self._at += 1
            word = token.text.lower() if not token.quoted else ""
            if word == "set":
                self._setting(token)
            elif word in _START:
                poll = self.defaults if word == "defaults" else _Poll(self._next(token).text, word == "skip")
                if word != "defaults":
                    self.polls.append(poll)
            elif poll is None:
                raise FetchmailFault(f"line {token.line}: {token.text} stands before the first poll")
            else:
                self._option(poll, token, word)

    def _setting(self, after: _Token) -> None:
        name = self._next(after)
        value = self._more()
        if name.text.lower() in _GLOBAL and value is not None:
            self._at += 1

    def _option(self, poll: _Poll, token: _Token, word: str) -> None:
        if word in ("user", "username"):
            poll.users.append({"user": self._next(token).text})
            return
        target = poll.users[-1] if poll.users else poll.server
        negated = word == "no"
        if negated:
            token = self._next(token)
            word = token.text.lower()
        if word in ("is", "to"):
            target["is"] = self._next(token).text
            while (more := self._more()) is not None and not self._keyword(more):
                target["is"] += f" {more.text}"
                self._at += 1
        elif word == "there":
            return
        elif (word in _VALUED or word in _LISTS) and not negated:
            if word not in _SERVER and not poll.users and poll is not self.defaults and word != "ssl":
                raise FetchmailFault(f"line {token.line}: {word} is an option of a user and stands before `user`")
            target[word] = self._next(token).text
            while word in _LISTS and (more := self._more()) is not None and not self._keyword(more):
                target[word] += " " + more.text
                self._at += 1
        elif word in _FLAGS or (negated and word in _VALUED):
            target[word] = "" if negated else "yes"
        else:
            raise FetchmailFault(f"line {token.line}: {token.text} is not known")

    @staticmethod
    def _keyword(token: _Token) -> bool:
        word = token.text.lower()
        known = (
            word in _VALUED
            or word in _FLAGS
            or word in _START
            or word in ("user", "username", "is", "to", "no", "set", "there")
        )
        return not token.quoted and known


@dataclass(frozen=True, slots=True)
class Poll:
    """One user of one entry: the account, his password where it stands in the file, and what has to be said about it."""

    account: Account
    password: str = field(repr=False)
    warnings: tuple[str, ...] = ()


def parse(text: str) -> list[Poll]:
    """Every entry that is polled, one for each of its users. Raises FetchmailFault."""
    reader = _Reader(text)
    reader.read()
    found = []
    for poll in reader.polls:
        if not poll.skip:
            found += [
                _poll(poll.name, {**reader.defaults.server, **poll.server, **user}) for user in poll.users or [{}]
            ]
    return found


def _poll(name: str, given: dict[str, str]) -> Poll:
    warnings = []
    protocol = given.get("proto", given.get("protocol", "auto")).lower()
    kind = "imap" if protocol.startswith("imap") else "pop3"
    if protocol not in ("imap", "pop3", "auto", "apop"):
        raise FetchmailFault(f"{name}: protocol {protocol} is not spoken here")
    never = given.get("sslproto") == ""
    wrapped = bool(given.get("ssl"))
    port = given.get("service") or given.get("port") or "0"
    ports = {"pop3": 110, "pop3s": 995, "imap": 143, "imaps": 993}
    trust: list[str] = []
    fingerprint = given.get("sslfingerprint", "").replace(":", "").lower()
    if fingerprint:
        trust = [f"{'md5' if len(fingerprint) == 32 else 'sha256'}:{fingerprint}"]
        if len(fingerprint) == 32:
            warnings.append(
                "sslfingerprint is MD5, which can be forged; `fubako trust show` tells the SHA-256 to write instead"
            )
    elif given.get("sslcertfile"):
        trust = [given["sslcertfile"]]
    else:
        trust = ["public"]
    if given.get("sslcertpath"):
        warnings.append("sslcertpath is a folder of hashed names; name one file with sslcertfile instead")
    if "sslcertck" in given and not given["sslcertck"]:
        warnings.append("`no sslcertck` is not followed: pin the certificate instead")
    if protocol == "apop":
        warnings.append("APOP is not used: SCRAM and PLAIN under TLS are")
    mda = given.get("mda", "")
    names = given.get("is", "").split()
    people = _people(names, given, name)
    recipient = names[0].rpartition("=")[2] if names and names[0] != "*" and not people else ""
    if people and not given.get("envelope"):
        warnings.append(
            "for whom a letter is stands in X-Envelope-To, or it is yours; To and Cc are written by anybody"
        )
    where = "mda" if mda else f"smtp://{given.get('smtphost', 'localhost').split()[0]}:25"
    try:
        number = ports.get(port) or int(port)
    except ValueError:
        raise FetchmailFault(f"{name}: service {port} is no port") from None
    account = Account(
        name=name if not given.get("user") else f"{given['user']}@{name}", protocol=kind, host=given.get("via", name), port=number,
        tls="none" if never else "implicit" if wrapped else "starttls",
        server_name=given.get("sslcommonname") or (name if given.get("via") else ""), user=given.get("user", ""),
        tunnel=given.get("plugin", "").replace("%h", given.get("via", name)).replace("%p", str(number)),
        preconnect=given.get("preconnect", ""), preconnect_always=bool(given.get("preconnect")), trust=tuple(trust),
        deliver=where, mda=("/bin/sh", "-c", _shell(mda)) if mda else (), recipient=recipient or given.get("user", ""),
        envelope=tuple(given.get("envelope", "X-Envelope-To").split()[-1:]) if people else (), multidrop=people,
        keep=bool(given.get("keep")), folders=tuple(given.get("folder", "INBOX").split()), octets_max=int(given.get("limit") or 0),
    )  # fmt: skip
    return Poll(account, given.get("password", given.get("pass", "")), tuple(warnings))


def _people(names: list[str], given: dict[str, str], server: str) -> dict[str, str]:
    """Multidrop: several local names, `there=here`, or `*`; of the server's own domain, its other names, and the local domains."""
    if len(names) < 2 and "*" not in names:
        return {}
    domains = [server.lower(), *given.get("aka", "").lower().split(), *given.get("localdomains", "").lower().split()]
    found = {}
    for one in names:
        there, _, here = one.rpartition("=")
        for domain in domains:
            found[f"{(there or here).lower()}@{domain}"] = "*@localhost" if one == "*" else here
    return found


def _shell(command: str) -> str:
    """fetchmail gives its mda to the shell, and quotes what it puts in for %T and %F."""
    return re.sub(r"""["']?(%[TF])["']?""", r"'\1'", command)

"""The command lines of sendmail, rmail and qmail-inject, read as their callers write them -> `Request`. Pure.

Source: what Postfix, Exim, sendmail and notqmail accept; a flag that means nothing here is read and left out, never an error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


class UsageFault(Exception):
    """The command line cannot be meant; exit code 64."""


@dataclass(slots=True)
class Request:
    """What is asked for. `sender` None: the user who calls; "" the null sender."""

    mode: str = "send"  # send, smtp, batch, queue, aliases, verify, flush
    recipients: list[str] = field(default_factory=list)
    sender: str | None = None
    name: str = ""
    from_header: bool = False  # -t: also the recipients in the header
    dot_ends: bool = True  # a line with a dot alone ends the letter
    body: str = "7BIT"
    notify: str = ""
    ret: str = ""
    envid: str = ""
    errors: str = "m"  # m mail back, e mail back and exit 0, p print, q only the exit code
    only_header: bool = False  # qmail-inject -h: recipients on the command line are not taken
    dry: bool = False  # qmail-inject -n


_BARE = frozenset("GnmUxv")  # flags without a value that change nothing here


def sendmail(arguments: Sequence[str], program: str = "sendmail") -> Request:
    """`program` is the name it was called by. Raises UsageFault."""
    request = Request()
    request.mode = {"mailq": "queue", "newaliases": "aliases", "rsmtp": "batch"}.get(program, "send")
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word == "--":
            request.recipients += words
            break
        if not word.startswith("-") or word == "-":
            request.recipients.append(word)
            continue
        _flag(request, word[1], word[2:], words)
    if any(one.startswith("-") for one in request.recipients):
        raise UsageFault("a recipient does not begin with a hyphen")
    return request


def _value(flag: str, attached: str, words: list[str]) -> str:
    if attached:
        return attached
    if not words:
        raise UsageFault(f"-{flag} needs a value")
    return words.pop(0)


def _flag(request: Request, flag: str, attached: str, words: list[str]) -> None:
    match flag:
        case "b":
            modes = {"m": "send", "s": "smtp", "S": "batch", "p": "queue", "i": "aliases", "v": "verify"}
            if attached not in modes:
                raise UsageFault(f"-b{attached} is not possible; `fubako serve` is the server")
            request.mode = modes[attached]
        case "t":
            request.from_header = True
        case "i":
            request.dot_ends = False
        case "I":
            request.mode = "aliases"
        case "f" | "r":
            request.sender = _value(flag, attached, words).strip("<>")
        case "F":
            request.name = _value(flag, attached, words)
        case "B":
            request.body = _value(flag, attached, words).upper()
        case "N":
            request.notify = _value(flag, attached, words).upper()
        case "R":
            request.ret = _value(flag, attached, words).upper()
        case "V":
            request.envid = _value(flag, attached, words)
        case "q":
            request.mode = "flush"
        case "o":
            _option(request, attached, words)
        case "O" | "X" | "L" | "p" | "h":
            _value(flag, attached, words)
        case _ if flag in _BARE or flag in "AEJ":
            pass
        case _:
            raise UsageFault(f"-{flag}{attached} is not known")


def _option(request: Request, option: str, words: list[str]) -> None:
    if option[:1] == "i":
        request.dot_ends = False
    elif option[:1] == "e" and option[1:] in ("m", "e", "p", "q", "w"):
        request.errors = option[1:]
    elif not option:
        _value("o", "", words)


def until_dot(octets: bytes) -> bytes:
    """The lines before one that is a dot alone."""
    kept = []
    for line in octets.splitlines(keepends=True):
        if line.rstrip(b"\r\n") == b".":
            break
        kept.append(line)
    return b"".join(kept)


def rmail(arguments: Sequence[str]) -> list[str]:
    """Recipients (sendmail's rmail.c): `-T` and `-D domain` are read; an address with a comma is bracketed. Raises UsageFault."""
    words, recipients = list(arguments), list[str]()
    while words:
        word = words.pop(0)
        if word == "-T" and not recipients:
            continue
        if word == "-D" and not recipients:
            _value("D", "", words)
            continue
        if word.startswith("-"):
            raise UsageFault("a recipient does not begin with a hyphen")
        recipients.append(word)
    if not recipients:
        raise UsageFault("rmail user ...")
    return recipients


def rmail_sender(content: bytes) -> tuple[str, bytes]:
    """The bang path of the sender from the leading `From ` and `>From ` lines, and what stands behind them (rmail.c 8.61).

    Each line adds a system in front: of `remote from SITE`, or what stands before the last `!` of its user. The last line's
    user wins; none is the null sender. Raises ValueError when the first line is no such line (exit code 65).
    """
    path: list[str] = []
    user = ""
    position, lines = 0, 0
    while True:
        end = content.find(b"\n", position)
        line = content[position : end if end >= 0 else len(content)].decode("utf-8", "replace").rstrip("\r")
        if not line.startswith(("From ", ">From ")) or end < 0:
            break
        lines, position = lines + 1, end + 1
        words = line.split(" ", 1)[1].split()
        user = words[0] if words else ""
        remote = line.rpartition(" remote from ")[2].strip() if " remote from " in line else ""
        if remote:
            path.append(remote)
        elif "!" in user:
            site, _, user = user.rpartition("!")
            path.append(site)
        if remote and "!" in user:
            site, _, user = user.rpartition("!")
            path.append(site)
    if not lines:
        raise ValueError("the first line is no From line")
    return ("!".join([*path, user]) if user not in ("", "<>") else ""), content[position:]


def unbanged(path: str) -> str:
    """`site!user` as `user@site`; a longer path keeps its way in the local part (RFC 976 §2.4): a!b!u -> b!u@a."""
    site, bang, rest = path.partition("!")
    return f"{rest}@{site}" if bang and site and rest and "@" not in rest else path


def qmail_inject(arguments: Sequence[str], environment: Mapping[str, str]) -> Request:
    """notqmail's qmail-inject: -a -h -A -H -f -n -N, and its variables. Raises UsageFault."""
    request = Request(dot_ends=False)
    how = "A"
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word == "--":
            request.recipients += words
            break
        if not word.startswith("-"):
            request.recipients.append(word)
            continue
        match word[1:2]:
            case "a" | "h" | "A" | "H":
                how = word[1]
            case "f":
                request.sender = _value("f", word[2:], words).strip("<>")
            case "n":
                request.dry = True
            case "N":
                request.dry = False
            case _:
                raise UsageFault(f"{word} is not known")
    request.from_header = how in ("h", "H") or (how == "A" and not request.recipients)
    request.only_header = how == "h"
    first = next((environment[key] for key in ("QMAILNAME", "MAILNAME", "NAME") if environment.get(key)), "")
    request.name = first
    if request.sender is None:
        user = next((environment[key] for key in ("QMAILSUSER", "QMAILUSER", "MAILUSER") if environment.get(key)), "")
        host = next((environment[key] for key in ("QMAILSHOST", "QMAILHOST", "MAILHOST") if environment.get(key)), "")
        if user:
            request.sender = f"{user}@{host}" if host else user
    return request

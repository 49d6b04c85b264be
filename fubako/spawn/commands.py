"""From a request to a command: the words, the environment, the user and the time it has. An argument vector, never a shell's text.

Invariant: nothing runs as root, and no address becomes an option or a command.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fubako.message.target import command_line
from fubako.net import become
from fubako.spawn.requests import (
    Append,
    Checker,
    CheckerKind,
    FilterProgram,
    Handover,
    Lookup,
    PasswordCommand,
    Purpose,
    Request,
    ResolverFile,
)

DELIVERY_SECONDS = 600.0
OUTPUT_SECONDS = 30.0
FILTER_SECONDS = 120.0
CHECK_SECONDS = 300.0  # whoever asks waits less; this only ends what nobody waits for
NAMES_SECONDS = 30.0
HELPER_SECONDS = 24 * 3600.0  # a helper that answers many questions; another one is made afterwards

RESOLVER_FILE = Path("/etc/resolv.conf")
_LOOKUP = Path(__file__).with_name("lookup.py")
_PATH = "/usr/local/bin:/usr/bin:/bin"
ENVIRONMENT = {"PATH": _PATH, "LC_ALL": "C.UTF-8"}
_CHECK_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
# checkpassword reads descriptor 3; the program and its arguments are parameters of the shell, never its text
_ON_THREE = ("/bin/sh", "-c", 'exec 3<&0 </dev/null; exec "$@"', "checkpassword")
_BLANK = re.compile(r"\{sender\}|\{recipient\}")


@dataclass(frozen=True, slots=True)
class Command:
    """What is started."""

    words: tuple[str, ...]
    environment: Mapping[str, str]


def purpose(request: Request) -> Purpose:
    match request:
        case FilterProgram():
            return Purpose.FILTER
        case Checker():
            return Purpose.CHECK
        case Lookup() | ResolverFile():
            return Purpose.NAMES
    return Purpose.DELIVERY


def seconds(request: Request) -> float:
    """How long it may run."""
    match request:
        case Handover():
            return DELIVERY_SECONDS
        case FilterProgram():
            return FILTER_SECONDS
        case Checker(kind=kind):
            return HELPER_SECONDS if kind is CheckerKind.LDAP else CHECK_SECONDS
        case Lookup() | ResolverFile():
            return NAMES_SECONDS
    return OUTPUT_SECONDS


def command(request: Request) -> Command:
    """Raises become.NotAllowed; ValueError for addresses that no program is given."""
    match request:
        case Handover():
            return _handover(request)
        case Append(file=file):
            user = become.allowed(file.user)
            facts = (user, file.path, request.sender, str(request.created), request.trace_id)
            return Command(_ours("fubako.delivery.pipe", *facts), ENVIRONMENT)
        case PasswordCommand(words, run_as):
            return Command((*become.command(become.allowed(run_as)), *words), ENVIRONMENT)
        case FilterProgram():
            become.allowed("")  # a message of a stranger's is no food for a program of root's
            about = {"SENDER": request.sender, "CLIENT": request.client, "USER": request.user, "PATH": _PATH}
            return Command(request.words, about)
        case Checker():
            return _checker(request)
        case Lookup(host=host, port=port):
            if host.startswith("-") or not host.isprintable():
                raise ValueError("that is no name of a host")
            return Command((sys.executable, "-I", "-S", str(_LOOKUP), host, str(port)), dict(os.environ))
        case ResolverFile():
            return Command(("/bin/cat", str(RESOLVER_FILE)), ENVIRONMENT)


def _ours(module: str, *words: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-m", module, *words)


def _handover(request: Handover) -> Command:
    program = request.program
    user = become.allowed(program.user)
    if command_line(program.words):  # a row from before this was asked
        raise become.NotAllowed(
            f"{program.words[0]} would read the address as commands; write the alias or the route anew"
        )
    words = arguments(program.words, request.sender, request.recipients)
    environment = {**ENVIRONMENT, "SENDER": request.sender, "RECIPIENT": request.recipients[0]}
    return Command((*become.command(user), *words), environment)


def _checker(request: Checker) -> Command:
    before, environment = become.command(become.allowed(request.run_as)), _CHECK_ENVIRONMENT
    match request.kind:
        case CheckerKind.CHECKPASSWORD:
            words: tuple[str, ...] = (*_ON_THREE, *request.words)
        case CheckerKind.PROGRAM:
            words = request.words
        case CheckerKind.PAM:
            words = _ours("fubako.accounts.backends.pam", *request.words)
        case CheckerKind.LDAP:  # libldap has settings in its environment
            words, environment = _ours("fubako.accounts.backends.ldap"), dict(os.environ)
    return Command((*before, *words), environment)


def arguments(program: Sequence[str], sender: str, recipients: Sequence[str]) -> list[str]:
    """`{sender}`, `{recipient}` (one) and the word `{recipients}` (each a word of its own) are filled in.
    An address that begins with a hyphen would be read as an option: it is refused. Raises ValueError."""
    if not recipients or any(one.startswith("-") or not one.isprintable() for one in (sender, *recipients)):
        raise ValueError("an address that begins with a hyphen, or holds control characters, is not given to a program")
    values = {"{sender}": sender, "{recipient}": recipients[0]}
    words: list[str] = []
    for word in program:
        if word == "{recipients}":
            words += recipients
        else:
            words.append(_BLANK.sub(lambda match: values[match.group()], word))
    return words

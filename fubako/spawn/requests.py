"""What may be asked: each request names a program as the administrator wrote it, and what a message or a login adds to it."""

from enum import StrEnum

import msgspec
from msgspec import Struct

from fubako.message.target import File, Program


class Purpose(StrEnum):
    """What programs are for; those of one purpose never wait for those of another."""

    DELIVERY = "delivery"
    FILTER = "filter"
    CHECK = "check"
    NAMES = "names"


class Handover(Struct, frozen=True, kw_only=True, tag="handover"):
    """A message to a program that a route or an alias names; its blanks are not filled in yet."""

    program: Program
    sender: str
    recipients: tuple[str, ...]


class Append(Struct, frozen=True, kw_only=True, tag="append"):
    """A message to a file, or a Maildir, that an alias names. `created`: seconds since 1970."""

    file: File
    sender: str
    created: int
    trace_id: str


class PasswordCommand(Struct, frozen=True, tag="password_command"):
    """The program that writes the password of a route."""

    words: tuple[str, ...]
    run_as: str = ""


class FilterProgram(Struct, frozen=True, kw_only=True, tag="filter"):
    """A message to the filter program. `client`: who sent it, `user`: who that proved to be."""

    words: tuple[str, ...]
    sender: str = ""
    client: str = ""
    user: str = ""


class CheckerKind(StrEnum):
    """Password back ends that are programs. PAM, LDAP: processes of our own around the system's libraries."""

    PAM = "pam"
    LDAP = "ldap"
    CHECKPASSWORD = "checkpassword"
    PROGRAM = "program"


class Checker(Struct, frozen=True, kw_only=True, tag="checker"):
    """A password back end. `words`: program and arguments; of PAM the service, and the folder where that is not the system's.
    `run_as`: the Unix user it runs as; empty: the server's own."""

    kind: CheckerKind
    words: tuple[str, ...] = ()
    run_as: str = ""


class Lookup(Struct, frozen=True, kw_only=True, tag="lookup"):
    """The addresses of a host as the system knows them (getaddrinfo(3): hosts, nsswitch.conf, resolv.conf as they are now)."""

    host: str
    port: int = 0


class ResolverFile(Struct, frozen=True, tag="resolver_file"):
    """What resolv.conf says now."""


Named = Handover | Append | PasswordCommand | FilterProgram | Checker  # by an administrator
Names = Lookup | ResolverFile  # everybody's to ask: our own programs, of which each is given one word at most
Request = Named | Names


class End(StrEnum):
    """How it ended. REFUSED: it is not permitted, or not as this user. FAILED: it could not be started."""

    EXITED = "exited"
    LATE = "late"
    REFUSED = "refused"
    FAILED = "failed"


class Outcome(Struct, frozen=True, kw_only=True):
    """The spawner's answer. `code`: the exit code, below zero a signal; of FAILED the errno. `reason`: in words."""

    end: End
    code: int = 0
    reason: str = ""


_encoder = msgspec.json.Encoder()
_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_outcomes = msgspec.json.Decoder(Outcome)


def encode(word: Request | Outcome) -> bytes:
    return _encoder.encode(word)


def request(octets: bytes) -> Request:
    """Raises msgspec.DecodeError."""
    return _requests.decode(octets)


def outcome(octets: bytes) -> Outcome:
    """Raises msgspec.DecodeError."""
    return _outcomes.decode(octets)

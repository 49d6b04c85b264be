"""What a recipient's messages go to, as types. Only the administrator's tables (aliases, routes) make a `Program`, a `File` or an
`Include`; text that a peer said can become a `RemoteAddress` and nothing else, because nothing here is told by its first
character.
"""

import re
from collections.abc import Sequence
from enum import StrEnum

import msgspec
from msgspec import Struct


class Way(StrEnum):
    """How a recipient of the queue goes on. ROUTE: by the route of the domain. FILTER: to the content filter. AGAIN: through the
    intake once more. PROGRAM, FILE: to what an alias names."""

    ROUTE = "route"
    FILTER = "filter"
    AGAIN = "again"
    PROGRAM = "program"
    FILE = "file"


class RemoteAddress(Struct, frozen=True):
    """A mailbox that is not ours, as it is said on the wire."""

    address: str


class Program(Struct, frozen=True, tag="program"):
    """`words` are its path and arguments, given to no shell. `user`: the Unix user as whom it runs; empty: the server's own."""

    words: tuple[str, ...]
    user: str = ""

    @property
    def shown(self) -> str:
        return "|" + " ".join(self.words)


class File(Struct, frozen=True, tag="file"):
    """An mbox file, or a Maildir where `path` ends with a slash; written as `user`."""

    path: str
    user: str = ""

    @property
    def shown(self) -> str:
        return self.path


class Include(Struct, frozen=True):
    """A file of addresses, one a line, that is read whenever a message comes for the alias."""

    path: str

    @property
    def shown(self) -> str:
        return f":include:{self.path}"


Elsewhere = RemoteAddress | Program | File
Handed = Program | File  # to something on this machine
AliasTarget = RemoteAddress | Program | File | Include  # an address in an alias may turn out to be ours

_BLANK = re.compile(r"\{(?:sender|recipients?)\}")
_COMMAND_FLAG = re.compile(r"-[a-z]*c")  # sh -c, bash -lc

_handed = msgspec.json.Decoder(Handed)
_encoder = msgspec.json.Encoder()


def to_row(target: Handed | None) -> str:
    """As the queue keeps it; empty: an address alone."""
    return _encoder.encode(target).decode() if target is not None else ""


def from_row(text: str) -> Handed | None:
    return _handed.decode(text) if text else None


def command_line(words: Sequence[str], blank: re.Pattern[str] = _BLANK) -> str:
    """The word of a program in which an address would become text of a command line that an interpreter reads: one with white space
    in it, or the one behind `-c`. Empty: there is none. `blank`: where an address is filled in.
    `$(reboot)@x.test` is a mail address (RFC 5321 §4.1.2, quoted)."""
    for before, word in zip(("", *words), words, strict=False):
        if blank.search(word) and (any(sign.isspace() for sign in word) or _COMMAND_FLAG.fullmatch(before)):
            return word
    return ""

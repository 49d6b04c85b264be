"""Commands as values. A value that exists is well formed; whether it makes sense now is the session's business."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from math import inf

from fubako.protocol.imap.fragments import Message


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """Ranges of numbers, 0 for `*`; or the saved result `$` (RFC 5182)."""

    ranges: tuple[tuple[int, int], ...] = ()
    saved: bool = False

    def resolve(self, largest: int) -> list[tuple[int, int]]:
        """Ranges in order that do not touch, with low <= high, `*` standing for `largest`: however often
        a set names a number, it is looked at once."""
        out: list[tuple[int, int]] = []
        for low, high in sorted(
            (min(low or largest, high or largest), max(low or largest, high or largest)) for low, high in self.ranges
        ):
            if out and low <= out[-1][1] + 1:
                out[-1] = out[-1][0], max(high, out[-1][1])
            else:
                out.append((low, high))
        return out


def within(ranges: Sequence[tuple[int, int]], number: int) -> bool:
    """Whether one of the ranges, as `SequenceSet.resolve` gives them, holds the number."""
    place = bisect_right(ranges, (number, inf)) - 1
    return place >= 0 and number <= ranges[place][1]


# -- commands without arguments, and with simple ones


@dataclass(frozen=True, slots=True)
class Bare:
    """CAPABILITY NOOP LOGOUT STARTTLS CHECK CLOSE UNSELECT IDLE NAMESPACE."""

    name: str


@dataclass(frozen=True, slots=True)
class Login:
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authenticate:
    mechanism: str
    initial: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Id:
    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Enable:
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Select:
    mailbox: str
    read_only: bool
    condstore: bool = False
    # (UIDVALIDITY, MODSEQ, known UIDs) of QRESYNC (RFC 7162 §3.2.5)
    qresync: tuple[int, int, SequenceSet | None] | None = None


@dataclass(frozen=True, slots=True)
class Create:
    mailbox: str
    special_use: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OnMailbox:
    """DELETE SUBSCRIBE UNSUBSCRIBE."""

    name: str
    mailbox: str


@dataclass(frozen=True, slots=True)
class Rename:
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class List:
    """LIST and LSUB (RFC 9051 §6.3.9, RFC 5258, RFC 5819, RFC 6154)."""

    reference: str
    patterns: tuple[str, ...]
    select: frozenset[str] = frozenset()
    returns: frozenset[str] = frozenset()
    status: tuple[str, ...] = ()
    lsub: bool = False
    extended: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    mailbox: str
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AppendMessage:
    flags: tuple[str, ...]
    internaldate: int | None  # seconds since the epoch
    zone: int
    content: bytes | Message = field(repr=False)


@dataclass(frozen=True, slots=True)
class Append:
    mailbox: str
    messages: tuple[AppendMessage, ...]


# -- commands on messages; `uid` says that numbers are UIDs


@dataclass(frozen=True, slots=True)
class Section:
    """BODY[…] or BINARY[…] (RFC 9051 §6.4.5). `text`: "", HEADER, HEADER.FIELDS, HEADER.FIELDS.NOT, TEXT, MIME."""

    parts: tuple[int, ...] = ()
    text: str = ""
    fields: tuple[bytes, ...] = ()
    partial: tuple[int, int] | None = None
    peek: bool = False
    binary: bool = False
    size_only: bool = False
    label: bytes = b""  # the section as it is shown in the response
    alias: bytes = b""  # RFC822, RFC822.HEADER, RFC822.TEXT


@dataclass(frozen=True, slots=True)
class Fetch:
    uid: bool
    numbers: SequenceSet
    items: tuple[str | Section, ...]
    changed_since: int | None = None
    vanished: bool = False


@dataclass(frozen=True, slots=True)
class Store:
    uid: bool
    numbers: SequenceSet
    how: str  # "+", "-" or "="
    flags: tuple[str, ...]
    silent: bool
    unchanged_since: int | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    uid: bool
    numbers: SequenceSet
    mailbox: str
    move: bool


@dataclass(frozen=True, slots=True)
class Expunge:
    numbers: SequenceSet | None = None


@dataclass(frozen=True, slots=True)
class Search:
    uid: bool
    criteria: "Criterion"
    returns: frozenset[str] | None = None  # None: the answer of RFC 3501
    charset: str = "US-ASCII"


# -- search criteria (RFC 9051 §6.4.4)


@dataclass(frozen=True, slots=True)
class And:
    criteria: tuple["Criterion", ...]


@dataclass(frozen=True, slots=True)
class Or:
    either: "Criterion"
    other: "Criterion"


@dataclass(frozen=True, slots=True)
class Not:
    criterion: "Criterion"


@dataclass(frozen=True, slots=True)
class Flagged:
    """A system flag by its bit name, or a keyword, set or not."""

    name: str
    wanted: bool = True


@dataclass(frozen=True, slots=True)
class Recent:
    """RECENT (wanted) and OLD (not)."""

    wanted: bool


@dataclass(frozen=True, slots=True)
class Text:
    """A string in "body", "text" (header and body) or the header field `name`."""

    where: str
    needle: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Size:
    larger: bool
    octets: int


@dataclass(frozen=True, slots=True)
class Dated:
    """`kind`: "internal", "sent" or "saved"; `relation`: "before", "on" or "since"."""

    kind: str
    relation: str
    day: date


@dataclass(frozen=True, slots=True)
class Numbers:
    uid: bool
    numbers: SequenceSet


@dataclass(frozen=True, slots=True)
class ModSeq:
    modseq: int


Criterion = And | Or | Not | Flagged | Recent | Text | Size | Dated | Numbers | ModSeq

Command = (
    Bare | Login | Authenticate | Id | Enable | Select | Create | OnMailbox | Rename | List | Status | Append | Fetch
    | Store | Copy | Expunge | Search
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tagged:
    """A command with its tag."""

    tag: str
    command: Command

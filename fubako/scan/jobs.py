"""What is asked of a worker and what it answers. The content goes beside these, as it is."""

from enum import Enum

import msgspec
from msgspec import Struct


class Failure(Enum):
    DIED = "died"  # the worker ended in the middle
    DEADLINE = "deadline"  # it took too long
    MEMORY = "memory"
    REFUSED = "refused"  # the work itself raised: a fault of ours, or of the content
    BUSY = "busy"  # too many wait: nothing is known about the content
    UNAVAILABLE = "unavailable"  # no worker can be had: likewise


class JobFailed(Exception):
    """`kind` says whose fault it is; `reason` is for an operator."""

    def __init__(self, kind: Failure, reason: str) -> None:
        super().__init__(f"{kind.value}: {reason}")
        self.kind, self.reason = kind, reason

    @property
    def of_content(self) -> bool:
        """Whether the same content would fail again."""
        return self.kind not in (Failure.BUSY, Failure.UNAVAILABLE)


class Index(Struct, frozen=True, tag="index"):
    """A message's text for the search index. `header_size` in octets."""

    header_size: int


class Indexed(Struct, frozen=True, tag="indexed"):
    """Terms of header and body, as the index takes them."""

    header: str
    body: str


class Holds(Struct, frozen=True, tag="holds"):
    """Which of these folded texts a message holds: (text, whether it may be in the header too)."""

    texts: tuple[tuple[str, bool], ...]
    header_size: int


class Held(Struct, frozen=True, tag="held"):
    """One answer for each text, in order."""

    held: tuple[bool, ...]


class HashBody(Struct, frozen=True, tag="hash"):
    """SHA-256 of a body in canonical forms (see fubako.message.canonical)."""

    wanted: tuple[tuple[str, int | None], ...]


class Hashes(Struct, frozen=True, tag="hashes"):
    """A digest for each that was wanted, in order; (form, octets) of the canonical forms."""

    digests: tuple[bytes, ...]
    sizes: tuple[tuple[str, int], ...]


class ReadReports(Struct, frozen=True, tag="reports"):
    """Reports of DMARC or TLS: a message that has them attached, or one as it was attached."""


class ReadReport(Struct, frozen=True, kw_only=True):
    """`text` is the whole report as JSON."""

    kind: str
    organization: str
    id: str
    domain: str
    text: str


class Reports(Struct, frozen=True, tag="read"):
    """`problem` is set where nothing could be read."""

    found: tuple[ReadReport, ...]
    problem: str = ""


class Failed(Struct, frozen=True, tag="failed"):
    kind: Failure
    reason: str


class Ready(Struct, frozen=True, tag="ready"):
    """A worker's first word: who it is, and what the kernel holds (see fubako.confine.Report)."""

    pid: int
    held: tuple[str, ...]
    missing: tuple[str, ...]
    landlock: int


Job = Index | Holds | HashBody | ReadReports
Answer = Indexed | Held | Hashes | Reports | Failed | Ready

_encoder = msgspec.msgpack.Encoder()
_jobs: msgspec.msgpack.Decoder[Job] = msgspec.msgpack.Decoder(Job)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode(one: Job | Answer) -> bytes:
    return _encoder.encode(one)


def job(octets: bytes | bytearray) -> Job:
    return _jobs.decode(octets)


def answer(octets: bytes | bytearray) -> Answer:
    """Raises msgspec.MsgspecError."""
    return _answers.decode(octets)

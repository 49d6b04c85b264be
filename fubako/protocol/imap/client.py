"""`ImapClient`: the client's side of IMAP: commands out, responses in, as nested lists of octets.

A tagged reply to a command that was not sent is fatal (forged before TLS, C-PREREPLY); tags begin with a random prefix.
"""

from dataclasses import dataclass, field

from fubako.protocol.engine import ProtocolError
from fubako.protocol.literals import LiteralEngine, Value, values


@dataclass(frozen=True, slots=True)
class Greeting:
    condition: str  # OK, PREAUTH or BYE
    text: bytes


@dataclass(frozen=True, slots=True)
class Continue:
    text: bytes


@dataclass(frozen=True, slots=True)
class Completed:
    """The tagged reply, with the untagged responses that came before it."""

    tag: str
    condition: str
    text: bytes
    untagged: list[list[Value]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.condition == "OK"


@dataclass(frozen=True, slots=True)
class Untagged:
    """An untagged response while the server was asked to tell (IDLE, RFC 2177)."""

    values: list[Value]


Event = Greeting | Continue | Completed | Untagged


class ImapClient(LiteralEngine):
    """One connection. `tag_prefix` is random, so that nobody can reply before the command was sent."""

    def __init__(self, tag_prefix: str, *, literal_max: int = 64 * 1024 * 1024) -> None:
        super().__init__(literal_max)
        self._prefix = tag_prefix
        self._count = 0
        self._sent: set[str] = set()
        self._greeted = False
        self._untagged: list[list[Value]] = []
        self.watching = False  # between IDLE and DONE

    def tls_started(self) -> None:
        super().tls_started()
        self._sent.clear()
        self._untagged.clear()

    def command(self, text: str) -> str:
        """Send one command; returns its tag. Raises ValueError when the text could smuggle another one."""
        if any(c in text for c in "\r\n\x00"):
            raise ValueError("a command cannot hold CR, LF or NUL")
        self._count += 1
        tag = f"{self._prefix}{self._count}"
        self._sent.add(tag)
        self._output.append(f"{tag} {text}\r\n".encode())
        return tag

    def raw(self, octets: bytes) -> None:
        """A SASL response line or a literal's content, behind a Continue."""
        self._output.append(octets)

    def next_event(self) -> Event | None:
        while True:
            whole = self._gathered()
            if whole is None:
                return None
            event = self._response(*whole)
            if event is not None:
                return event

    def _response(self, pieces: list[bytes], literals: list[bytes]) -> Event | None:
        line = pieces[0]
        if line.startswith(b"+"):
            return Continue(line[1:].removeprefix(b" "))
        head, _, rest = line.partition(b" ")
        if head == b"*":
            return self._star(rest, pieces, literals)
        tag = head.decode("ascii", "replace")
        condition, _, text = rest.partition(b" ")
        if tag not in self._sent or self._output or condition.upper() not in (b"OK", b"NO", b"BAD"):
            raise ProtocolError("the server replied to a command that was not sent")
        self._sent.discard(tag)
        untagged, self._untagged = self._untagged, []
        self._ended()
        return Completed(tag, condition.decode().upper(), text, untagged)

    def _star(self, rest: bytes, pieces: list[bytes], literals: list[bytes]) -> Greeting | Untagged | None:
        condition, _, text = rest.partition(b" ")
        word = condition.decode("ascii", "replace").upper()
        if not self._greeted:
            if word not in ("OK", "PREAUTH", "BYE"):
                raise ProtocolError("the server's greeting is no IMAP greeting")
            self._greeted = True
            return Greeting(word, text)
        if word in ("OK", "NO", "BAD", "BYE", "PREAUTH"):
            self._untagged.append([word.encode(), text])
        else:
            self._untagged.append(values([rest, *pieces[1:]], literals))
        if not self.watching:
            return None
        self._ended()
        return Untagged(self._untagged.pop())

"""`SmtpClient`: the client's side of SMTP, submission and LMTP.

Turns replies into `Reply` events and commands into bytes. A reply that nobody asked for, or bytes behind a STARTTLS
reply, are a ProtocolError (CVE-2021-38371 and its kind).
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from msgspec import Struct

from fubako.message.address import Address
from fubako.message.octets import regular
from fubako.message.status import Status
from fubako.protocol.engine import ProtocolError
from fubako.protocol.lines import LineEngine, LineTooLong

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
REPLY_LINE_MAX = 4096
REPLY_LINES_MAX = 200


class Reply(Struct, frozen=True):
    """What the server said to `command`."""

    command: str
    status: Status

    @property
    def lines(self) -> list[str]:
        return self.status.text.split("\n")


class SmtpClient(LineEngine):
    """One connection. Commands may be pipelined: replies come back in order, each with the verb it answers."""

    def __init__(self) -> None:
        super().__init__()
        self._expected: list[str] = ["greeting"]
        self._code = 0
        self._lines: list[str] = []

    @property
    def pending(self) -> bool:
        return super().pending or bool(self._lines)

    def tls_started(self) -> None:
        super().tls_started()
        self._expected.clear()
        self._lines = []

    def next_event(self) -> Reply | None:
        while True:
            try:
                line = self._input.line(REPLY_LINE_MAX)
            except LineTooLong as error:
                raise ProtocolError(str(error)) from None
            if line is None:
                return None
            reply = self._line(line)
            if reply is not None:
                return reply

    def _line(self, line: bytes) -> Reply | None:
        code, sign = line[:3], line[3:4]
        if len(code) < 3 or not code.isdigit() or code[0] not in b"2345" or sign not in (b"", b" ", b"-"):
            raise ProtocolError("the server's reply is no SMTP reply")
        if not self._expected:
            raise ProtocolError("the server replied to nothing")
        if self._lines and int(code) != self._code:
            raise ProtocolError("the lines of one reply carry different codes")
        self._code = int(code)
        self._lines.append(line[4:].decode("utf-8", "replace"))
        if len(self._lines) > REPLY_LINES_MAX:
            raise ProtocolError("the server's reply has too many lines")
        if sign == b"-":
            return None
        lines, self._lines = self._lines, []
        return Reply(self._expected.pop(0), _status(self._code, tuple(lines)))

    def command(self, verb: str, *words: str) -> None:
        """Send one command. Raises ValueError when a word holds a control character (command injection)."""
        text = " ".join([verb, *words])
        if _CONTROL.search(text):
            raise ValueError("a command cannot hold a control character")
        self._output.append(text.encode("utf-8") + b"\r\n")
        self._expected.append(verb)

    def mail(self, sender: Address, parameters: Iterable[str] = ()) -> None:
        self.command("MAIL", f"FROM:<{sender}>", *parameters)

    def rcpt(self, recipient: Address, parameters: Iterable[str] = ()) -> None:
        self.command("RCPT", f"TO:<{recipient}>", *parameters)

    def response(self, line: bytes) -> None:
        """The answer to a 334 (RFC 4954 §4): base64 or `*`."""
        self._output.append(line + b"\r\n")
        self._expected.append("AUTH")

    def content(self, content: bytes, *, replies: int = 1) -> None:
        """The letter behind a 354, dot-stuffed and closed. LMTP expects a reply a recipient.

        Whatever is given leaves with CRLF for its only line end, so that nothing inside can end it (CVE-2023-51764)."""
        content = regular(content)
        stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
        end = b".\r\n" if stuffed.endswith(b"\r\n") or not stuffed else b"\r\n.\r\n"
        self._output += [stuffed, end]
        self._expected += ["content"] * replies

    def chunk(self, content: bytes, *, replies: int = 1) -> None:
        """The whole letter as one BDAT LAST (RFC 3030); made regular, because the next hop may pass it on by DATA."""
        content = regular(content)
        self._output += [b"BDAT %d LAST\r\n" % len(content), content]
        self._expected += ["content"] * replies


@lru_cache(256)
def _status(code: int, lines: tuple[str, ...]) -> Status:
    """Split off the enhanced code when every line carries the same one (RFC 2034 §4)."""
    head = lines[0].split(" ", 1)[0]
    parts = head.split(".")
    if len(parts) == 3 and all(part.isdigit() and len(part) < 4 for part in parts) and parts[0] in ("2", "4", "5"):
        if all(line == head or line.startswith(head + " ") for line in lines):
            return Status(code, head, "\n".join(line[len(head) + 1 :] for line in lines))
    return Status(code, "", "\n".join(lines))


def extensions(reply: Reply) -> dict[str, str]:
    """The EHLO reply as keyword -> parameters, keywords in upper case (RFC 5321 §4.1.1.1)."""
    found: dict[str, str] = {}
    for line in reply.lines[1:]:
        keyword, _, parameters = line.strip().partition(" ")
        if keyword.upper().startswith("AUTH="):  # said by servers before RFC 4954
            continue
        found[keyword.upper()] = parameters.strip()
    return found

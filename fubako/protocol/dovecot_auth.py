"""The words between Dovecot's auth server and its clients (Postfix's smtpd, Exim), server's side, protocol version 1.2. Pure.

Lines end in LF, fields are parted by tabs; a field's own tabs and ends of line are escaped by octet 1.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from fubako.protocol.engine import ProtocolError, Unfinished
from fubako.protocol.lines import LineBuffer

LINE_OCTETS_MAX = 16 * 1024
REQUESTS_MAX = 1000  # open at once on one connection
_ESCAPES = {"0": "\x00", "1": "\x01", "t": "\t", "r": "\r", "n": "\n"}
PLAINTEXT = ("PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2")
_ACTIVE = ("CRAM-MD5", "DIGEST-MD5")


@dataclass(frozen=True, slots=True)
class Auth:
    """A login begins. `parameters`: service, lip, rip, secured …; those without a value are empty."""

    number: int
    mechanism: str
    parameters: dict[str, str] = field(default_factory=dict)
    response: bytes | None = field(default=None, repr=False)  # base64


@dataclass(frozen=True, slots=True)
class Continue:
    number: int
    response: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Cancel:
    number: int


Event = Auth | Continue | Cancel


def escaped(text: str) -> str:
    for letter, sign in (("1", "\x01"), ("0", "\x00"), ("t", "\t"), ("r", "\r"), ("n", "\n")):
        text = text.replace(sign, f"\x01{letter}")
    return text


def unescaped(text: str) -> str:
    return re.sub("\x01(.)", lambda found: _ESCAPES.get(found[1], found[1]), text, flags=re.DOTALL)


class DovecotAuth:
    """One connection. `greet` comes first; then `receive`, `next_event`, and an answer to each event."""

    def __init__(self) -> None:
        self._input = LineBuffer()
        self._output: list[bytes] = []
        self._greeted = False

    @property
    def pending(self) -> bool:
        return len(self._input) > 0

    @property
    def unfinished(self) -> Unfinished:
        return Unfinished.COMMAND if self.pending else Unfinished.NOTHING

    def tls_started(self) -> None:
        raise AssertionError("there is no TLS on this socket")

    def receive(self, octets: bytes) -> None:
        self._input.feed(octets)

    def output(self) -> bytes:
        out, self._output = b"".join(self._output), []
        return out

    def _say(self, *fields: str) -> None:
        self._output.append("\t".join(fields).encode() + b"\n")

    def greet(self, mechanisms: Sequence[str], pid: int, number: int, cookie: str) -> None:
        self._say("VERSION", "1", "2")
        for name in mechanisms:
            traits = ["plaintext"] if name in PLAINTEXT else ["dictionary", "active"] if name in _ACTIVE else []
            self._say("MECH", name, *traits)
        self._say("SPID", str(pid))
        self._say("CUID", str(number))
        self._say("COOKIE", cookie)
        self._say("DONE")

    def next_event(self) -> Event | None:
        while (line := self._input.line(LINE_OCTETS_MAX, lf_ends=True)) is not None:
            try:
                fields = line.removesuffix(b"\n").decode("utf-8").split("\t")
            except UnicodeDecodeError:
                raise ProtocolError("a line is not UTF-8") from None
            event = self._line(fields)
            if event is not None:
                return event
        return None

    def _line(self, fields: list[str]) -> Event | None:
        match fields:
            case ["VERSION", major, *_]:
                if major != "1":
                    raise ProtocolError("only version 1 of the protocol is spoken")
                self._greeted = True
            case ["CPID", *_]:
                pass
            case ["AUTH", number, mechanism, *parameters] if self._greeted:
                return self._auth(_number(number), mechanism, parameters)
            case ["CONT", number, response] if self._greeted:
                return Continue(_number(number), response.encode())
            case ["CANCEL", number] if self._greeted:
                return Cancel(_number(number))
            case _:
                raise ProtocolError("the line is not known")
        return None

    @staticmethod
    def _auth(number: int, mechanism: str, parameters: list[str]) -> Auth:
        found: dict[str, str] = {}
        response = None
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name == "resp":  # always the last one
                response = value.encode()
                break
            found[name] = unescaped(value)
        return Auth(number, mechanism.upper(), found, response)

    def more(self, number: int, challenge: bytes) -> None:
        """`challenge` in base64."""
        self._say("CONT", str(number), challenge.decode())

    def held(self, number: int, user: str) -> None:
        self._say("OK", str(number), f"user={escaped(user)}")

    def failed(self, number: int, *, temporary: bool = False) -> None:
        self._say("FAIL", str(number), *(["temp"] if temporary else []))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 11):
        raise ProtocolError("a number is expected")
    return int(text)

"""The milter protocol, the server's side: what a mail filter is told and what it answers (sendmail's libmilter, version 6). Pure.

Packets are a length of four octets, a letter that names the kind, and data; texts end with NUL.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

VERSION = 6
PACKET_OCTETS_MAX = 64 * 1024 * 1024  # a filter may replace a whole body in one packet
BODY_OCTETS = 65_535

ADD_HEADERS, CHANGE_BODY, ADD_RECIPIENT, REMOVE_RECIPIENT, CHANGE_HEADERS, QUARANTINE, CHANGE_SENDER = (
    1,
    2,
    4,
    8,
    16,
    32,
    64,
)
ADD_RECIPIENT_PARAMETERS = 0x80
ACTIONS = (
    ADD_HEADERS | CHANGE_BODY | ADD_RECIPIENT | REMOVE_RECIPIENT | CHANGE_HEADERS | QUARANTINE | CHANGE_SENDER
    | ADD_RECIPIENT_PARAMETERS
)  # fmt: skip

NO_CONNECT, NO_HELO, NO_MAIL, NO_RCPT, NO_BODY, NO_HEADERS, NO_EOH = 1, 2, 4, 8, 0x10, 0x20, 0x40
NO_REPLY_HEADER, NO_DATA, SKIP = 0x80, 0x200, 0x400
NO_REPLY = {
    "C": 0x1000,
    "H": 0x2000,
    "M": 0x4000,
    "R": 0x8000,
    "T": 0x10000,
    "L": NO_REPLY_HEADER,
    "N": 0x40000,
    "B": 0x80000,
}
LEADING_SPACE = 0x100000
PROTOCOL = 0x1FFFFF & ~0x100 & ~0x20000 & ~0x800


class MilterError(Exception):
    """The filter does not speak as it should."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One packet of a filter: `kind` is its letter, `data` what follows."""

    kind: str
    data: bytes = b""

    @property
    def texts(self) -> list[str]:
        """Data as texts."""
        return [part.decode("utf-8", "surrogateescape") for part in self.data.removesuffix(b"\0").split(b"\0")]

    @property
    def number(self) -> int:
        """The number in front. Raises MilterError."""
        if len(self.data) < 4:
            raise MilterError("a number is missing")
        return int(struct.unpack("!I", self.data[:4])[0])


def packet(kind: str, data: bytes = b"") -> bytes:
    return struct.pack("!I", len(data) + 1) + kind.encode() + data


def texts(*parts: str | bytes) -> bytes:
    """Each with its NUL; one inside is left out."""
    octets = [part if isinstance(part, bytes) else part.encode("utf-8", "surrogateescape") for part in parts]
    return b"".join(part.replace(b"\0", b"") + b"\0" for part in octets)


def negotiate() -> bytes:
    return packet("O", struct.pack("!III", VERSION, ACTIONS, PROTOCOL))


def negotiated(answer: Answer) -> tuple[int, int]:
    """(actions, protocol) that the filter wants. Raises MilterError."""
    if answer.kind != "O" or len(answer.data) < 12:
        raise MilterError("it does not negotiate")
    version, actions, protocol = struct.unpack("!III", answer.data[:12])
    if not 2 <= version <= VERSION:
        raise MilterError(f"it speaks version {version}")
    return actions & ACTIONS, protocol & PROTOCOL


def connected(name: str, address: str, port: int) -> bytes:
    family = "6" if ":" in address else "4" if address else "U"
    data = texts(name or (f"[{address}]" if address else "localhost")) + family.encode()
    return packet("C", data + (struct.pack("!H", port) + texts(address) if address else b""))


def macros(stage: str, values: Sequence[tuple[str, str]]) -> bytes:
    """Sent before the command of a stage. Names of several letters stand in braces."""
    known = [(f"{{{name}}}" if len(name) > 1 else name, value) for name, value in values if value]
    return packet("D", stage.encode() + b"".join(texts(name, value) for name, value in known))


class Packets:
    """Octets as they come -> packets."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, octets: bytes) -> list[Answer]:
        """Raises MilterError."""
        self._buffer += octets
        buffer, at, found = self._buffer, 0, []
        while len(buffer) - at >= 4:
            (length,) = struct.unpack_from("!I", buffer, at)
            if not 1 <= length <= PACKET_OCTETS_MAX:
                raise MilterError(f"a packet of {length} octets")
            if len(buffer) - at < 4 + length:
                break
            found.append(Answer(chr(buffer[at + 4]), bytes(buffer[at + 5 : at + 4 + length])))
            at += 4 + length
        del buffer[:at]
        return found

"""A letter as a program hands it over -> a letter as it travels: CRLF line ends, the fields that must be there, no Bcc
(RFC 5322 §3.6, RFC 6409 §8). Pure; time and names come in."""

import re
from dataclasses import dataclass, field

from fubako.message.address import Address, AddressError, parse_address
from fubako.message.headers import first_fields, header_end, subset
from fubako.message.mailboxes import parse_list
from fubako.message.octets import regular, within_line_limit
from fubako.message.trace import mail_date

_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
_TO = (b"to", b"cc", b"bcc")
_RESENT = (b"resent-to", b"resent-cc", b"resent-bcc")


@dataclass(frozen=True, slots=True)
class Given:
    """What is put where the letter does not say it."""

    sender: Address
    name: str  # the person's, for From
    hostname: str
    now: float
    unique: str


@dataclass(slots=True)
class Draft:
    """Header fields as they stand, each with its folds and its CRLF, and the body."""

    fields: list[tuple[bytes, bytes]] = field(default_factory=list)  # (lower-case name, whole field)
    body: bytes = b""

    def has(self, *names: bytes) -> bool:
        return any(name in names for name, _ in self.fields)

    def values(self, *names: bytes) -> list[bytes]:
        """The unfolded values of all fields of these names, in order."""
        found = []
        for name, whole in self.fields:
            if name in names:
                found += [value for key, value in first_fields(whole).items() if key == name]
        return found

    @property
    def content(self) -> bytes:
        """As it travels: lines that are too long for SMTP are folded, encoded or cut."""
        return within_line_limit(b"".join(whole for _, whole in self.fields) + b"\r\n" + self.body)


def draft(octets: bytes) -> Draft:
    """Read what a program wrote. A letter without any header is a body (sendmail's custom); a mbox `From ` line is left out."""
    content = regular(octets)
    if content.startswith((b"From ", b">From ")):
        content = content.partition(b"\r\n")[2]
    if content and not content.startswith(b"\r\n") and not _FIELD.match(content):
        return Draft([], content)
    end = header_end(content)
    made = Draft([], content[end:])
    for line in content[:end].split(b"\r\n"):
        if not line:
            continue
        if line[:1] in b" \t" and made.fields:
            name, whole = made.fields[-1]
            made.fields[-1] = (name, whole + line + b"\r\n")
        elif _FIELD.match(line):
            made.fields.append((line.split(b":", 1)[0].strip().lower(), line + b"\r\n"))
        else:  # the header ended without its empty line
            rest = content[content.index(line) :]
            return Draft(made.fields, rest)
    return made


def recipients(letter: Draft, domain: str) -> list[Address]:
    """Everyone whom the header names: the Resent- fields where there are any, else To, Cc and Bcc. Who is named without a domain
    is in `domain`."""
    names = _RESENT if letter.has(*_RESENT) else _TO
    found: dict[Address, None] = {}
    for value in letter.values(*names):
        for box in parse_list(value):
            if box.mailbox and box.host is not None:
                try:
                    host = box.host or domain.encode()
                    found[parse_address((box.mailbox + b"@" + host).decode("utf-8"))] = None
                except (AddressError, UnicodeDecodeError):
                    continue
    return list(found)


_LEFT_OUT = frozenset({b"bcc", b"resent-bcc", b"return-path"})


def submitted(content: bytes, given: Given) -> bytes:
    """A message as a client submits it, with what must be there and without what must not (RFC 6409 §8, RFC 5321 §4.4).

    Only the header is looked at; nothing that stands there is written anew. What has no header at all is a body.
    """
    if content and not content.startswith(b"\r\n") and not _FIELD.match(content):
        content = b"\r\n" + content
    end = header_end(content)
    header, body = content[:end], content[end:]
    present = first_fields(header)
    if not _LEFT_OUT.isdisjoint(present):
        header = subset(header, _LEFT_OUT, without=True)
    header = header.removesuffix(b"\r\n") if header.endswith(b"\r\n\r\n") or header == b"\r\n" else header
    if header and not header.endswith(b"\r\n"):
        header += b"\r\n"
    missing = [field for name, field in _required(given) if name not in present]
    return b"".join([header, *missing, b"\r\n", body])


def _required(given: Given) -> list[tuple[bytes, bytes]]:
    """The fields that every message has (RFC 5322 §3.6), and a Message-ID."""
    name = given.name.replace("\\", "\\\\").replace('"', '\\"')
    shown = f'"{name}" <{given.sender}>' if name and name.isascii() and name.isprintable() else f"<{given.sender}>"
    return [
        (b"from", f"From: {shown}\r\n".encode()),
        (b"date", f"Date: {mail_date(given.now)}\r\n".encode()),
        (b"message-id", f"Message-ID: <{given.unique}@{given.hostname}>\r\n".encode()),
    ]


def complete(letter: Draft, given: Given) -> Draft:
    """With Date, Message-ID and From where they are missing, and without Bcc and Return-Path."""
    made = Draft([one for one in letter.fields if one[0] not in _LEFT_OUT], letter.body)
    made.fields += [(name, field) for name, field in _required(given) if not made.has(name)]
    if not made.has(b"to", b"cc", b"resent-to"):
        made.fields.append((b"to", b"To: undisclosed-recipients:;\r\n"))
    return made

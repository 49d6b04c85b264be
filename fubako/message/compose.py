"""A letter as a program hands it over -> a letter as it travels: CRLF line ends, the fields that must be there, no Bcc
(RFC 5322 §3.6, RFC 6409 §8). Pure; time and names come in."""

import re
from dataclasses import dataclass, field

from fubako.message.address import Address, AddressError, parse_address
from fubako.message.headers import first_fields, header_end
from fubako.message.mailboxes import parse_list
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
        return b"".join(whole for _, whole in self.fields) + b"\r\n" + self.body


def line_ends(octets: bytes) -> bytes:
    """Local line ends, of any kind, as CRLF."""
    return octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def draft(octets: bytes) -> Draft:
    """Read what a program wrote. A letter without any header is a body (sendmail's custom); a mbox `From ` line is left out."""
    content = line_ends(octets)
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


def complete(letter: Draft, given: Given) -> Draft:
    """With Date, Message-ID and From where they are missing, and without Bcc and Return-Path."""
    fields = [one for one in letter.fields if one[0] not in (b"bcc", b"resent-bcc", b"return-path")]
    made = Draft(fields, letter.body)
    if not made.has(b"from"):
        name = given.name.replace("\\", "\\\\").replace('"', '\\"')
        shown = f'"{name}" <{given.sender}>' if name and name.isascii() else f"<{given.sender}>"
        made.fields.append((b"from", f"From: {shown}\r\n".encode()))
    if not made.has(b"date"):
        made.fields.append((b"date", f"Date: {mail_date(given.now)}\r\n".encode()))
    if not made.has(b"message-id"):
        made.fields.append((b"message-id", f"Message-ID: <{given.unique}@{given.hostname}>\r\n".encode()))
    if not made.has(b"to", b"cc", b"resent-to"):
        made.fields.append((b"to", b"To: undisclosed-recipients:;\r\n"))
    return made

"""What both sides of SMTP, LMTP and submission share: limits, the reply codes we say often, parameter syntax.

Sources: RFC 5321, RFC 2033 (LMTP), RFC 6409 (submission), RFC 1870 SIZE, RFC 6152 8BITMIME, RFC 3030 CHUNKING,
RFC 6531 SMTPUTF8, RFC 3461 DSN, RFC 4954 AUTH, RFC 3207 STARTTLS, RFC 8689 REQUIRETLS, RFC 9422 LIMITS.
"""

import re
from dataclasses import dataclass

from fubako.message.status import Status


@dataclass(frozen=True, slots=True)
class SmtpLimits:
    """Octets, unless the name says otherwise."""

    command: int = 2048  # RFC 5321 §4.5.3.1.4 asks for 512, MAIL parameters for more
    auth_response: int = 12288  # RFC 4954 §4
    message: int = 50 * 1024 * 1024
    recipients: int = 1000
    errors: int = 20  # commands refused for their syntax or order before the connection ends
    long_lines: bool = False  # lines of more than 998 octets are taken from strangers (RFC 5321 §4.5.3.1.6)
    empty_commands: int = 200  # NOOP, RSET, HELO …, and chunks of a few octets, in a row without a message

    @property
    def commands_a_message(self) -> int:
        """What somebody says who did not log in, until a message has come: its recipients, and what is said besides."""
        return self.recipients + self.empty_commands


SIZE_MAX = 2**63 - 1  # octets; who announces more announces too much in any case

SYNTAX = Status(500, "5.5.2", "command not recognized")
BAD_ORDER = Status(503, "5.5.1", "bad sequence of commands")
BARE_LINE_END = Status(521, "5.5.2", "a bare CR or LF is not a line end; closing connection")
TOO_BIG = Status(552, "5.3.4", "message too big")
OK = Status(250, "2.0.0", "ok")

_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\s=\x00-\x1f\x7f]+))?")
_XTEXT_HEX = re.compile(r"\+([0-9A-F]{2})")


class SyntaxFault(ValueError):
    """A command's arguments break their grammar; `status` is the reply."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.text)
        self.status = status


def parse_parameters(text: str) -> dict[str, str]:
    """`KEY=value KEY …` behind a path; keys in upper case. Raises SyntaxFault (501; RFC 5321 §4.1.2 esmtp-param)."""
    found: dict[str, str] = {}
    for word in text.split(" "):
        if not word:
            continue
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise SyntaxFault(Status(501, "5.5.4", "a parameter is malformed"))
        key = match.group(1).upper()
        if key in found:
            raise SyntaxFault(Status(501, "5.5.4", f"{key} is given twice"))
        found[key] = match.group(2) or ""
    return found


def xtext_decode(text: str) -> str:
    """RFC 3461 §4. Raises SyntaxFault on a broken escape or an octet that is no text."""
    decoded = _XTEXT_HEX.sub(lambda m: chr(int(m.group(1), 16)), text)
    if "+" in _XTEXT_HEX.sub("", text) or any(ord(c) < 32 or ord(c) == 127 for c in decoded):
        raise SyntaxFault(Status(501, "5.5.4", "a value is not xtext"))
    return decoded


def xtext_encode(text: str) -> str:
    """What `xtext_decode` reads back (RFC 3461 §4); outside ASCII by the octets of UTF-8."""
    return "".join(
        c if "!" <= c <= "~" and c not in "+=" else "".join(f"+{octet:02X}" for octet in c.encode()) for c in text
    )

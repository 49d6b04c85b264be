"""Delivery status notifications: what became of a letter, for people and for programs (RFC 3461, RFC 3462, RFC 3464).

Pure: time, names and boundary come in. Every foreign text goes through `visible` first, so that no report can be shaped by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import Struct

from fubako.message.address import Address
from fubako.message.headers import header_end
from fubako.message.status import Status
from fubako.message.trace import mail_date

TEXT_OCTETS_MAX = 2000
CONTENT_OCTETS_MAX = 64 * 1024  # of the letter itself that goes back with RET=FULL; beyond it only its header does

_SUBJECTS = {
    "failed": "Your letter could not be delivered",
    "delayed": "Your letter has not been delivered yet",
    "delivered": "Your letter was delivered",
    "relayed": "Your letter was handed on",
    "expanded": "Your letter went to everyone behind an address",
}
_OPENINGS = {
    "failed": "This letter could not be delivered to the recipients below; no further attempt is made.",
    "delayed": "This letter waits for the recipients below. It is tried again; you need not send it anew.",
    "delivered": "This letter is in the mailbox of the recipients below.",
    "relayed": "This letter was handed to a server that sends no report of its own.",
    "expanded": "This letter went to an address that stands for others.",
}


class Reported(Struct, frozen=True):
    """One recipient in a report. `action` is failed, delayed, delivered, relayed or expanded (RFC 3464 §2.3.3)."""

    recipient: str
    action: str
    status: Status
    orcpt: str = ""  # type;address, as RCPT gave it
    remote: str = ""  # the server that said it
    last_attempt: int = 0
    retry_until: int = 0


@dataclass(frozen=True, slots=True)
class About:
    """The letter that is reported on."""

    hostname: str
    sender: Address  # to whom the report goes
    arrived: int
    content: bytes
    envid: str = ""
    full: bool = False  # RET=FULL
    trace_id: str = ""


def visible(text: str) -> str:
    """One line without control characters, cut to a limit."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(line.split())[:TEXT_OCTETS_MAX]


def delivery_report(about: About, reported: Sequence[Reported], *, now: int, unique: str) -> bytes:
    """The whole message, CRLF line ends; `unique` makes its boundary and Message-ID."""
    action = reported[0].action
    boundary = f"report-{unique}"
    utf8 = any(not one.recipient.isascii() for one in reported) or not about.sender.ascii
    head = [
        f"From: Mail delivery <postmaster@{about.hostname}>",
        f"To: <{about.sender}>",
        f"Subject: {_SUBJECTS[action]}",
        f"Date: {mail_date(now)}",
        f"Message-ID: <{unique}@{about.hostname}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status; boundary="{boundary}"',
        "",
        "",
    ]
    attached, kind = _returned(about, action)
    parts = [
        _part("text/plain; charset=utf-8", _for_people(about, reported, action).encode(), "8bit"),
        _part("message/global-delivery-status" if utf8 else "message/delivery-status",
              _for_programs(about, reported, utf8=utf8).encode(), "8bit" if utf8 else "7bit"),
        _part(kind, attached, "7bit" if attached.isascii() else "8bit"),
    ]  # fmt: skip
    opening = f"--{boundary}\r\n".encode()
    return "\r\n".join(head).encode() + b"".join(opening + part for part in parts) + f"--{boundary}--\r\n".encode()


def _part(kind: str, content: bytes, encoding: str) -> bytes:
    end = b"" if content.endswith(b"\r\n") else b"\r\n"
    return f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode() + content + end


def _returned(about: About, action: str) -> tuple[bytes, str]:
    """The letter itself where it was asked for and failed, else its header (RFC 3461 §4.3)."""
    if about.full and action == "failed" and len(about.content) <= CONTENT_OCTETS_MAX:
        return about.content, "message/rfc822"
    return about.content[: header_end(about.content)], "text/rfc822-headers"


def _for_people(about: About, reported: Sequence[Reported], action: str) -> str:
    lines = [_OPENINGS[action], ""]
    for one in reported:
        by = f" ({visible(one.remote)})" if one.remote else ""
        lines += [f"<{visible(one.recipient)}>{by}", f"    {visible(str(one.status))}", ""]
        if one.retry_until:
            lines[-1:] = [f"    It is tried again until {mail_date(one.retry_until)}.", ""]
    lines += [f"The server that writes this is {about.hostname}; it knows the letter as {about.trace_id}."]
    return "\r\n".join(lines) + "\r\n"


def _for_programs(about: About, reported: Sequence[Reported], *, utf8: bool) -> str:
    lines = [f"Original-Envelope-Id: {visible(about.envid)}"] if about.envid else []
    lines += [f"Reporting-MTA: dns; {about.hostname}", f"Arrival-Date: {mail_date(about.arrived)}", ""]
    for one in reported:
        if one.orcpt:
            lines.append(f"Original-Recipient: {visible(one.orcpt)}")
        kind = "utf-8" if utf8 and not one.recipient.isascii() else "rfc822"
        lines += [
            f"Final-Recipient: {kind}; {visible(one.recipient)}",
            f"Action: {one.action}",
            f"Status: {_enhanced(one)}",
        ]
        if one.remote:
            lines += [f"Remote-MTA: dns; {visible(one.remote)}", f"Diagnostic-Code: smtp; {visible(str(one.status))}"]
        if one.last_attempt:
            lines.append(f"Last-Attempt-Date: {mail_date(one.last_attempt)}")
        if one.retry_until:
            lines.append(f"Will-Retry-Until: {mail_date(one.retry_until)}")
        lines.append("")
    return "\r\n".join(lines)


def _enhanced(one: Reported) -> str:
    """A status of the class that the action has (RFC 3464 §2.3.4)."""
    wanted = {"failed": "5", "delayed": "4"}.get(one.action, "2")
    given = one.status.enhanced
    return given if given[:1] == wanted else f"{wanted}.0.0"

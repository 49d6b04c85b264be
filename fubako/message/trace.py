"""Trace fields: what we write on top of a letter we took (RFC 5321 §4.4, RFC 3848), and the journey beside it."""

import json
from datetime import UTC, datetime
from functools import lru_cache

from fubako.message.envelope import Transaction
from fubako.message.hop import Hop, hop_from_dict

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def mail_date(at: float) -> str:
    """RFC 5322 §3.3 date-time in UTC, independent of the locale."""
    return _second(int(at))


@lru_cache(maxsize=16)
def _second(at: int) -> str:
    when = datetime.fromtimestamp(at, UTC)
    return f"{_DAYS[when.weekday()]}, {when.day:02d} {_MONTHS[when.month - 1]} {when.year} {when:%H:%M:%S} +0000"


def from_line_date(at: float) -> str:
    """The date of a `From ` line: Sun Nov 22 08:20:01 2026, in UTC (RFC 4155, appendix A)."""
    when = datetime.fromtimestamp(int(at), UTC)
    return f"{_DAYS[when.weekday()]} {_MONTHS[when.month - 1]} {when.day:2d} {when:%H:%M:%S} {when.year}"


def with_protocol(transaction: Transaction, verb: str) -> str:
    """The `with` clause: SMTP, ESMTP, ESMTPS, ESMTPSA, UTF8SMTPSA, LMTP … (RFC 3848, RFC 6531 §4.3).

    `verb` is the greeting that was said: HELO, EHLO or LHLO.
    """
    if verb == "HELO":
        return "SMTP"
    lmtp = verb == "LHLO"
    utf8 = transaction.sender.smtputf8
    base = ("UTF8LMTP" if utf8 else "LMTP") if lmtp else ("UTF8SMTP" if utf8 else "ESMTP")
    return base + ("S" if transaction.hop.tls_version else "") + ("A" if transaction.user else "")


def received_field(transaction: Transaction, hostname: str) -> bytes:
    """Our Received field. The recipient is named only when there is one, so that nobody learns of a Bcc."""
    hop = transaction.hop
    peer = hop.peer.rsplit(":", 1)[0].strip("[]") if hop.peer else "local"
    literal = f"[IPv6:{peer}]" if ":" in peer else f"[{peer}]"
    lines = [f"Received: from {_comment(transaction.hello)} ({literal if not hop.local else 'local'})"]
    if hop.ssh and not hop.tls_version:
        lines.append(f"\t(using SSH with cipher {hop.cipher})")
    elif hop.tls_version:
        lines.append(f"\t(using {hop.tls_version} with cipher {hop.cipher})")
    only = f" for <{transaction.recipients[0].address}>" if len(transaction.recipients) == 1 else ""
    by = f" with {transaction.protocol}" if transaction.protocol else ""  # only registered protocols have a name there
    lines.append(f"\tby {hostname}{by} id {transaction.trace_id}{only};")
    lines.append(f"\t{mail_date(hop.at)}")
    return ("\r\n".join(lines) + "\r\n").encode("utf-8")


def trace_fields(transaction: Transaction, hostname: str) -> bytes:
    """Return-Path and Received, in the order of final delivery (RFC 5321 §4.4)."""
    return f"Return-Path: <{transaction.sender.address}>\r\n".encode() + received_field(transaction, hostname)


def _comment(hello: str) -> str:
    """The name a client gave, with anything that could break the field left out."""
    return "".join(c for c in hello if c.isalnum() or c in ".-_:[]")[:255] or "unknown"


def journey_to_json(hops: list[Hop]) -> str:
    return f"[{','.join([hop.as_json() for hop in hops])}]"


def journey_with(journey: str, hop: Hop) -> str:
    """The journey with one more leg, without reading it again."""
    return f"{journey[:-1]}{',' if len(journey) > 2 else ''}{hop.as_json()}]"


def journey_from_json(text: str) -> list[Hop]:
    return [hop_from_dict(facts) for facts in json.loads(text)]

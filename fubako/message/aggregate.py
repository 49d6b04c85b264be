"""Reports of a day to another domain, written and read: TLS sessions as JSON (RFC 8460), letters as XML (RFC 9990). Pure.

What others send is data from strangers: sizes are limited, a document type is refused, every text is made harmless by its reader.
"""

import base64
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from fubako.message import mime
from fubako.message.trace import mail_date
from fubako.message.words import decode_transfer

OCTETS_MAX = 10 * 1024 * 1024  # of a report, unpacked
ROWS_MAX = 100_000


class ReportError(Exception):
    """The octets are no report; the message says why."""


@dataclass(frozen=True, slots=True)
class Head:
    """Who reports, of whom, on which day; `begin` in seconds since the epoch."""

    organization: str
    contact: str
    id: str
    domain: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """One policy and what happened under it. `faults` are (result type, mx, reason, sessions)."""

    kind: str
    strings: tuple[str, ...]
    hosts: tuple[str, ...]
    successes: int
    faults: tuple[tuple[str, str, str, int], ...]


@dataclass(frozen=True, slots=True)
class Letters:
    """One row of a DMARC report. `signatures` are (domain, selector, result)."""

    source: str
    count: int
    disposition: str
    dkim_aligned: bool
    spf_aligned: bool
    author: str
    spf_domain: str
    spf_result: str
    signatures: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class TlsReport:
    head: Head
    policies: tuple[TlsPolicy, ...]


@dataclass(frozen=True, slots=True)
class DmarcReport:
    head: Head
    policy: Mapping[str, str]
    letters: tuple[Letters, ...]


# -- write


def _iso(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def tls_json(head: Head, policies: Sequence[TlsPolicy]) -> bytes:
    """RFC 8460 §4.4."""
    return json.dumps(
        {
            "organization-name": head.organization,
            "date-range": {"start-datetime": _iso(head.begin), "end-datetime": _iso(head.end)},
            "contact-info": head.contact,
            "report-id": head.id,
            "policies": [
                {
                    "policy": {
                        "policy-type": one.kind,
                        "policy-string": list(one.strings),
                        "policy-domain": head.domain,
                        "mx-host": list(one.hosts),
                    },
                    "summary": {
                        "total-successful-session-count": one.successes,
                        "total-failure-session-count": sum(fault[3] for fault in one.faults),
                    },
                    "failure-details": [
                        {
                            "result-type": kind,
                            "receiving-mx-hostname": mx,
                            "failed-session-count": count,
                            "failure-reason-code": reason,
                        }
                        for kind, mx, reason, count in one.faults
                    ],
                }
                for one in policies
            ],
        },
        indent=1,
    ).encode()


def dmarc_xml(head: Head, policy: Mapping[str, str], letters: Sequence[Letters]) -> bytes:
    """RFC 9990, appendix A."""

    def tag(name: str, text: object) -> str:
        return f"<{name}>{escape(str(text))}</{name}>"

    out = [
        '<?xml version="1.0" encoding="UTF-8"?>\n<feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0">',
        "<report_metadata>", tag("org_name", head.organization), tag("email", head.contact), tag("report_id", head.id),
        "<date_range>", tag("begin", head.begin), tag("end", head.end), "</date_range></report_metadata>",
        "<policy_published>", tag("domain", head.domain), *(tag(name, value) for name, value in policy.items()),
        "</policy_published>",
    ]  # fmt: skip
    for one in letters:
        out += [
            "<record><row>", tag("source_ip", one.source), tag("count", one.count), "<policy_evaluated>",
            tag("disposition", one.disposition), tag("dkim", "pass" if one.dkim_aligned else "fail"),
            tag("spf", "pass" if one.spf_aligned else "fail"), "</policy_evaluated></row><identifiers>",
            tag("header_from", one.author), "</identifiers><auth_results>",
            *(f"<dkim>{tag('domain', d)}{tag('selector', s)}{tag('result', r)}</dkim>" for d, s, r in one.signatures),
            "<spf>", tag("domain", one.spf_domain), tag("result", one.spf_result), "</spf></auth_results></record>",
        ]  # fmt: skip
    return "\n".join([*out, "</feedback>", ""]).encode()


def letter(kind: str, head: Head, sender: str, to: str, packed: bytes, now: float) -> bytes:
    """The report as a letter; `kind` is tls or dmarc, `packed` is gzip (RFC 8460 §5.3, RFC 9990 §2.6)."""
    name = f"{head.contact.rpartition('@')[2]}!{head.domain}!{head.begin}!{head.end}.{'json' if kind == 'tls' else 'xml'}.gz"
    boundary = f"=_{head.id}"
    body = base64.encodebytes(packed).replace(b"\n", b"\r\n").decode()
    of = "TLS sessions" if kind == "tls" else "letters"
    if kind == "tls":
        outer = f'multipart/report; report-type="tlsrpt"; boundary="{boundary}"'
        extra = f"TLS-Report-Domain: {head.domain}\r\nTLS-Report-Submitter: {head.contact.rpartition('@')[2]}\r\n"
        inner = "application/tlsrpt+gzip"
    else:
        outer, extra, inner = f'multipart/mixed; boundary="{boundary}"', "", "application/gzip"
    return (
        f"From: <{sender}>\r\nTo: <{to}>\r\nDate: {mail_date(now)}\r\nMessage-ID: <{head.id}@{sender.rpartition('@')[2]}>\r\n"
        f"Subject: Report Domain: {head.domain} Submitter: {head.contact.rpartition('@')[2]} Report-ID: <{head.id}>\r\n"
        f"{extra}Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\nContent-Type: {outer}\r\n\r\n--{boundary}\r\n"
        f"Content-Type: text/plain; charset=us-ascii\r\n\r\nA report of one day's {of} from {head.organization} about"
        f" {head.domain}.\r\n\r\n--{boundary}\r\nContent-Type: {inner}\r\nContent-Transfer-Encoding: base64\r\n"
        f'Content-Disposition: attachment; filename="{name}"\r\n\r\n{body}\r\n--{boundary}--\r\n'
    ).encode()


# -- read


def unpacked(octets: bytes) -> bytes:
    """A report out of gzip or zip, or as it is. Raises ReportError."""
    try:
        if octets[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(octets)) as packed:
                octets = packed.read(OCTETS_MAX + 1)
        elif octets[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(octets)) as archive, archive.open(archive.namelist()[0]) as member:
                octets = member.read(OCTETS_MAX + 1)
    except (
        OSError,
        EOFError,
        zlib.error,
        zipfile.BadZipFile,
        IndexError,
        RuntimeError,
        NotImplementedError,
        ValueError,
    ) as error:
        raise ReportError(f"it cannot be unpacked: {error}") from None
    if len(octets) > OCTETS_MAX:
        raise ReportError(f"it is larger than {OCTETS_MAX} octets")
    return octets


def read(octets: bytes) -> TlsReport | DmarcReport:
    """A report, packed or not. Raises ReportError."""
    plain = unpacked(octets).lstrip(b"\xef\xbb\xbf \t\r\n")
    if plain.startswith(b"{"):
        return read_tls(plain)
    if plain.startswith(b"<"):
        return read_dmarc(plain)
    raise ReportError("it is neither JSON nor XML")


def in_letter(content: bytes) -> list[TlsReport | DmarcReport]:
    """Every report that a letter carries. Raises ReportError when it carries none that can be read."""
    found: list[TlsReport | DmarcReport] = []
    problem = "there is no report in it"
    waiting = [mime.scan(content)]
    while waiting:
        part = waiting.pop()
        waiting += part.children
        if part.children:
            continue
        octets = decode_transfer(content[part.body : part.end], part.encoding)
        if octets is None or len(octets) > OCTETS_MAX:
            continue
        kind = part.type + b"/" + part.subtype
        if kind.lower().startswith(b"text/") and not octets.lstrip().startswith((b"{", b"<?xml", b"<feedback")):
            continue
        try:
            found.append(read(octets))
        except ReportError as error:
            problem = str(error)
    if not found:
        raise ReportError(problem)
    return found


def _text(value: Any, limit: int = 300) -> str:
    return value[:limit] if isinstance(value, str) else ""


def _number(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**53 else 0


def _strings(value: Any) -> tuple[str, ...]:
    some = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(_text(one) for one in some[:100])


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value[:ROWS_MAX] if isinstance(value, list) else []


def read_tls(octets: bytes) -> TlsReport:
    """Raises ReportError."""
    try:
        raw = json.loads(octets)
    except (ValueError, RecursionError):
        raise ReportError("it is no JSON") from None
    raw = _mapping(raw)
    if "policies" not in raw or "report-id" not in raw:
        raise ReportError("it is no TLS report")
    dates = _mapping(raw.get("date-range"))
    policies, domain = [], ""
    for one in map(_mapping, _list(raw["policies"])):
        policy, summary = _mapping(one.get("policy")), _mapping(one.get("summary"))
        domain = domain or _text(policy.get("policy-domain"))
        faults = tuple(
            (_text(f.get("result-type")), _text(f.get("receiving-mx-hostname")), _text(f.get("failure-reason-code")),
             _number(f.get("failed-session-count")))
            for f in map(_mapping, _list(one.get("failure-details")))
        )  # fmt: skip
        policies.append(
            TlsPolicy(
                _text(policy.get("policy-type")), _strings(policy.get("policy-string")), _strings(policy.get("mx-host")),
                _number(summary.get("total-successful-session-count")), faults,
            )
        )  # fmt: skip
    head = Head(
        _text(raw.get("organization-name")), _text(raw.get("contact-info")), _text(raw.get("report-id")), domain,
        _seconds(dates.get("start-datetime")), _seconds(dates.get("end-datetime")),
    )  # fmt: skip
    return TlsReport(head, tuple(policies))


def _seconds(value: Any) -> int:
    try:
        return int(datetime.fromisoformat(_text(value)).timestamp())
    except (ValueError, OverflowError):
        return 0


def read_dmarc(octets: bytes) -> DmarcReport:
    """Raises ReportError."""
    if b"<!DOCTYPE" in octets or b"<!ENTITY" in octets:
        raise ReportError("it has a document type")
    try:
        root = ElementTree.fromstring(octets)  # noqa: S314  # no entities: see above
    except (ElementTree.ParseError, ValueError, LookupError):
        raise ReportError("it is no XML") from None
    for element in root.iter():
        element.tag = str(element.tag).rpartition("}")[2]
    if root.tag != "feedback" or root.find("report_metadata") is None:
        raise ReportError("it is no DMARC report")

    def text(path: str, below: ElementTree.Element = root) -> str:
        return (below.findtext(path) or "").strip()[:300]

    def number(path: str, below: ElementTree.Element = root) -> int:
        value = text(path, below)
        return int(value) if value.isascii() and value.isdigit() and len(value) < 16 else 0

    meta = "report_metadata/"
    head = Head(
        text(meta + "org_name"), text(meta + "email"), text(meta + "report_id"), text("policy_published/domain"),
        number(meta + "date_range/begin"), number(meta + "date_range/end"),
    )  # fmt: skip
    published = root.find("policy_published")
    policy = (
        {str(one.tag): (one.text or "").strip()[:300] for one in published if one.tag != "domain"}
        if published is not None
        else {}
    )
    letters = tuple(
        Letters(
            text("row/source_ip", one), number("row/count", one), text("row/policy_evaluated/disposition", one),
            text("row/policy_evaluated/dkim", one) == "pass", text("row/policy_evaluated/spf", one) == "pass",
            text("identifiers/header_from", one), text("auth_results/spf/domain", one), text("auth_results/spf/result", one),
            tuple((text("domain", d), text("selector", d), text("result", d)) for d in one.findall("auth_results/dkim")[:20]),
        )
        for one in root.findall("record")[:ROWS_MAX]
    )  # fmt: skip
    return DmarcReport(head, policy, letters)

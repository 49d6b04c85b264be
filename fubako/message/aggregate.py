"""Reports of a day to another domain, written and read: TLS sessions as JSON (RFC 8460), letters as XML (RFC 9990). Pure.

What others send is data from strangers: `archive` and `xml` limit what comes out of it, every text is made harmless by its reader.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

from fubako.message import archive, mime, xml
from fubako.message.trace import mail_date
from fubako.message.words import decode_transfer

OCTETS_MAX = archive.OCTETS_MAX  # of a report, unpacked
ROWS_MAX = 100_000
VALUES_MAX = 500_000  # of JSON: each costs some fifty octets of memory
TEXT_MAX = 300
SIGNATURES_MAX = 20  # of a row
POLICY_TAGS_MAX = 50
REPORTS_MAX = 20  # of one letter
_UTF_16 = (b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0<")


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
    """The report as a letter; `kind` is tls or dmarc, `packed` is gzip (RFC 8460 §5.3; RFC 9990 names it alike)."""
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


def read(octets: bytes) -> TlsReport | DmarcReport:
    """A report, packed or not. Raises ReportError."""
    try:
        plain = archive.unpacked(octets).lstrip(b"\xef\xbb\xbf \t\r\n")
    except archive.ArchiveError as error:
        raise ReportError(str(error)) from None
    if plain.startswith(b"{"):
        return read_tls(plain)
    if plain.startswith((b"<", *_UTF_16)):
        return read_dmarc(plain)
    raise ReportError("it is neither JSON nor XML")


def in_letter(content: bytes) -> list[TlsReport | DmarcReport]:
    """Every report that a letter carries. Raises ReportError when it carries none that can be read."""
    found: list[TlsReport | DmarcReport] = []
    problem = "there is no report in it"
    waiting, tried = [mime.scan(content)], 0
    while waiting:
        part = waiting.pop()
        waiting += part.children
        if part.children:
            continue
        if tried == REPORTS_MAX:
            break
        octets = decode_transfer(content[part.body : part.end], part.encoding)
        if octets is None or len(octets) > OCTETS_MAX:
            continue
        kind = part.type + b"/" + part.subtype
        if kind.lower().startswith(b"text/") and not octets.lstrip().startswith((b"{", b"<?xml", b"<feedback")):
            continue
        tried += 1
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
    if sum(map(octets.count, (b"[", b"{", b","))) > VALUES_MAX:
        raise ReportError(f"it holds more than {VALUES_MAX} values")
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
    try:
        root = xml.parse(octets)
    except xml.XmlError as error:
        raise ReportError(str(error)) from None
    meta = root.find("report_metadata")
    if root.name != "feedback" or meta is None:
        raise ReportError("it is no DMARC report")
    head = Head(
        _value(meta, "org_name"), _value(meta, "email"), _value(meta, "report_id"), _value(root, "policy_published/domain"),
        _count(meta, "date_range/begin"), _count(meta, "date_range/end"),
    )  # fmt: skip
    published = root.find("policy_published")
    policy = (
        {one.name[:TEXT_MAX]: one.text.strip()[:TEXT_MAX] for one in published.children[:POLICY_TAGS_MAX]}
        if published
        else {}
    )
    policy.pop("domain", None)
    return DmarcReport(head, policy, tuple(map(_row, root.all("record")[:ROWS_MAX])))


def _row(one: xml.Element) -> Letters:
    return Letters(
        _value(one, "row/source_ip"), _count(one, "row/count"), _value(one, "row/policy_evaluated/disposition"),
        _value(one, "row/policy_evaluated/dkim") == "pass", _value(one, "row/policy_evaluated/spf") == "pass",
        _value(one, "identifiers/header_from"), _value(one, "auth_results/spf/domain"), _value(one, "auth_results/spf/result"),
        tuple(
            (_value(d, "domain"), _value(d, "selector"), _value(d, "result"))
            for d in one.all("auth_results/dkim")[:SIGNATURES_MAX]
        ),
    )  # fmt: skip


def _value(element: xml.Element, path: str) -> str:
    return element.value(path).strip()[:TEXT_MAX]


def _count(element: xml.Element, path: str) -> int:
    text = _value(element, path)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0

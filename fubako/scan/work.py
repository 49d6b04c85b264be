"""The work itself, as a worker does it: pure functions of a job and its content."""

import json
from dataclasses import asdict

from fubako.message import aggregate
from fubako.message.aggregate import TlsReport
from fubako.message.canonical import body_hashes
from fubako.message.text import body_text, header_text
from fubako.scan import jobs
from fubako.scan.terms import fold, prepared

TEXT_CHARACTERS_MAX = 8 * 1024 * 1024  # of one message that are searched


def do(job: jobs.Job, content: bytes) -> jobs.Answer:
    match job:
        case jobs.Index(header_size):
            header, body = _texts(content, header_size)
            return jobs.Indexed(prepared(header), prepared(body))
        case jobs.Holds(texts, header_size):
            header, body = map(fold, _texts(content, header_size))
            return jobs.Held(tuple(text in body or (anywhere and text in header) for text, anywhere in texts))
        case jobs.HashBody(wanted):
            made = body_hashes(content, wanted)
            found = made.digests()
            return jobs.Hashes(tuple(found[one] for one in wanted), tuple(made.sizes().items()))
        case jobs.ReadReports():
            return _reports(content)


def _texts(content: bytes, header_size: int) -> tuple[str, str]:
    return header_text(content[:header_size])[:TEXT_CHARACTERS_MAX], body_text(content)[:TEXT_CHARACTERS_MAX]


def _reports(content: bytes) -> jobs.Reports:
    packed = content[:2] == b"\x1f\x8b" or content[:2] == b"PK" or content.lstrip()[:1] in (b"{", b"<")
    try:
        found = [aggregate.read(content)] if packed else aggregate.in_letter(content)
    except aggregate.ReportError as error:
        return jobs.Reports((), str(error))
    return jobs.Reports(
        tuple(
            jobs.ReadReport(
                kind="tls" if isinstance(one, TlsReport) else "dmarc", organization=one.head.organization, id=one.head.id,
                domain=one.head.domain, text=json.dumps(asdict(one), ensure_ascii=False),
            )
            for one in found
        )
    )  # fmt: skip

"""Reports written and read again; what strangers send as one."""

import gzip
import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubako.message import aggregate
from fubako.message.aggregate import Head, Letters, TlsPolicy

HEAD = Head("Here <& Co>", "postmaster@here.test", "2026-11-22-abc", "far.test", 1_795_305_600, 1_795_391_999)
TLS = (
    TlsPolicy(
        "sts",
        ("version: STSv1", "mode: testing"),
        ("mx.far.test",),
        5,
        (("certificate-expired", "mx.far.test", "old", 2),),
    ),
)
DMARC = (
    Letters("192.0.2.1", 3, "reject", False, False, "far.test", "evil.test", "pass", (("evil.test", "s", "pass"),)),
)


def test_tls_there_and_back():
    found = aggregate.read(gzip.compress(aggregate.tls_json(HEAD, TLS)))
    assert found == aggregate.TlsReport(HEAD, TLS)


def test_dmarc_there_and_back():
    found = aggregate.read(aggregate.dmarc_xml(HEAD, {"p": "reject", "testing": "n"}, DMARC))
    assert found == aggregate.DmarcReport(HEAD, {"p": "reject", "testing": "n"}, DMARC)


@pytest.mark.parametrize("kind", ["tls", "dmarc"])
def test_in_a_letter(kind):
    octets = aggregate.tls_json(HEAD, TLS) if kind == "tls" else aggregate.dmarc_xml(HEAD, {}, DMARC)
    content = aggregate.letter(kind, HEAD, "postmaster@here.test", "tls@far.test", gzip.compress(octets), 1.0)
    (found,) = aggregate.in_letter(content)
    assert found.head == HEAD
    assert b"\n" not in content.replace(b"\r\n", b"")


def test_zip_as_google_sends_it():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("google.com!far.test!1!2.xml", aggregate.dmarc_xml(HEAD, {}, DMARC))
    assert aggregate.read(packed.getvalue()).letters == DMARC


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "neither"),
        (b"hello", "neither"),
        (b"{", "no JSON"),
        (b"{}", "no TLS report"),
        (b"<a", "no XML"),
        (b"<a/>", "no DMARC report"),
        (b'<!DOCTYPE a [<!ENTITY x "y">]><feedback>&x;</feedback>', "document type"),
        (b"\x1f\x8b\x08junk", "unpacked"),
        (b"PK\x03\x04junk", "unpacked"),
        (gzip.compress(b" " * (aggregate.OCTETS_MAX + 1)), "larger"),
        (b"[" * 100_000, "neither"),
        (b'{"policies": ' + b"[" * 100_000, "no JSON"),
    ],
)
def test_what_is_no_report(octets, why):
    with pytest.raises(aggregate.ReportError, match=why):
        aggregate.read(octets)


def test_wrong_types_are_left_out():
    found = aggregate.read(
        b'{"policies": [3, {"policy": [], "summary": {"total-successful-session-count": "x"}}], "report-id": 7}'
    )
    assert [policy.successes for policy in found.policies] == [0, 0] and found.head.id == ""


@given(st.binary(max_size=300))
def test_any_octets_give_a_report_or_a_reason(octets):
    for made in (octets, b"\x1f\x8b" + octets, b"PK\x03\x04" + octets, b"{" + octets, b"<" + octets):
        with pytest.raises(aggregate.ReportError):
            aggregate.read(made)
    with pytest.raises(aggregate.ReportError):
        aggregate.in_letter(b"Content-Type: application/gzip\r\n\r\n" + octets)

"""Archives of strangers. Memory is not measured here; that what comes out is bounded is."""

import gzip
import io
import struct
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubako.message import aggregate, archive

REPORT = b"<feedback>" + b"x" * 1000 + b"</feedback>"


def zipped(members, method=zipfile.ZIP_DEFLATED):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as out:
        for name, octets in members:
            out.writestr(name, octets)
    return made.getvalue()


def zip64():
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as out, out.open("r.xml", "w", force_zip64=True) as member:
        member.write(REPORT)
    return made.getvalue()


def with_size(octets, size):
    """The sizes of the central directory replaced by a lie."""
    at = octets.index(b"PK\x01\x02") + 24
    return octets[:at] + struct.pack("<I", size) + octets[at + 4 :]


def encrypted(octets):
    at, local = octets.index(b"PK\x01\x02") + 8, 6
    flagged = octets[:at] + b"\x01\x00" + octets[at + 2 :]
    return flagged[:local] + b"\x01\x00" + flagged[local + 2 :]


def unnamed(_):
    """Archives hold the time at which they were made: no name for a case."""
    return "archive"


@pytest.mark.parametrize(
    "octets",
    [
        REPORT,
        gzip.compress(REPORT),
        gzip.compress(REPORT[:500]) + gzip.compress(REPORT[500:]),
        gzip.compress(REPORT) + b"\0" * 100,
        zipped([("r.xml", REPORT)]),
        zipped([("r.xml", REPORT)], zipfile.ZIP_STORED),
        zipped([("a/", b""), ("../../etc/passwd", REPORT)]),
        zipped([("/etc/passwd", REPORT), ("second.xml", b"x")]),
        zip64(),
        with_size(zipped([("r", REPORT)]), 2_000_000_000),
    ],
    ids=unnamed,
)
def test_what_is_unpacked(octets):
    assert archive.unpacked(octets) == REPORT


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (gzip.compress(b"<a>" * 7_000_000), "larger"),
        (gzip.compress(b" " * 2_000_000), "larger"),
        (b"".join(gzip.compress(b"x" * 1000) for _ in range(11)), "members"),
        (gzip.compress(REPORT)[:-20], "too early"),
        (gzip.compress(REPORT)[:30] + b"\xff" * 30, "unpacked"),
        (gzip.compress(gzip.compress(REPORT)), "more than once"),
        (gzip.compress(zipped([("r", REPORT)])), "more than once"),
        (zipped([("r.zip", zipped([("r", REPORT)]))]), "more than once"),
        (zipped([("r.xml.gz", gzip.compress(REPORT))]), "more than once"),
        (zipped([("bomb", b"\0" * 9_000_000)]), "larger"),
        (with_size(zipped([("bomb", b"\0" * 9_000_000)]), 10), "unpacked"),
        (encrypted(zipped([("r", REPORT)])), "encrypted"),
        (zipped([("r", REPORT)], zipfile.ZIP_LZMA), "method"),
        (zipped([("r", REPORT)], zipfile.ZIP_BZIP2), "method"),
        (zipped([(f"r{at}", b"x") for at in range(11)]), "members"),
        (zipped([]), "unpacked|empty"),
        (zipped([("only/", b"")]), "empty"),
        (zipped([("r", REPORT)])[:-30], "unpacked"),
        (b"PK\x03\x04" + b"\0" * 100, "unpacked"),
    ],
    ids=unnamed,
)
def test_what_is_not(octets, why):
    with pytest.raises(archive.ArchiveError, match=why):
        archive.unpacked(octets)
    with pytest.raises(aggregate.ReportError, match=why):
        aggregate.read(octets)


def test_a_damaged_member_of_every_method_is_told(monkeypatch):
    """As if the methods that are refused were let in: what the library then raises is told as well."""
    monkeypatch.setattr(archive, "_METHODS", (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        octets = bytearray(zipped([("r.xml", bytes(range(256)) * 20)], method))
        octets[45:75] = b"\xff" * 30
        with pytest.raises(archive.ArchiveError, match="unpacked"):
            archive.unpacked(bytes(octets))


@given(st.binary(max_size=300))
def test_any_octets_are_unpacked_or_refused(octets):
    whole = zipped([("r", REPORT)])
    for made in (octets, b"\x1f\x8b\x08" + octets, b"PK\x03\x04" + octets, whole[:60] + octets + whole[60:]):
        with suppress(archive.ArchiveError):
            assert isinstance(archive.unpacked(made), bytes)

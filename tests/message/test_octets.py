"""The regular form of a message's octets: an oracle that looks at each octet agrees with the counting, however the blocks are cut.

Leaves out: who is refused and who is mended (tests/server), and what a reader makes of the text (tests/interop).
"""

import email
import email.policy
import quopri
import time
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fubako.message.octets import Inspector, Irregularity, irregularity, regular, within_line_limit

PIECES = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"\0", b".", b"a", b"x" * 996, b"y" * 500, b"From: a", b""]), max_size=12
)


def oracle(content: bytes) -> bool:
    """Whether content is regular, told line by line."""
    lines = content.split(b"\r\n")
    return b"\0" not in content and all(b"\r" not in line and b"\n" not in line and len(line) <= 998 for line in lines)


@given(PIECES)
@example([b"\r\n", b"x" * 996, b"a", b"a", b"\r\n"])
@example([b"x" * 996, b"a", b"a", b"a"])
def test_counting_agrees_with_reading_line_by_line(pieces):
    content = b"".join(pieces)
    assert (irregularity(content) is None) is oracle(content)


@given(PIECES, st.lists(st.integers(0, 3000), max_size=6))
@example([b"a", b"\r", b"\n"], [2])
@example([b"x" * 996, b"a", b"a", b"\r\n"], [996])
def test_blocks_may_be_cut_anywhere(pieces, cuts):
    content = b"".join(pieces) + b"\r\n"
    places = sorted({0, len(content), *(cut % len(content) for cut in cuts)})
    inspector = Inspector()
    for start, end in pairwise(places):
        inspector.feed(content[start:end])
    assert (inspector.end() is None) is oracle(content)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"a\r\n\r\nb\r\n", None),
        (b"a\n", Irregularity.BARE),
        (b"a\r", Irregularity.BARE),
        (b"a\rb\r\n", Irregularity.BARE),
        (b"a\r\r\n", Irregularity.BARE),
        (b"a\0b\r\n", Irregularity.NUL),
        (b"x" * 998 + b"\r\n", None),
        (b"x" * 999 + b"\r\n", Irregularity.LONG_LINE),
        (b"x" * 999, Irregularity.LONG_LINE),
        (b"x" * 998, None),
        (b"", None),
    ],
)
def test_what_is_irregular(content, found):
    assert irregularity(content) is found


@given(PIECES)
def test_mended_content_is_regular_but_for_long_lines_and_mending_again_changes_nothing(pieces):
    made = regular(b"".join(pieces))
    assert irregularity(made, long_lines=True) is None
    assert regular(made) == made
    assert irregularity(within_line_limit(made)) is None


@pytest.mark.parametrize(
    ("given_octets", "made"),
    [
        (b"a\nb\r\nc\rd", b"a\r\nb\r\nc\r\nd"),
        (b"a\r\r\nb\r\r\n", b"a\r\nb\r\n"),
        (b"Fr\0om: x\r\n", b"Fr?om: x\r\n"),  # no field comes into being
        (b"\n.\n", b"\r\n.\r\n"),
        (b"a\r\n\r\nb\n", b"a\r\n\r\nb\r\n"),
    ],
)
def test_how_it_is_mended(given_octets, made):
    assert regular(given_octets) == made


def test_a_long_text_comes_back_whole_from_quoted_printable():
    text = b"first\r\n" + b"word " * 400 + b"end = 1\r\n.\r\nlast\r\n"
    made = within_line_limit(b"Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + text)
    header, _, body = made.partition(b"\r\n\r\n")
    assert b"quoted-printable" in header
    assert header.count(b"MIME-Version") == 1
    assert quopri.decodestring(body.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n") == text


def test_a_long_header_line_is_folded_and_reads_the_same():
    subject = " ".join(f"word{number}" for number in range(400))
    made = within_line_limit(f"To: b@x.test\r\nSubject: {subject}\r\n\r\nhi\r\n".encode())
    assert email.message_from_bytes(made, policy=email.policy.SMTP)["subject"] == subject


def test_a_multipart_is_cut():
    content = b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\n' + b"x" * 2500 + b"\r\n--b--\r\n"
    assert within_line_limit(content).replace(b"\r\n", b"") == content.replace(b"\r\n", b"")


@pytest.mark.parametrize(
    "worst",
    [
        b"\r" * 64 + b"\n",
        b"\r\r\n",
        b"\ra",
        b"\n",
        b"\0",
        b"x" * 998 + b"\r\n",
        b"x" * 999 + b"\n",
        b"\r\n",
        b"a\r\0\n",
    ],
)
def test_processor_time_grows_as_the_octets_do(worst):
    """The ratio at 1 and 4 MiB, least of three: work that goes by size times lines would be 16."""
    times = []
    for size in (1 << 20, 4 << 20):
        octets = worst * (size // len(worst))
        spent = []
        for _ in range(3):
            start = time.process_time()
            irregularity(octets, long_lines=True)
            within_line_limit(regular(octets))
            spent.append(time.process_time() - start)
        times.append(max(min(spent), 0.001))
    assert times[1] / times[0] < 8

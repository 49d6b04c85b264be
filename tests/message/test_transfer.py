"""Transfer encodings a piece at a time: the same octets however they come, and work that grows as they do."""

import base64
import itertools
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubako.message import transfer

PIECES = st.lists(
    st.one_of(st.binary(max_size=40), st.sampled_from([b"=", b"==", b"=\r\n", b" ", b"\t \r\n", b"YWJj", b"=3D", b"\n", b"\r"])),
    max_size=30,
)  # fmt: skip


@pytest.mark.parametrize("encoding", [b"base64", b"quoted-printable", b"8bit"])
@given(pieces=PIECES)
def test_pieces_and_the_whole_are_the_same(encoding, pieces):
    made = transfer.decoding(encoding)
    found = b"".join([*map(made.feed, pieces), made.end()])
    assert found == transfer.decode(b"".join(pieces), encoding)


@given(octets=st.binary(max_size=300), cuts=st.lists(st.integers(0, 400), max_size=5))
def test_what_was_encoded_comes_back(octets, cuts):
    for encoding, encoded in (
        (b"base64", base64.encodebytes(octets)),
        (b"quoted-printable", quopri.encodestring(octets, quotetabs=True)),
    ):
        made, edges = transfer.decoding(encoding), sorted([0, *cuts, len(encoded)])
        parts = [encoded[first:last] for first, last in itertools.pairwise(edges)]
        assert b"".join([*map(made.feed, parts), made.end()]) == octets


@pytest.mark.parametrize(
    ("encoded", "octets"),
    [
        (b"YQ==", b"a"),
        (b"YQ==YQ==", b"a"),  # all ends at the padding
        (b"Y Q\r\n=\r\n=", b"a"),
        (b"=YWI=", b"ab"),
        (b"YWJjZ", b"abc"),
        (b"YWJjZA", b"abcd"),
        ("YWé文Jj".encode(), b"abc"),
        (b"", b""),
    ],
)
def test_base64_as_mail_carries_it(encoded, octets):
    assert transfer.decode(encoded, b"Base64 ") == octets


def test_a_line_without_an_end_is_not_held_for_ever():
    made = transfer.decoding(b"quoted-printable")
    come = sum(len(made.feed(b"=41" * 20_000)) for _ in range(100))
    assert come > 100 * 20_000 - transfer.LINE_OCTETS_MAX
    assert come + len(made.end()) == 100 * 20_000


def test_an_unknown_encoding_is_told():
    assert transfer.decoding(b"x-uuencode") is None and transfer.decode(b"x", b"x-uuencode") is None

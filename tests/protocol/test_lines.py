"""`LineBuffer` beside the plainest one that can be written, with pieces cut anywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubako.protocol.lines import LineBuffer, LineTooLong

LINE_MAX = 8


class Plain:
    """All in one bytes, cut from the front."""

    def __init__(self) -> None:
        self.octets = b""

    def line(self) -> bytes | None:
        line, end, rest = self.octets.partition(b"\r\n")
        if not end:
            if len(self.octets) > LINE_MAX + 1:
                raise LineTooLong("line too long")
            return None
        if len(line) > LINE_MAX:
            raise LineTooLong("line too long")
        self.octets = rest
        return line

    def take(self, most: int) -> bytes:
        block, self.octets = self.octets[:most], self.octets[most:]
        return block


PIECES = st.lists(
    st.sampled_from([b"", b"a", b"bc", b"\r", b"\n", b"\r\n", b"one\r\n", b"x\r\ny", b"longer than that"]), max_size=6
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("feed"), PIECES.map(b"".join)),
        st.tuples(st.just("line"), st.none()),
        st.tuples(st.just("take"), st.integers(0, 6)),
        st.tuples(st.just("put_back"), st.integers(0, 4)),
    ),
    max_size=40,
)


@given(STEPS)
def test_lines_and_blocks_are_the_same_wherever_they_were_cut(steps):
    ours, plain = LineBuffer(), Plain()
    for step, value in steps:
        match step:
            case "feed":
                ours.feed(value)
                plain.octets += value
            case "line":
                try:
                    wanted = plain.line()
                except LineTooLong:
                    with pytest.raises(LineTooLong):
                        ours.line(LINE_MAX)
                    return
                assert ours.line(LINE_MAX) == wanted
            case "take":
                block = ours.take(value)
                assert type(block) is bytes
                assert block == plain.take(value)
            case "put_back":  # the end of what was taken
                block = ours.take(6)
                assert block == plain.take(6)
                kept = block[len(block) - min(value, len(block)) :]
                ours.put_back(kept)
                plain.octets = kept + plain.octets
        assert len(ours) == len(plain.octets)


def test_what_drips_is_appended_and_not_copied_again_and_again():
    buffer = LineBuffer()
    buffer.feed(b"x")
    buffer.feed(b"x")
    kept = buffer._data
    for length in range(3, 1000):
        buffer.feed(b"x")
        assert buffer.line(1000) is None
        assert buffer._data is kept
        assert len(buffer) == length

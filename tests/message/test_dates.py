"""One reader of dates, total over all octets."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fubako.message import dates
from fubako.protocol.imap import render
from fubako.protocol.imap.server import ImapServer, State

DATES = st.from_regex(
    rb"([A-Z][a-z]{2}, )?\d{1,30} (Jan|Feb|Dec|Foo) -?\d{1,30}( \d{1,9}:\d{1,9}:\d{1,9})?( [+-]\d{4,20})?",
    fullmatch=True,
)


@given(st.binary(max_size=80) | DATES)
@example(b"1 Jan 99999999999999999999 00:00:00 +0000")
@example(b"31 Dec 9999 23:59:59 -1200")
@example(b"1 Jan 0001 00:00:00 +9999")
@example(b"1 Jan 2026 00:00:00 +99999999999999999999")
def test_every_date_is_one_or_none(octets):
    day, at = dates.written_day(octets), dates.moment(octets)
    assert day is None or 1 <= day.year <= 9999
    assert at is None or abs(at) <= dates.EPOCH_MAX


@given(st.integers(-(2**63), 2**63), st.integers(-6039, 6039))
def test_every_moment_has_a_day(seconds, zone):
    assert 1 <= dates.local_day(seconds, zone).year <= 9999
    assert render.date_time(seconds, zone)


def test_ordinary_dates():
    assert dates.moment(b"Thu, 26 Nov 2026 13:53:32 +0900") == 1795668812
    assert str(dates.written_day(b"Thu, 26 Nov 2026 23:53:32 +0900")) == "2026-11-26"
    assert str(dates.local_day(1795668812, 14 * 60)) == "2026-11-26"


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        ("31-Dec-9999 23:59:59 -1200", True), ("01-Jan-0001 00:00:00 +1200", True), ("26-Nov-2026 00:00:00 +9999", False),
        ("26-Nov-2026 00:00:00 -2400", False), ("26-Nov-2026 00:00:00 +2359", True), ("30-Feb-2026 00:00:00 +0000", False),
    ],
)  # fmt: skip
def test_dates_of_append(written, taken):
    engine = ImapServer()
    engine.state = State.SELECTED
    engine.receive(f'a APPEND INBOX "{written}" {{3+}}\r\nabc\r\n'.encode())
    event = engine.next_event()
    assert (type(event).__name__ == "Bad" or b"a BAD" in engine.output()) is not taken, event

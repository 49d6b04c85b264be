"""The one reader of Date fields (RFC 5322 §3.3, and what mailers write instead): total over all octets.

A date that does not exist, or lies outside the years that a calendar here has, is none.
"""

from datetime import date
from email.utils import parsedate, parsedate_tz

from fubako.message.limits import DATE_OCTETS_MAX

_FAULTS = (ValueError, OverflowError, IndexError, TypeError)
EPOCH_MAX = 253_402_300_799  # the last second of the year 9999
_DAY = 86_400


def written_day(value: bytes) -> date | None:
    """The calendar day as it was written, whatever its zone (SEARCH SENTON, RFC 9051 §6.4.4)."""
    try:
        parsed = parsedate(_text(value))
        return date(*parsed[:3]) if parsed is not None else None
    except _FAULTS:
        return None


def moment(value: bytes) -> int | None:
    """Seconds since the epoch."""
    try:
        parsed = parsedate_tz(_text(value))
        if parsed is None:
            return None
        day = date(*parsed[:3]).toordinal() - _EPOCH
        at = day * _DAY + parsed[3] * 3600 + parsed[4] * 60 + parsed[5] - (parsed[9] or 0)
    except _FAULTS:
        return None
    return at if -EPOCH_MAX <= at <= EPOCH_MAX else None


_EPOCH = date(1970, 1, 1).toordinal()


def _text(value: bytes) -> str:
    return value[:DATE_OCTETS_MAX].decode("ascii", "replace")


def local_day(seconds: int, zone: int) -> date:
    """The calendar day of a moment in a zone (minutes east of UTC); what lies outside of the calendar is its first or last day."""
    ordinal = _EPOCH + (seconds + zone * 60) // _DAY
    return date.fromordinal(min(max(ordinal, 1), date.max.toordinal()))

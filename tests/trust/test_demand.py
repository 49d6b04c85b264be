"""The stricter of two demands holds, and says why."""

import pytest

from fubako.trust.demand import Level, demand


@pytest.mark.parametrize(
    ("rule", "remembered", "require", "wanted"),
    [
        ("", Level.OPEN, False, Level.OPEN),
        ("", Level.ENCRYPTED, False, Level.ENCRYPTED),
        ("", Level.VERIFIED, False, Level.VERIFIED),
        ("may", Level.VERIFIED, False, Level.OPEN),  # the administrator said so
        ("encrypt", Level.OPEN, False, Level.ENCRYPTED),
        ("verify", Level.OPEN, False, Level.VERIFIED),
        ("may", Level.OPEN, True, Level.VERIFIED),  # but not over the sender's head
        ("", Level.ENCRYPTED, True, Level.VERIFIED),
    ],
)
def test_levels(rule, remembered, require, wanted):
    one = demand(rule, remembered, "22 Nov 2026", require_tls=require)
    assert one.level is wanted
    assert one.reason
    for reached in Level:
        assert bool(one.unmet(reached, "mx.test")) is (reached < wanted)


def test_the_reason_tells_of_a_hidden_starttls():
    text = demand("", Level.ENCRYPTED, "22 Nov 2026", require_tls=False).unmet(Level.OPEN, "mx.test")
    assert "mx.test offers no encryption" in text
    assert "22 Nov 2026" in text

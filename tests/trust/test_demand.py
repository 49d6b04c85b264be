"""The stricter of two demands holds, and says why."""

import pytest

from fubako.net.interface import TlsaRecord
from fubako.trust.demand import Known, Level, demand
from fubako.trust.mtasts import Policy


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
    one = demand(Known(rule, remembered=remembered, seen="22 Nov 2026", require_tls=require))
    assert one.level is wanted
    assert one.reason
    for reached in Level:
        assert bool(one.unmet(reached, "mx.test")) is (reached < wanted)


def test_the_reason_tells_of_a_hidden_starttls():
    text = demand(Known(remembered=Level.ENCRYPTED, seen="22 Nov 2026")).unmet(Level.OPEN, "mx.test")
    assert "mx.test offers no encryption" in text
    assert "22 Nov 2026" in text


EE = TlsaRecord(3, 1, 1, b"x" * 32)
USELESS = TlsaRecord(1, 1, 1, b"x" * 32)


@pytest.mark.parametrize(
    ("known", "level", "keys", "word"),
    [
        (Known(tlsa=(EE,)), Level.VERIFIED, (EE,), "DANE"),
        (Known(tlsa=(USELESS,)), Level.ENCRYPTED, (), "DANE"),
        (Known(tlsa=(USELESS, EE)), Level.VERIFIED, (EE,), "DANE"),
        (Known("may", tlsa=(EE,)), Level.VERIFIED, (EE,), "DANE"),
        (Known(promised=Policy("enforce", ("*.test",), 60)), Level.VERIFIED, (), "MTA-STS"),
        (Known(promised=Policy("testing", ("*.test",), 60)), Level.OPEN, (), "nothing"),
        (Known(tlsa=(EE,), promised=Policy("enforce", ("*.test",), 60)), Level.VERIFIED, (EE,), "DANE"),
        # TLS-Required: No reaches as far as what the destination and the memory say, not over the administrator's head
        (Known(tlsa=(EE,), tls_optional=True), Level.OPEN, (), "nothing"),
        (Known("verify", tlsa=(EE,), tls_optional=True), Level.VERIFIED, (), "administrator"),
        (Known(tls_optional=True, require_tls=True), Level.VERIFIED, (), "REQUIRETLS"),
    ],
)
def test_the_order_of_reasons(known, level, keys, word):
    one = demand(known)
    assert (one.level, one.keys) == (level, keys)
    assert word in one.reason

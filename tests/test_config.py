"""Defaults that were decided."""

from fubako.config import MECHANISMS, parse


def test_cram_md5_is_offered_only_where_the_configuration_says_so():
    """docs/decisions/0004: who sees it offered uses it, and it fails for every password kept as it should be."""
    assert "CRAM-MD5" not in parse({"hostname": "x"}, "test").login.mechanisms
    assert parse({"hostname": "x", "login": {"mechanisms": list(MECHANISMS)}}, "test").login.mechanisms == MECHANISMS

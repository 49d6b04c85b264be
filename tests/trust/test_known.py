"""Known servers, when another program decided something between a check here and the note of it.

Left out: NFS, where flock may hold nothing."""

from dataclasses import replace

import pytest

from fubako.net.interface import CertificateFacts
from fubako.trust.known import CertificateChanged, Downgraded, KnownPeers
from fubako.trust.rules import Rule

OURS = CertificateFacts("CN=a", "CN=ca", ("a.test",), (), 0.0, 2e9, "a" * 64, "b" * 64)
OTHER = replace(OURS, sha256="c" * 64, spki_sha256="d" * 64)


def note(known, facts, accepted, *, tls="TLSv1.3", mechanism="SCRAM-SHA-256", now=1):
    known.note("a.test", 993, protocol="imap", facts=facts, accepted=accepted, tls=tls, mechanism=mechanism, now=now)


@pytest.fixture
def two(tmp_path):
    """Two programs that have read the file."""
    path = tmp_path / "known.json"
    return KnownPeers(path), KnownPeers(path)


@pytest.mark.parametrize("accepted", ["authority", "always", "first-use", "signer"])
def test_a_stale_program_replaces_no_key_that_was_accepted_meanwhile(two, accepted):
    stale, other = two
    assert stale.check("a.test", 993, OTHER, by_authority=accepted == "authority") is None
    note(other, OURS, "always")
    with pytest.raises(CertificateChanged):
        note(stale, OTHER, accepted)
    assert other.find("a.test", 993).sha256 == OURS.sha256


def test_a_stale_program_lowers_nothing(two):
    stale, other = two
    stale.find("a.test", 993)
    note(other, OURS, "authority")
    note(stale, OURS, "authority", tls="TLSv1.2", mechanism="PLAIN", now=2)
    peer = other.find("a.test", 993)
    assert (peer.tls, peer.mechanism, peer.first_seen) == ("TLSv1.3", "SCRAM-SHA-256", 1)


def test_what_another_program_wrote_is_seen_at_once(two):
    running, other = two
    note(other, OURS, "always")
    with pytest.raises(Downgraded):
        running.check_tls("a.test", 993, "TLSv1.2")
    with pytest.raises(CertificateChanged):
        running.check("a.test", 993, OTHER, by_authority=True)
    other.add_rules([Rule("pin", "a.test", 993, "sha256:" + "e" * 64)])
    assert running.rules("pin", "a.test", 993)
    assert other.forget("a.test", 993) and not running.forget("a.test", 993)
    assert running.check("a.test", 993, OTHER, by_authority=False) is None


def test_a_users_own_decision_outlives_an_authoritys_word_for_the_same_key(two):
    one, _ = two
    note(one, OURS, "always")
    note(one, OURS, "authority", now=2)
    with pytest.raises(CertificateChanged):
        one.check("a.test", 993, OTHER, by_authority=True)

"""Fetching, piece by piece: identifiers, groups, what is remembered, and known servers when several programs write."""

from dataclasses import replace

import pytest

from fubako.client.connection import ClientError
from fubako.client.fetch import GROUP_LETTERS, Seen, _groups, _told_apart
from fubako.net.interface import CertificateFacts
from fubako.trust.known import CertificateChanged, Downgraded, KnownPeers

FACTS = CertificateFacts("CN=a", "CN=ca", ("a.test",), (), 0.0, 2e9, "a" * 64, "b" * 64)


def test_two_letters_with_one_identifier_are_two_letters():
    assert _told_apart({1: "x", 2: "y", 3: "x"}) == {1: "x", 2: "y", 3: "x 2"}
    for bad in ("", "a b", "é", "x" * 71, "a\x00"):
        with pytest.raises(ClientError):
            _told_apart({1: bad})


def test_groups_are_bounded():
    sizes = [10] * 450 + [3_000_000] * 3 + [9_000_000]
    groups = list(_groups(sizes, lambda one: one))
    assert [one for group in groups for one in group] == sizes and max(map(len, groups)) == GROUP_LETTERS
    assert all(len(group) == 1 or sum(group) <= 4 * 1024 * 1024 for group in groups)


def test_a_line_that_was_cut_off_is_not_a_letter(tmp_path):
    path = tmp_path / "deep" / "seen"
    seen = Seen(path)
    seen.add(["one", "two"])
    seen.close()
    path.write_bytes(path.read_bytes() + b"thr")
    again = Seen(path)
    assert "two" in again and "thr" not in again and "" not in again
    again.add(["three"])
    again.close()
    assert path.read_text() == "one\ntwo\nthree\n" and path.stat().st_mode & 0o777 == 0o600


def test_programs_that_write_at_the_same_time_lose_nothing(tmp_path):
    path = tmp_path / "known.json"
    one, two = KnownPeers(path), KnownPeers(path)
    one.note("a.test", 993, "imap", FACTS, "authority", "TLSv1.3", "SCRAM-SHA-256", 1)
    two.note("b.test", 993, "imap", FACTS, "always", "TLSv1.3", "PLAIN", 1)
    assert [peer.host for peer in KnownPeers(path).all()] == ["a.test", "b.test"]
    assert one.forget("A.test", 993) and not one.forget("a.test", 993) and len(KnownPeers(path).all()) == 1


def test_new_renewed_changed(tmp_path):
    known = KnownPeers(tmp_path / "known.json")
    renewed, other = replace(FACTS, sha256="c" * 64), replace(FACTS, sha256="d" * 64, spki_sha256="e" * 64)
    assert known.check("a.test", 993, FACTS, by_authority=False) is None
    known.note("a.test", 993, "imap", FACTS, "first-use", "TLSv1.3", "SCRAM-SHA-256-PLUS", 1)
    assert known.check("a.test", 993, renewed, by_authority=False).accepted == "first-use"  # the same key
    for by_authority in (False, True):  # your own decision was for another key
        with pytest.raises(CertificateChanged, match="ANOTHER key"):
            known.check("a.test", 993, other, by_authority=by_authority)
    known.note("b.test", 993, "imap", FACTS, "authority", "TLSv1.3", "PLAIN", 1)
    assert known.check("b.test", 993, other, by_authority=True) is not None
    with pytest.raises(CertificateChanged):
        known.check("b.test", 993, other, by_authority=False)


def test_what_was_better_before(tmp_path):
    known = KnownPeers(tmp_path / "known.json")
    known.note("a.test", 993, "imap", FACTS, "authority", "TLSv1.3", "SCRAM-SHA-256", 1)
    known.note("a.test", 993, "imap", replace(FACTS, sha256="c" * 64), "authority", "TLSv1.2", "PLAIN", 2)
    peer = known.find("a.test", 993)
    assert (peer.tls, peer.mechanism, peer.first_seen, peer.history) == ("TLSv1.3", "SCRAM-SHA-256", 1, ("a" * 64,))
    with pytest.raises(Downgraded, match=r"TLSv1\.2"):
        known.check_tls("a.test", 993, "TLSv1.2")
    known.check_tls("a.test", 993, "TLSv1.3")
    with pytest.raises(Downgraded, match="SCRAM"):
        known.check_mechanisms("a.test", 993, ["PLAIN", "LOGIN"])
    known.check_mechanisms("a.test", 993, ["SCRAM-SHA-1", "PLAIN"])
    known.check_mechanisms("new.test", 993, ["PLAIN"])

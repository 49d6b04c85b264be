"""Which keys prove a server (RFC 7672)."""

import hashlib
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates
from memory_server import certificates

from fubako.net.certificate import certificate_facts, public_key_info
from fubako.net.interface import TlsaRecord
from fubako.trust import dane
from fubako.trust.judge import NotBelieved


def facts(*, with_ca=True):
    root = certificates()
    leaf = load_pem_x509_certificates((root / "s.pem").read_bytes())
    ca = load_pem_x509_certificates((root / "ca.pem").read_bytes())
    chain = tuple(one.public_bytes(Encoding.DER) for one in [leaf[0], *(ca if with_ca else [])])
    return certificate_facts(leaf[0], "unknown authority", "certificate-not-trusted", chain), ca[0].public_bytes(
        Encoding.DER
    )


def record(usage, selector, matching, der):
    octets = public_key_info(der) if selector else der
    digest = {1: hashlib.sha256, 2: hashlib.sha512}.get(matching)
    return TlsaRecord(usage, selector, matching, digest(octets).digest() if digest else octets)


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_the_servers_own_key_needs_no_name(selector, matching):
    shown, ca = facts()
    good = record(3, selector, matching, shown.chain[0])
    assert dane.judge([good], shown, ("other.test",)).by == f"DANE (TLSA 3 {selector} {matching})"
    with pytest.raises(NotBelieved, match="another key"):
        dane.judge([record(3, selector, matching, ca)], shown, ("localhost",))


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_an_authority_of_dnssec_vouches_for_the_name(selector, matching):
    shown, ca = facts()
    good = record(2, selector, matching, ca)
    assert "TLSA 2" in dane.judge([good], shown, ("localhost",)).by
    assert "TLSA 2" in dane.judge([good], shown, ("mx.other.test", "localhost")).by
    with pytest.raises(NotBelieved, match="not for other.test"):
        dane.judge([good], shown, ("other.test",))


def test_an_authority_that_is_not_sent_must_stand_in_dns_as_a_whole():
    shown, ca = facts(with_ca=False)
    assert dane.judge([record(2, 0, 0, ca)], shown, ("localhost",))
    with pytest.raises(NotBelieved):
        dane.judge([record(2, 0, 1, ca)], shown, ("localhost",))


def test_a_leaf_is_no_authority_for_another_chain():
    shown, _ = facts()
    other = certificate_facts_of_another()
    with pytest.raises(NotBelieved):
        dane.judge([record(2, 0, 1, shown.chain[0])], other, ("localhost",))


def certificate_facts_of_another():
    return SimpleNamespace(chain=(facts()[1],), dns_names=("localhost",), ip_names=(), sha256="", chain_error="")


def test_records_that_prove_nothing():
    shown, _ = facts()
    useless = [(0, 1, 1, b"x"), (1, 1, 1, b"x"), (3, 2, 1, b"x"), (3, 1, 9, b"x"), (3, 1, 1, b"")]
    records = [TlsaRecord(*one) for one in useless]
    assert dane.usable(records) == ()
    with pytest.raises(NotBelieved, match="no certificate"):
        dane.judge([record(3, 1, 1, shown.chain[0])], None, ("localhost",))


@pytest.mark.parametrize(
    ("record", "counts"),
    [
        (TlsaRecord(3, 1, 1, b"x" * 32), True), (TlsaRecord(3, 1, 2, b"x" * 64), True), (TlsaRecord(3, 1, 1, b"x" * 31), False),
        (TlsaRecord(3, 1, 1, b"x" * 64), False), (TlsaRecord(3, 1, 2, b"x" * 32), False), (TlsaRecord(3, 1, 1, b""), False),
        (TlsaRecord(2, 0, 0, b"no certificate"), False), (TlsaRecord(3, 1, 0, b"no key"), False),
        (TlsaRecord(1, 0, 1, b"x" * 32), False), (TlsaRecord(3, 2, 1, b"x" * 32), False), (TlsaRecord(3, 1, 3, b"x" * 32), False),
    ],
)  # fmt: skip
def test_which_records_can_prove_something(record, counts):
    """RFC 7671 §4.1: data of the wrong length or form is unusable, so that encryption is demanded and no key."""
    assert bool(dane.usable([record])) is counts

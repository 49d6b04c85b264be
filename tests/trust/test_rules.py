"""Pins, certificates and signers; and what mutt, msmtp, stunnel and others remember of servers."""

import base64
import hashlib
import json
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from memory_server import certificates

from fubako.net.interface import CertificateFacts, TlsaRecord
from fubako.trust import dane, foreign, rules
from fubako.trust.judge import NotBelieved
from fubako.trust.known import KnownPeer, KnownPeers
from fubako.trust.rules import Rule, RuleFault, fingerprint

A = "ab" * 32


def der(name: str) -> bytes:
    return foreign.certificates((certificates() / name).read_text())[0]


USAGES = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    "mail": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
}


def issued(leaf_usage: tuple[str, ...], middle_usage: tuple[str, ...]) -> tuple[bytes, ...]:
    """Leaf, intermediate and root, in DER, with these extended key usages."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in ("leaf", "middle", "root")]
    now = datetime.now(UTC)
    chain = []
    for place, usage in enumerate((leaf_usage, middle_usage, ())):
        above = min(place + 1, 2)
        made = x509.CertificateBuilder(names[above], names[place], keys[place].public_key(), place + 1)
        made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        made = made.add_extension(x509.BasicConstraints(ca=place > 0, path_length=None), critical=True)
        if usage:
            made = made.add_extension(x509.ExtendedKeyUsage([USAGES[one] for one in usage]), critical=False)
        chain.append(made.sign(keys[above], hashes.SHA256()).public_bytes(Encoding.DER))
    return tuple(chain)


def facts(chain: tuple[bytes, ...] = (), names: tuple[str, ...] = ("localhost",), **more) -> CertificateFacts:
    return CertificateFacts("CN=x", "CN=y", names, (), 0, 1e12, A, "cd" * 32, chain=chain, md5="ef" * 16, **more)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (A, f"sha256:{A}"), (A.upper(), f"sha256:{A}"), (f"SHA256:{A}", f"sha256:{A}"), (f"spki:{A}", f"spki:{A}"),
        (":".join(["AB"] * 32), f"sha256:{A}"),
        (" ".join(["AB"] * 16), "md5:" + "ab" * 16), ("md5:" + "AB:" * 15 + "AB", "md5:" + "ab" * 16),
        ("sha256//" + base64.b64encode(bytes.fromhex(A)).decode(), f"spki:{A}"),
    ],
)  # fmt: skip
def test_fingerprints_as_people_write_them(given, meant):
    assert fingerprint(given) == meant


@pytest.mark.parametrize(
    "given", ["", "ab", "x" * 64, "ab" * 20, "spki:ab", "sha256//!!", "sha256:" + "ab" * 16, "sha256//QUJD"]
)
def test_what_is_no_fingerprint(given):
    with pytest.raises(RuleFault):
        fingerprint(given)


@pytest.mark.parametrize(
    ("host", "port", "asked", "covered"),
    [
        ("a.test", 993, ("a.test", 993), True), ("a.test", 993, ("a.test", 143), False), ("a.test", 0, ("a.test", 1), True),
        ("*.a.test", 0, ("b.a.test", 1), True), ("*.a.test", 0, ("a.test", 1), True), ("*.a.test", 0, ("ba.test", 1), False),
        ("", 0, ("any.test", 1), True), ("a.test", 0, ("b.test", 1), False),
    ],
)  # fmt: skip
def test_whom_a_rule_speaks_of(host, port, asked, covered):
    assert Rule("pin", host, port, "x").covers(*asked) is covered


def test_a_signer_stands_for_valid_certificates_with_the_right_name():
    leaf, authority = der("s.pem"), der("ca.pem")
    rule = rules.signers([authority], "", 0, "test", 0)[0]
    assert rule.signed(facts((leaf, authority)), "localhost")
    assert not rule.signed(facts((leaf, authority)), "other.test")
    assert not rule.signed(facts(()), "localhost")
    assert not rules.signers([leaf], "", 0, "test", 0)[0].signed(facts((authority,)), "localhost")


def test_the_signer_that_can_be_accepted():
    leaf, authority = der("s.pem"), der("ca.pem")
    made = rules.signer(facts((leaf, authority), ("imap.mail.test",)), "imap.mail.test", 993, "me", 7)
    assert made is not None and (made.host, made.port, made.since) == ("*.mail.test", 0, 7)
    assert rules.signer(facts((leaf,)), "localhost", 993, "me", 7) is None
    assert rules.signer(facts((leaf, authority)), "other.test", 993, "me", 7) is None
    near = rules.signer(facts((leaf, authority)), "localhost", 993, "me", 7)
    assert near is not None and near.host == "localhost"


@pytest.mark.parametrize(
    ("host", "around"),
    [
        ("imap.mail.test", "*.mail.test"), ("imap.example.org", "*.example.org"), ("mail.example.co.uk", "*.example.co.uk"),
        ("example.co.uk", "example.co.uk"), ("Alice.GitHub.io", "alice.github.io"), ("example.org", "example.org"),
        ("localhost", "localhost"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("mail.example.org.", "*.example.org"),
        ("a.kawasaki.jp", "a.kawasaki.jp"),
    ],
)  # fmt: skip
def test_whom_an_accepted_signer_is_believed_for(host, around):
    """Never for everybody below a public suffix."""
    assert rules.neighbourhood(host) == around


@pytest.mark.parametrize(
    ("leaf_usage", "middle_usage", "believed"),
    [
        ((), (), True), (("server",), (), True), (("client",), (), False), (("client", "server"), (), True), (("any",), (), True),
        (("mail",), (), False), ((), ("client",), False), (("server",), ("server",), True),
    ],
)  # fmt: skip
def test_a_certificate_for_something_else_proves_no_server(leaf_usage, middle_usage, believed):
    """RFC 5280 §4.2.1.12: neither by an accepted signer nor by DANE-TA."""
    chain = issued(leaf_usage, middle_usage)
    rule = rules.signers([chain[-1]], "", 0, "test", 0)[0]
    assert rule.signed(facts(chain), "localhost") is believed
    record = TlsaRecord(2, 0, 1, hashlib.sha256(chain[-1]).digest())
    if believed:
        assert dane.judge([record], facts(chain), ["localhost"])
    else:
        with pytest.raises(NotBelieved, match="not for servers"):
            dane.judge([record], facts(chain), ["localhost"])


def test_mutts_certificate_file(tmp_path):
    """As mutt writes it: certificates, and #H lines of GnuTLS builds; other text is left aside."""
    leaf = der("s.pem")
    md5 = rules.described(leaf).md5.upper()
    groups = " ".join(md5[at : at + 4] for at in range(0, 32, 4))
    text = (
        f"# remark\n#H imap.old.test {groups}\n{(certificates() / 's.pem').read_text()}\n#H gone.test {'0000 ' * 7}0000\n"
        f"#H bad line\n{(certificates() / 'ca.pem').read_text()}"
    )
    found, warnings = foreign.mutt(text, "f", 1)
    kinds = {(one.kind, one.host, one.value[:7]) for one in found}
    assert {("certificate", "imap.old.test", "sha256:"), ("certificate", "gone.test", "md5:000")} <= kinds
    assert ("certificate", "localhost", "sha256:") in kinds
    assert any(one.kind == "signer" and one.host == "" for one in found)
    assert len(warnings) == 1 and "gone.test" in warnings[0]


def test_msmtp():
    text = (
        f"defaults\ntls on\naccount one\nhost smtp.a.test\nport 587\ntls_fingerprint {':'.join(['AB'] * 32)}\n"
        f"account two\nhost smtp.b.test\ntls_starttls off\ntls_fingerprint {':'.join(['AB'] * 16)}\n"
        "account three\nhost smtp.c.test\ntls_fingerprint " + ":".join(["AB"] * 20) + "\n"
    )
    found, warnings = foreign.msmtp(text, "f", 1)
    assert [(one.host, one.port, one.value) for one in found] == [
        ("smtp.a.test", 587, f"sha256:{A}"),
        ("smtp.b.test", 465, "md5:" + "ab" * 16),
    ]
    assert len(warnings) == 2 and "SHA-1" in warnings[1]


def test_stunnel():
    ca = (certificates() / "ca.pem").read_text()
    text = (
        "; a remark\nclient = yes\n[imap]\naccept = 127.0.0.1:1143\nconnect = imap.a.test:993\nCAfile = ca.pem\nverifyChain = yes\n"
        "[none]\nconnect = b.test:1\n[lax]\nconnect = c.test:995\nCAfile = ca.pem\n[gone]\nconnect=d.test:1\nCAfile = gone\n"
    )

    def read(name: str) -> str:
        if name != "ca.pem":
            raise FileNotFoundError(name)
        return ca

    found, warnings = foreign.stunnel(text, "f", 1, read)
    assert [(one.kind, one.host, one.port) for one in found] == [
        ("signer", "imap.a.test", 993),
        ("signer", "c.test", 995),
    ]
    assert len(warnings) == 2


def test_the_file_keeps_rules_and_never_replaces_a_key(tmp_path):
    path = tmp_path / "known.json"
    known = KnownPeers(path)
    rule = Rule("pin", "a.test", 1, f"sha256:{A}")
    assert known.add_rules([rule, rule]) == 1 and known.add_rules([rule]) == 0
    peer = KnownPeer("a.test", 1, "imap", A, A, "s", "i", "always", 1, 1)
    other = KnownPeer("a.test", 1, "imap", "00" * 32, A, "s", "i", "always", 1, 1)
    assert known.adopt([peer]) == (1, [])
    assert known.adopt([other, peer]) == (0, [other])
    again = KnownPeers(path)
    assert again.rules() == [rule] and again.find("a.test", 1) == peer
    again.replace_rules([rule], [])
    assert KnownPeers(path).rules() == []


def test_a_file_of_before_is_read(tmp_path):
    path = tmp_path / "known.json"
    peer = {"host": "a.test", "port": 1, "protocol": "imap", "sha256": A, "spki_sha256": A, "subject": "s", "issuer": "i",
            "accepted": "always", "first_seen": 1, "last_seen": 1, "tls": "", "mechanism": "", "history": []}  # fmt: skip
    path.write_text(json.dumps({"peers": [peer]}))
    assert KnownPeers(path).find("a.test", 1) is not None


def test_openssl_agrees_on_fingerprints():
    done = subprocess.run(["openssl", "x509", "-in", certificates() / "s.pem", "-noout", "-fingerprint", "-sha256"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert fingerprint(done.stdout.partition("=")[2]) == f"sha256:{rules.described(der('s.pem')).sha256}"

"""Whom we believe: every way in which a certificate can be wrong (attacks C-CERT-*)."""

from dataclasses import dataclass

import pytest

from fubako.trust.judge import NotBelieved, judge


@dataclass(frozen=True)
class Facts:
    dns_names: tuple[str, ...] = ("mail.example.org",)
    ip_names: tuple[str, ...] = ()
    sha256: str = "aa"
    chain_error: str = ""
    chain_fault: str = ""


@pytest.mark.parametrize(("names", "host"), [
    (("mail.example.org",), "mail.example.org"),
    (("MAIL.example.org",), "mail.EXAMPLE.org."),
    (("*.example.org",), "mail.example.org"),
])  # fmt: skip
def test_a_name_that_fits(names, host):
    assert judge(Facts(names), host).by == "a public authority"


@pytest.mark.parametrize(("names", "host"), [
    (("*",), "mail.example.org"),
    (("*.org",), "example.org"),
    (("*.example.org",), "a.b.example.org"),
    (("*.example.org",), "example.org"),
    (("m*.example.org",), "mail.example.org"),
    (("*.1.2.3",), "9.1.2.3"),
    (("mail.example.org\x00.evil.test",), "mail.example.org"),
    ((), "mail.example.org"),
    (("mail.example.org",), "192.0.2.1"),
])  # fmt: skip
def test_a_name_that_does_not_fit(names, host):
    with pytest.raises(NotBelieved, match="not for"):
        judge(Facts(names), host)


def test_an_address_needs_an_address():
    assert judge(Facts((), ("192.0.2.1",)), "192.0.2.1")


def test_every_reason_is_named():
    with pytest.raises(NotBelieved, match="expired; .* not for other"):
        judge(Facts(chain_error="the certificate has expired"), "other.example.org")


def test_a_pin_is_enough_and_then_the_only_way():
    bad = Facts((), chain_error="the certificate is signed by itself")
    assert judge(bad, "x", pins=frozenset({"aa"})).by == "its pinned certificate"
    with pytest.raises(NotBelieved, match="another certificate"):
        judge(Facts(), "mail.example.org", pins=frozenset({"bb"}))


def test_no_certificate():
    with pytest.raises(NotBelieved):
        judge(None, "x")

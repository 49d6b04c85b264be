"""`Rule`: what a user decided of a server before it was met, or beside it: pins, single certificates, signers. Pure but for chains.

A pin is the only way to be believed for the server that it names; a certificate and a signer are one more way.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from fubako.net.interface import CertificateFacts
from fubako.net.tls import reaches
from fubako.trust.judge import names_host

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

KINDS = ("pin", "certificate", "signer")
_DIGITS = {"sha256": 64, "spki": 64, "md5": 32}


class RuleFault(ValueError):
    """What was given cannot be a rule; the message says why."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`value`: `sha256:…` (certificate), `spki:…` (its key), `md5:…` (weak; replaced at the first good connection), or for a
    signer its DER in base64. `host`: a name, `*.name` for all below it, empty for any; `port` 0: any."""

    kind: str
    host: str
    port: int
    value: str
    subject: str = ""
    source: str = ""
    since: int = 0

    def covers(self, host: str, port: int) -> bool:
        if self.port not in (0, port):
            return False
        if self.host.startswith("*."):
            return host.endswith(self.host[1:]) or host == self.host[2:]
        return self.host in ("", host)

    def same(self, other: "Rule") -> bool:
        return (self.kind, self.host, self.port, self.value) == (other.kind, other.host, other.port, other.value)

    def fits(self, facts: CertificateFacts) -> bool:
        """Whether this is the certificate, or its key."""
        return self.value in (f"sha256:{facts.sha256}", f"spki:{facts.spki_sha256}", f"md5:{facts.md5}")

    def signed(self, facts: CertificateFacts, host: str) -> bool:
        """Whether this signer stands for the certificate, which must be for the host and valid."""
        try:
            anchor = base64.b64decode(self.value, validate=True)
        except (binascii.Error, ValueError):
            return False
        return bool(facts.chain) and names_host(facts, host) and not reaches(facts.chain, anchor)

    def strong(self, facts: CertificateFacts) -> "Rule":
        """The same rule with SHA-256, once the certificate was seen."""
        return replace(self, value=f"sha256:{facts.sha256}")


def fingerprint(text: str) -> str:
    """`sha256:…`, `spki:…` or `md5:…`, from what people write: with colons or blanks, in any case, the kind before it or told by
    the length; `sha256//…=` (base64, of the key) as curl writes it. Raises RuleFault."""
    given = text.strip()
    if given.startswith("sha256//"):
        try:
            octets = base64.b64decode(given[8:], validate=True)
        except (binascii.Error, ValueError):
            octets = b""
        if len(octets) != 32:
            raise RuleFault(f"{given[:80]} is no fingerprint: 32 octets in base64 stand behind sha256//")
        return f"spki:{octets.hex()}"
    kind, _, rest = given.partition(":")
    named = kind.lower() in _DIGITS
    digits = re.sub(r"[:\s]", "", rest if named else given).lower()
    if not re.fullmatch(r"[0-9a-f]+", digits):
        raise RuleFault(f"{given[:80]} is no fingerprint: it is written in hexadecimal")
    if named:
        if len(digits) != _DIGITS[kind.lower()]:
            raise RuleFault(f"{given[:80]} has {len(digits)} digits; {kind.lower()} has {_DIGITS[kind.lower()]}")
        return f"{kind.lower()}:{digits}"
    if len(digits) == 40:
        raise RuleFault("SHA-1 proves nothing any more; give the SHA-256 fingerprint")
    for known, length in (("sha256", 64), ("md5", 32)):
        if len(digits) == length:
            return f"{known}:{digits}"
    raise RuleFault(f"{given[:80]} has {len(digits)} digits; SHA-256 has 64")


def signer(facts: CertificateFacts, host: str, port: int, source: str, now: int) -> Rule | None:
    """A rule that believes whoever signed this certificate, for the host and its neighbours alone; None where the chain shows no
    signer, or it is not the only thing that is missing (name, date, signature)."""
    if len(facts.chain) < 2:
        return None
    made = signers([facts.chain[-1]], neighbourhood(host), 0, source, now)[0]
    return made if made.signed(facts, host) else None


def neighbourhood(host: str) -> str:
    """`*.parent`, or the host alone where what is around it belongs to others: below a public suffix (co.uk, github.io)
    everybody can have a name. An address has no neighbours."""
    name = host.rstrip(".").lower()
    _, _, parent = name.partition(".")
    if not parent or parent.replace(".", "").isdigit() or ":" in name or _suffixes().publicsuffix(parent) == parent:
        return name
    return f"*.{parent}"


@cache
def _suffixes() -> "PublicSuffixList":
    """Mozilla's list, as the library carries it; read when a signer is first accepted."""
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()


def signers(certificates: Sequence[bytes], host: str, port: int, source: str, now: int) -> list[Rule]:
    """Rules of kind signer for certificates in DER. Raises RuleFault."""
    return [
        Rule("signer", host, port, base64.b64encode(one).decode(), described(one).subject, source, now)
        for one in certificates
    ]


@dataclass(frozen=True, slots=True)
class Described:
    subject: str
    sha256: str
    md5: str
    names: tuple[str, ...]
    authority: bool


def described(certificate: bytes) -> Described:
    """Of a certificate in DER. Raises RuleFault."""
    from cryptography import x509

    try:
        read = x509.load_der_x509_certificate(certificate)
        subject = read.subject.rfc4514_string()
    except ValueError as error:
        raise RuleFault(f"a certificate cannot be read: {error}") from None
    try:
        authority = read.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        authority = False
    try:
        names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        shown = tuple(names.get_values_for_type(x509.DNSName))
    except (x509.ExtensionNotFound, ValueError):
        shown = ()
    md5 = hashlib.md5(certificate, usedforsecurity=False).hexdigest()
    return Described(subject, hashlib.sha256(certificate).hexdigest(), md5, shown, authority)

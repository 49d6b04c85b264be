"""What is in a certificate, and what OpenSSL says of one: facts for who judges it (RFC 5280). Nothing is judged here."""

import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from fubako.net.interface import CertificateFacts, TlsError

EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED


def verify_text(error: int) -> str:
    """OpenSSL's finding about a chain, in words."""
    known = {
        9: "the certificate is not yet valid",
        EXPIRED: "the certificate has expired",
        18: "the certificate is signed by itself",
        19: "the chain ends at an authority that is not known here",
        20: "the certificate's authority is not known here",
        21: "the certificate's authority is not known here",
        23: "the certificate was revoked",
        24: "an authority in the chain is no authority",
        66: "the key is too weak",
        67: "an authority's key is too weak",
        68: "a signature uses a digest that is too weak",
    }
    return known.get(error, f"the chain of the certificate cannot be checked (OpenSSL code {error})")


def end_point_hash(certificate: x509.Certificate) -> bytes:
    """tls-server-end-point (RFC 5929 §4.1): the certificate under its signature's hash, SHA-256 for MD5, SHA-1 and none."""
    algorithm = certificate.signature_hash_algorithm
    name = algorithm.name if algorithm is not None else "sha256"
    name = "sha256" if name in ("md5", "sha1") else name
    return hashlib.new(name, certificate.public_bytes(Encoding.DER)).digest()


def certificate_facts(
    certificate: x509.Certificate, chain_error: str, chain_fault: str, chain: tuple[bytes, ...] = ()
) -> CertificateFacts:
    """What a judge needs to know. `chain_error` is in words, `chain_fault` by RFC 8460 §4.3, `chain` in DER, leaf first."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns = tuple(names.get_values_for_type(x509.DNSName))
        ips = tuple(str(ip) for ip in names.get_values_for_type(x509.IPAddress))
        mail = tuple(names.get_values_for_type(x509.RFC822Name))
    except (x509.ExtensionNotFound, ValueError):
        dns, ips, mail = (), (), ()
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return CertificateFacts(
        certificate.subject.rfc4514_string(),
        certificate.issuer.rfc4514_string(),
        dns,
        ips,
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
        hashlib.sha256(spki).hexdigest(),
        chain_error,
        chain_fault,
        chain,
        mail,
        hashlib.md5(certificate.public_bytes(Encoding.DER), usedforsecurity=False).hexdigest(),
    )


def public_key_info(certificate: bytes) -> bytes:
    """SubjectPublicKeyInfo of a certificate, both in DER. Raises TlsError."""
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except ValueError:
        raise TlsError("a certificate of the chain cannot be read") from None


def not_for_servers(certificate: bytes) -> str:
    """What keeps a certificate (DER) from proving a server: an extended key usage without serverAuth; empty: nothing."""
    try:
        read = x509.load_der_x509_certificate(certificate)
        usage = read.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ""
    except ValueError:
        return "a certificate of the chain cannot be read"
    good = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    return "" if any(one in good for one in usage) else "a certificate of the chain is not for servers"


def is_public_key_info(octets: bytes) -> bool:
    """Whether it is a SubjectPublicKeyInfo in DER."""
    try:
        load_der_public_key(octets)
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True


def is_certificate(octets: bytes) -> bool:
    """Whether it is a certificate in DER."""
    try:
        x509.load_der_x509_certificate(octets)
    except ValueError:
        return False
    return True

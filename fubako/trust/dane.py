"""DANE for SMTP: the keys that DNSSEC says a server has, against those that it shows (RFC 7671, RFC 7672).

Only usages DANE-TA(2) and DANE-EE(3) count; a record of another kind makes encryption necessary and proves nothing.
"""

import hashlib
import hmac
from collections.abc import Sequence

from fubako.net.certificate import is_certificate, is_public_key_info, public_key_info
from fubako.net.interface import TlsaRecord, TlsError
from fubako.net.tls import reaches
from fubako.trust.judge import Believed, Facts, NotBelieved, names_host

_DIGESTS = {1: hashlib.sha256, 2: hashlib.sha512}


def usable(records: Sequence[TlsaRecord]) -> tuple[TlsaRecord, ...]:
    """Those that can prove something (RFC 7672 §3.1): a known usage, and data that can be what it says it is (RFC 7671 §4.1)."""
    return tuple(one for one in records if one.usage in (2, 3) and _well_formed(one))


def _well_formed(record: TlsaRecord) -> bool:
    if record.selector not in (0, 1):
        return False
    if record.matching in _DIGESTS:
        return len(record.data) == _DIGESTS[record.matching]().digest_size
    if record.matching != 0:
        return False
    return is_certificate(record.data) if record.selector == 0 else is_public_key_info(record.data)


def matches(record: TlsaRecord, certificate: bytes) -> bool:
    """`certificate` in DER (RFC 6698 §2.1)."""
    try:
        shown = certificate if record.selector == 0 else public_key_info(certificate)
    except TlsError:
        return False
    digest = _DIGESTS.get(record.matching)
    return hmac.compare_digest(digest(shown).digest() if digest else shown, record.data)


def judge(records: Sequence[TlsaRecord], facts: Facts | None, names: Sequence[str]) -> Believed:
    """`names` are those that a certificate under a DANE-TA authority may hold: the host, and the domain of the letter.
    Raises NotBelieved."""
    if facts is None or not facts.chain:
        raise NotBelieved("the server showed no certificate")
    reasons, fault = [], "validation-failure"
    for one in records:
        described = f"TLSA {one.usage} {one.selector} {one.matching}"
        if one.usage == 3:
            if matches(one, facts.chain[0]):
                return Believed(f"DANE ({described})", "dane")  # names and dates do not count (RFC 7672 §3.1.1)
            continue
        anchor = next((shown for shown in facts.chain if matches(one, shown)), None)
        if anchor is None and one.selector == 0 and one.matching == 0:
            anchor = one.data
        if anchor is None:
            continue
        wrong = reaches(facts.chain, anchor)
        if not wrong and not any(names_host(facts, name) for name in names):
            wrong, fault = f"the certificate is not for {names[0]}", "certificate-host-mismatch"
        if not wrong:
            return Believed(f"DANE ({described})", "dane")
        reasons.append(wrong)
    if not reasons:
        raise NotBelieved("it shows another key than DNSSEC says it has (DANE)", "tlsa-invalid")
    raise NotBelieved("; ".join(reasons), fault)

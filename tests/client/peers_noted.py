"""A good connection to a server, remembered."""

from fubako.net.interface import CertificateFacts
from fubako.trust.known import KnownPeers


def noted(
    known: KnownPeers, host: str, facts: CertificateFacts, accepted: str, tls: str, mechanism: str, now: int
) -> None:
    known.note(host, 993, protocol="imap", facts=facts, accepted=accepted, tls=tls, mechanism=mechanism, now=now)

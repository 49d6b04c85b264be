"""ALPN: who names only other protocols is refused during the handshake, on every port (RFC 7301 §3.2)."""

import pytest
from memory_server import certificates

from fubako.app.built import load_tls
from fubako.config import Config, Tls
from fubako.config.listening import Certificate
from fubako.net.interface import TlsError
from fubako.net.tls import ClientTls


def served(protocol):
    files = [Certificate(chain="s.pem", key="s.key")]
    return load_tls(Config(hostname="h.test", directory="store", tls=Tls(certificates=files)), certificates())[protocol]


def shaken(protocol, offered):
    """What was agreed upon. Raises TlsError at the server's side."""
    server, client = served(protocol).pump(), ClientTls(system_authorities=False).pump("localhost", offered)
    while not (server.established and client.established):
        for one, other in ((client, server), (server, client)):
            if octets := one.outgoing():
                other.feed(octets)
    return server.facts().alpn


@pytest.mark.parametrize("protocol", ["smtp", "pop3", "imap"])
def test_ours_is_chosen_and_none_is_fine(protocol):
    assert shaken(protocol, ("http/1.1", protocol)) == protocol
    assert shaken(protocol, ()) == ""


@pytest.mark.parametrize("protocol", ["smtp", "pop3", "imap"])
def test_a_browser_is_refused(protocol):
    with pytest.raises(TlsError):
        shaken(protocol, ("h2", "http/1.1"))

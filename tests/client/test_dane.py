"""`dane` in an account's trust: DNSSEC's word is enough where nobody else vouches, and only where DNSSEC holds."""

import asyncio
import hashlib
import ssl

import pytest

from fubako.client.roads import Roads
from fubako.client.settings import Account
from fubako.clock import Env
from fubako.net.certificate import public_key_info
from fubako.net.interface import Answer, DnsFailure, NoSuchName, TlsaRecord
from fubako.trust.judge import NotBelieved
from fubako.trust.known import KnownPeers


class Zone:
    def __init__(self, records=(), authentic=True, fault=None) -> None:
        self.records, self.authentic, self.fault, self.asked = records, authentic, fault, []

    async def tlsa(self, name: str):
        self.asked.append(name)
        if self.fault is not None:
            raise self.fault
        return Answer(tuple(self.records), self.authentic)


def met(server, zone, tmp_path, *trust) -> str:
    account = Account(name="a", host="localhost", port=server.port("imaps"), trust=("dane", *trust))
    return asyncio.run(Roads(KnownPeers(tmp_path / "known.json"), Env(), resolver=lambda _: zone).meet(account))


@pytest.fixture
def record(server) -> TlsaRecord:
    leaf = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("localhost", server.port("imaps"))))
    return TlsaRecord(3, 1, 1, hashlib.sha256(public_key_info(leaf)).digest())


def test_dnssec_vouches(server, record, tmp_path):
    zone = Zone([record])
    assert met(server, zone, tmp_path) == "DANE (TLSA 3 1 1)"
    assert zone.asked == [f"_{server.port('imaps')}._tcp.localhost"]


@pytest.mark.parametrize("case", ["unsigned", "another key", "no record", "no name"])
def test_it_does_not(server, record, tmp_path, case):
    zone = {
        "unsigned": Zone([record], authentic=False),
        "another key": Zone([TlsaRecord(3, 1, 1, b"x" * 32)]),
        "no record": Zone(),
        "no name": Zone(fault=NoSuchName("x")),
    }[case]
    with pytest.raises(NotBelieved):
        met(server, zone, tmp_path)


def test_not_knowing_is_no_answer(server, tmp_path):
    """Who can hold back an answer must not be able to take the protection away."""
    with pytest.raises(Exception, match="not known"):
        met(server, Zone(fault=DnsFailure("timeout")), tmp_path)


def test_another_key_than_dnssec_says_is_nobodys_to_accept(server, tmp_path):
    """Neither the first use nor a user is asked where DNSSEC says no; both are where it says nothing."""
    with pytest.raises(NotBelieved):
        met(server, Zone([TlsaRecord(3, 1, 1, b"x" * 32)]), tmp_path, "first-use")
    assert met(server, Zone(), tmp_path, "first-use") == "the first use"

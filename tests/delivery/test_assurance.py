"""What a destination promises decides how a letter may travel, and every `why` says so."""

import asyncio
import hashlib

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate
from memory_server import certificates
from peer import House, Peer
from zone import Zone

from fubako.config import Route
from fubako.delivery.assurance import Assurance
from fubako.net.certificate import public_key_info
from fubako.net.interface import Fetched, HttpsFailure, TlsaRecord
from fubako.store import reports, sts

POLICY = b"version: STSv1\nmode: %s\nmx: %s\nmax_age: 86400\n"


class Web:
    """A policy host; what it serves may be changed."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    async def get(self, host, path, octets_max):
        self.asked.append((host, path))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def page(mode=b"enforce", mx=b"localhost", kind="text/plain", status=200):
    return Fetched(status, kind, POLICY % (mode, mx))


def own_key():
    leaf = load_pem_x509_certificate((certificates() / "s.pem").read_bytes()).public_bytes(Encoding.DER)
    return TlsaRecord(3, 1, 1, hashlib.sha256(public_key_info(leaf)).digest())


OTHER_KEY = TlsaRecord(3, 1, 1, b"0" * 32)


def run(
    tmp_path,
    test,
    *,
    tlsa=(),
    web=None,
    starttls=True,
    secure=False,
    texts=(),
    fails=(),
    ca=False,
    tls="",
    host="localhost",
):
    """One letter to bob@far.test, whose MX is a peer on this machine; `test(house, peer)` says what became of it."""

    async def inside():
        async with Peer(starttls=starttls) as peer:
            zone = Zone(
                {"far.test": [(10, host)]}, {host: ["127.0.0.1"]}, [one.replace("PORT", str(peer.port)) for one in fails],
                texts=dict(texts), tlsa={f"_{peer.port}._tcp.{host}": list(tlsa)} if tlsa else {}, secure=secure,
            )  # fmt: skip
            ca_files = (str(certificates() / "ca.pem"),) if ca else ()
            route = Route(to="mx", port=peer.port, tls=tls, ca_files=ca_files)
            async with House(tmp_path, route, zone=zone) as house:
                house.app.https = web
                house.run()
                return await test(house, peer)

    return asyncio.run(inside())


async def goes(house, peer):
    await house.send("bob@far.test")
    await house.until(lambda: peer.letters)
    return peer.encrypted[0]


async def waits(house, peer):
    await house.send("bob@far.test")

    async def answered():
        return [one.status for one in await house.entries() if one.attempts]

    (status,) = await house.until(answered)
    assert peer.letters == []
    return status


# -- DANE


def test_the_key_of_dnssec_is_enough(tmp_path):
    async def test(house, peer):
        await goes(house, peer)

        async def written():
            return await house.store.database.read(lambda tx: tx.rows("SELECT journey FROM sent"))

        return (await house.until(written))[0][0]

    assert "DANE (TLSA 3 1 1)" in run(tmp_path, test, tlsa=[own_key()], secure=True)


def test_another_key_than_dnssec_says_is_not_believed_whoever_signed_it(tmp_path):
    status = run(tmp_path, waits, tlsa=[OTHER_KEY], secure=True, ca=True)
    assert "another key than DNSSEC says" in status and "is demanded: DNSSEC says which keys it has (DANE)" in status


def test_a_stripped_starttls_is_noticed(tmp_path):
    status = run(tmp_path, waits, tlsa=[own_key()], secure=True, starttls=False)
    assert "offers no encryption" in status and "DANE" in status


def test_without_dnssec_tlsa_is_nobodys_word(tmp_path):
    assert run(tmp_path, goes, tlsa=[OTHER_KEY], secure=False)


def test_keys_that_do_not_answer_keep_the_letter(tmp_path):
    status = run(tmp_path, waits, fails=["_PORT._tcp.localhost"], secure=True)
    assert status.startswith("451 4.7.5 DNSSEC of localhost does not hold")


def test_records_that_prove_nothing_demand_encryption(tmp_path):
    useless = TlsaRecord(1, 1, 1, b"x" * 32)
    assert run(tmp_path / "a", goes, tlsa=[useless], secure=True)
    assert "no encryption" in run(tmp_path / "b", waits, tlsa=[useless], secure=True, starttls=False)


# -- MTA-STS

STS = {"_mta-sts.far.test": [b"v=STSv1; id=1"]}


def test_what_is_promised_is_demanded(tmp_path):
    assert run(tmp_path / "a", goes, texts=STS, web=Web(page()), ca=True)
    status = run(tmp_path / "b", waits, texts=STS, web=Web(page()))
    assert "without a believable certificate" in status and "the domain promises it (MTA-STS)" in status
    assert "no encryption" in run(tmp_path / "c", waits, texts=STS, web=Web(page()), starttls=False)


def test_a_host_that_is_not_promised_gets_nothing(tmp_path):
    status = run(tmp_path, waits, texts=STS, web=Web(page(mx=b"mx.far.test")), ca=True)
    assert status == "451 4.7.10 localhost is none of the servers that far.test promises (MTA-STS): mx.far.test"


def test_testing_only_tells(tmp_path):
    async def test(house, peer):
        assert await goes(house, peer) is False
        await house.app._runner._connector.results.write(now=True)
        day = reports.day_of(int(house.clock.at))
        return await house.store.database.read(lambda tx: reports.sessions(tx, day, "far.test"))

    found = run(tmp_path, test, texts=STS, web=Web(page(b"testing")), starttls=False)
    assert [(one[0], one[3], one[5]) for one in found] == [("sts", "starttls-not-supported", 1)]


@pytest.mark.parametrize(
    "answer",
    [page(status=404), page(status=301), page(kind="text/html"), HttpsFailure("no"), Fetched(200, "text/plain", b"x")],
)
def test_a_policy_that_cannot_be_had_changes_nothing_and_is_counted(tmp_path, answer):
    async def test(house, peer):
        await goes(house, peer)
        await house.app._runner._connector.results.write(now=True)
        day = reports.day_of(int(house.clock.at))
        return await house.store.database.read(lambda tx: reports.sessions(tx, day, "far.test"))

    ((kind, _, _, fault, _, count),) = run(tmp_path, test, texts=STS, web=Web(answer), starttls=False)
    assert (kind, count) == ("no-policy-found", 1)
    assert fault == (
        "sts-policy-invalid" if isinstance(answer, Fetched) and answer.content == b"x" else "sts-policy-fetch-error"
    )


def test_a_promise_is_kept_while_nobody_can_be_asked(tmp_path):
    async def test(house, peer):
        await goes(house, peer)
        house.zone.fails.add("_mta-sts.far.test")
        house.zone.tables["texts"].clear()
        peer.starttls = False
        peer.letters.clear()
        await asyncio.sleep(0.3)  # the connection that lingers ends
        before = await waits(house, peer)
        kept = await house.store.database.read(sts.everything)
        house.clock.at += 2 * 86400
        return before, kept, house.zone.asked.count(("texts", "_mta-sts.far.test"))

    before, kept, asked = run(tmp_path, test, texts=STS, web=Web(page()), ca=True)
    assert "MTA-STS" in before and kept[0][0] == "far.test" and asked >= 2


def test_a_new_id_is_fetched_and_the_old_policy_is_not_asked_for_again(tmp_path):
    web = Web(page(), page(b"none"))

    async def test(house, peer):
        await goes(house, peer)
        await house.send("bob@far.test")
        await house.until(lambda: len(peer.letters) == 2)
        first = len(web.asked)
        house.zone.tables["texts"]["_mta-sts.far.test"] = [b"v=STSv1; id=2"]
        peer.starttls = False
        await house.store.database.write(lambda tx: tx.run("DELETE FROM peer_level"))
        await asyncio.sleep(0.3)
        await house.send("bob@far.test")
        await house.until(lambda: len(peer.letters) == 3)
        return first, web.asked

    first, asked = run(tmp_path, test, texts=STS, web=web, ca=True)
    assert first == 1 and asked == [("mta-sts.far.test", "/.well-known/mta-sts.txt")] * 2


# -- both, and the sender's wish


def test_of_dane_and_sts_the_stricter_holds(tmp_path):
    status = run(tmp_path, waits, tlsa=[OTHER_KEY], secure=True, texts=STS, web=Web(page()), ca=True)
    assert "DANE" in status


def test_tls_required_no_goes_all_the_same_and_the_next_letter_does_not(tmp_path):
    async def test(house, peer):
        await house.send("bob@far.test", tls_optional=True)
        await house.until(lambda: peer.letters)
        encrypted = peer.encrypted[0]
        peer.letters.clear()
        return encrypted, await waits(house, peer)

    encrypted, status = run(tmp_path, test, tlsa=[OTHER_KEY], secure=True)
    assert encrypted and "DANE" in status


def test_the_wish_stands_in_the_header(tmp_path):
    async def test(house, _peer):
        await house.submit(b"From: alice@here.test\r\nTLS-Required: No\r\n\r\nx\r\n", "bob@other.test")
        return await house.store.database.read(lambda tx: tx.rows("SELECT require_tls FROM queue_letter"))

    assert run(tmp_path, test) == [(2,)]


# -- MTA-STS: a policy does not end while its domain still promises it


@pytest.mark.parametrize("again", ["same", "gone"])
def test_a_policy_is_fetched_anew_before_it_ends(tmp_path, again):
    web = Web(page(), page() if again == "same" else HttpsFailure("no answer"))

    async def test(house, peer):
        assurance = Assurance(house.store.database, house.app.resolver, web, house.app.env)
        start, ends = house.clock.at, []
        for hours in (0, 1, 11, 13, 14, 23):  # max_age is a day
            house.clock.at = start + hours * 3600
            assert (await assurance.promise("far.test")).policy.mode == "enforce"
            kept = await house.store.database.read(lambda tx: sts.kept(tx, "far.test", int(house.clock.at)))
            ends.append((kept.expires - start) / 3600)
        return ends

    ends = run(tmp_path, test, web=web, texts={"_mta-sts.far.test": [b"v=STSv1; id=1;"]})
    assert ends == ([24, 24, 24, 37, 37, 37] if again == "same" else [24] * 6)
    assert len(web.asked) == (2 if again == "same" else 4)  # tried again, but not at each message

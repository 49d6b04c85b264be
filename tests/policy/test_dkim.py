"""Our signatures and dkimpy's verify each other; what was changed, hidden or left out is noticed."""

import asyncio
import base64
import time

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from hypothesis import given, settings
from hypothesis import strategies as st
from zone import Zone

from fubako.policy import arc, dkim

NOW = int(time.time())  # dkimpy asks the clock of the machine
LETTER = (
    b"From: Alice <alice@here.test>\r\nTo: bob@there.test\r\nSubject:  a  folded\r\n\tsubject \r\nDate: Fri, 15 Jan 2027 08:00:00 "
    b"+0000\r\nMessage-ID: <1@here.test>\r\n\r\nHello  Bob, \r\n\r\nthis is it.\t \r\n\r\n\r\n"
)
RSA = generate_private_key(65537, 2048)
ED = Ed25519PrivateKey.generate()
SIGNERS = {"rsa": dkim.Signer("here.test", "r1", RSA), "ed25519": dkim.Signer("here.test", "e1", ED)}
RECORDS = {f"{one.selector}._domainkey.here.test": [one.record.encode()] for one in SIGNERS.values()}


def verified(content, records=None, now=NOW):
    zone = Zone(texts=RECORDS if records is None else records)
    return asyncio.run(dkim.verify(zone, dkim.take_apart(content), now))


def signed(kind, content=LETTER):
    return dkim.sign(dkim.take_apart(content), SIGNERS[kind], NOW) + content


def lookup(name, timeout=5):
    return RECORDS[name.decode().rstrip(".")][0]


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_dkimpy_believes_what_we_sign(kind):
    assert dkimpy.verify(signed(kind), dnsfunc=lookup)
    assert not dkimpy.verify(signed(kind).replace(b"this is it", b"that is it"), dnsfunc=lookup)


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
@pytest.mark.parametrize("forms", ["relaxed/relaxed", "simple/simple", "relaxed/simple", "simple/relaxed"])
def test_we_believe_what_dkimpy_signs(kind, forms):
    if kind == "rsa":
        key = RSA.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    else:
        key = base64.b64encode(ED.private_bytes_raw())
    one = SIGNERS[kind]
    field = dkimpy.sign(
        LETTER, one.selector.encode(), b"here.test", key, canonicalize=tuple(x.encode() for x in forms.split("/")),
        signature_algorithm=one.algorithm.encode(),
    )  # fmt: skip
    (found,) = verified(field + LETTER)
    assert (found.result, found.domain, found.algorithm) == ("pass", "here.test", one.algorithm), found


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_our_own_passes_and_a_change_fails(kind):
    content = signed(kind)
    assert [one.result for one in verified(content)] == ["pass"]
    for old, new in ((b"Alice", b"Mallory"), (b"this is it", b"that is it"), (b"bob@there", b"eve@there")):
        assert [one.result for one in verified(content.replace(old, new))] == ["fail"]


@pytest.mark.parametrize(
    "field", [b"Subject: another", b"From: ceo@here.test", b"Reply-To: eve@evil.test", b"Cc: eve@evil.test"]
)
def test_a_field_that_is_added_spoils_the_signature(field):
    assert [one.result for one in verified(field + b"\r\n" + signed("rsa"))] != ["pass"]


def test_spaces_and_empty_lines_at_the_end_do_not_matter():
    changed = signed("rsa").replace(b"Hello  Bob, \r\n", b"Hello Bob,\r\n").rstrip(b"\r\n") + b"\r\n\r\n"
    assert [one.result for one in verified(changed)] == ["pass"]


@pytest.mark.parametrize(
    ("record", "result"),
    [
        (None, "permerror"),
        (b"v=DKIM1; p=", "permerror"),
        (b"v=DKIM1; k=rsa; p=!!!", "permerror"),
        (b"v=DKIM2; p=AAAA", "permerror"),
        (b"v=DKIM1; h=sha1; " + SIGNERS["rsa"].record.encode()[9:], "permerror"),
        (b"v=DKIM1; s=other; " + SIGNERS["rsa"].record.encode()[9:], "permerror"),
        (dkim.Signer("x.test", "s", generate_private_key(65537, 1024)).record.encode(), "fail"),
        (dkim.Signer("x.test", "s", generate_private_key(65537, 1024)).record.encode()[:-20], "permerror"),
    ],
)
def test_keys_that_cannot_be_used(record, result):
    records = {"r1._domainkey.here.test": [record]} if record else {}
    assert [one.result for one in verified(signed("rsa"), records)] == [result]


RECORD = SIGNERS["rsa"].record.encode()[9:]


@pytest.mark.parametrize(
    ("record", "result"),
    [
        (b"v=DKIM1; t=y; " + RECORD, "neutral"),
        (b"v=DKIM1; t = s : y ; " + RECORD, "neutral"),
        (b"v=DKIM1; t=s:x; " + RECORD, "pass"),  # there is no i=
        (b"v=DKIM1; h=sha1:sha256; " + RECORD, "pass"),
        (b"v=DKIM1; h=sha1 : x; " + RECORD, "permerror"),
        (b"v=DKIM1; s=tlsrpt; " + RECORD, "permerror"),
        (b"v=DKIM1; s=tlsrpt : email; " + RECORD, "pass"),
        (b"v=DKIM1; s=*; n=a=b=20c; x=y; " + RECORD, "pass"),
        (b"v=DKIM1; " + RECORD.replace(b"k=rsa; ", b""), "pass"),
        (b"v=DKIM1; " + RECORD.replace(b"k=rsa", b"k=other"), "permerror"),
        (b"v=DKIM1; t=y; t=s; " + RECORD, "permerror"),
    ],
)
def test_a_key_is_used_as_its_record_says(record, result):
    """RFC 6376 §3.6.1. A domain that tests is, for its verifiers, one that does not sign."""
    records = {"r1._domainkey.here.test": [record]}
    assert [one.result for one in verified(signed("rsa"), records)] == [result]


def test_a_broken_signature_of_a_domain_that_tests_is_no_fail():
    records = {"r1._domainkey.here.test": [b"v=DKIM1; t=y; " + RECORD]}
    changed = signed("rsa").replace(b"this is it", b"that is it")
    assert [one.result for one in verified(changed, records)] == ["neutral"]


@pytest.mark.parametrize(("identity", "result"), [(b"i=@here.test", "pass"), (b"i=@sub.here.test", "permerror")])
def test_a_strict_key_allows_no_identity_below_its_domain(identity, result):
    key = RSA.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    field = dkimpy.sign(LETTER, b"r1", b"here.test", key, identity=identity[2:])
    assert [one.result for one in verified(field + LETTER)] == ["pass"]
    records = {"r1._domainkey.here.test": [b"v=DKIM1; t=s; " + RECORD]}
    assert [one.result for one in verified(field + LETTER, records)] == [result]


def test_a_signature_that_forbids_more_signatures_does_not_mean_itself(monkeypatch):
    monkeypatch.setattr(dkim, "SIGNED", (*dkim.SIGNED, b"dkim-signature"))
    monkeypatch.setattr(dkim, "ALWAYS", dkim.ALWAYS | {b"dkim-signature"})
    once = signed("rsa")
    assert [one.result for one in verified(once)] == ["pass"]
    assert [one.result for one in verified(signed("ed25519", once))] == ["pass", "fail"]


def test_a_weak_key_is_not_believed(monkeypatch):
    monkeypatch.setattr(dkim, "RSA_BITS_MIN", 4096)
    assert [one.result for one in verified(signed("rsa"))] == ["policy"]


def test_dns_that_does_not_answer_is_a_temporary_fault():
    zone = Zone(fails=["r1._domainkey.here.test"])
    (found,) = asyncio.run(dkim.verify(zone, dkim.take_apart(signed("rsa")), NOW))
    assert found.result == "temperror"


@pytest.mark.parametrize(
    ("old", "new", "result"),
    [
        (b"v=1;", b"v=1; l=5;", "fail"),  # the signature does not hold any more; what it covers is told below
        (b"h=from:from:to:to:", b"h=to:", "permerror"),
        (b"d=here.test", b"d=test", "permerror"),
        (b"a=rsa-sha256", b"a=rsa-sha1", "policy"),
        (b"v=1;", b"v=1; v=1;", "permerror"),
        (b"; t=", b"; x=1600000000; t=", "fail"),
        (b"; t=1", b"; t=9", "permerror"),
        (b"; t=", b"; x=99999999999; t=", "fail"),  # not yet, but x= was not signed
        (b"; t=", b"; x=x; t=", "permerror"),
        (b"h=from:from:", b"h=from:", "fail"),
        (b"s=r1", b"bh=AAAA; s=r1", "permerror"),
        (b"s=r1", b"s=r1; i=eve@other.test", "permerror"),
    ],
)
def test_signatures_that_are_malformed(old, new, result):
    content = signed("rsa")
    assert old in content
    assert [one.result for one in verified(content.replace(old, new, 1))] == [result]


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
@pytest.mark.parametrize("octets", [b"", b"A", b"AA==", b"AAAA", b"A" * 44, b"A" * 88, b"A" * 3000, b"====", b"\xff"])
def test_a_signature_of_any_length_that_is_none_is_no_pass(kind, octets):
    """CVE-like: a short b= brought other verifiers down."""
    content = signed(kind)
    at = content.index(b"\tb=") + 3
    (found,) = verified(content[:at] + octets + content[content.index(b"\r\nFrom:") :])
    assert found.result in ("fail", "permerror")


@pytest.mark.parametrize(
    ("old", "new", "result"),
    [
        (b"d=here.test;", b"d=here.test; d=bank.test;", "permerror"),
        (b"d=here.test;", b"d=here.test; i=@bank.test;", "permerror"),
        (b"d=here.test;", b"d=here.test; i=@nothere.test;", "permerror"),
        (b"d=here.test;", b"d=" + b"a" * 64 + b".test;", "permerror"),
        (b"s=r1;", b"s=" + b"a" * 64 + b";", "permerror"),
        (b"s=r1;", b"s=" + b"a." * 120 + b"a;", "permerror"),
    ],
)
def test_what_a_signer_may_not_say_asks_nothing(old, new, result):
    content = signed("rsa")
    assert old in content
    zone = Zone(texts=RECORDS)
    (found,) = asyncio.run(dkim.verify(zone, dkim.take_apart(content.replace(old, new, 1)), NOW))
    assert (found.result, zone.asked) == (result, [])


def test_a_key_that_costs_too_much_is_not_tried(monkeypatch):
    monkeypatch.setattr(dkim, "RSA_BITS_MAX", 1024)
    (found,) = verified(signed("rsa"))
    assert (found.result, "more than" in found.reason) == ("policy", True)


@pytest.mark.parametrize(
    "records",
    [
        [b"v=DKIM1; p=AAAA", SIGNERS["rsa"].record.encode()],
        [b"v=spf1 -all"],  # a wildcard answers for every name
        [SIGNERS["rsa"].record.encode().replace(b"v=DKIM1", b"v=DKIM1; v=DKIM1")],
        [SIGNERS["ed25519"].record.encode()],
    ],
)
def test_an_answer_that_is_not_one_key_proves_nothing(records):
    (found,) = verified(signed("rsa"), {"r1._domainkey.here.test": records})
    assert found.result == "permerror"


def test_a_signature_over_a_part_of_the_body_is_no_pass():
    key = RSA.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    field = dkimpy.sign(LETTER, b"r1", b"here.test", key, length=True)
    assert [one.result for one in verified(field + LETTER)] == ["pass"]  # nothing was added yet
    assert [one.result for one in verified(field + LETTER + b"<a href=evil>\r\n")] == ["policy"]


def test_only_so_many_signatures_are_looked_at():
    content = dkim.sign(dkim.take_apart(LETTER), SIGNERS["ed25519"], NOW) * 20 + LETTER
    assert len(verified(content)) == dkim.SIGNATURES_MAX


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_any_octets_give_a_result(octets):
    for content in (octets, b"DKIM-Signature: " + octets, b"ARC-Seal: i=1; " + octets + b"\r\n\r\n"):
        assert all(one.result != "pass" for one in verified(content))
        assert asyncio.run(arc.validate(Zone(), dkim.take_apart(content))).status in ("none", "fail")


# -- our seals


def test_a_chain_of_our_seals_holds_and_dkimpy_believes_it():
    content, signer = signed("rsa"), SIGNERS["rsa"]
    for _ in range(3):
        letter = dkim.take_apart(content)
        chain = asyncio.run(arc.validate(Zone(texts=RECORDS), letter))
        content = arc.seal(letter, chain, "here.test; dkim=pass header.d=here.test", signer, NOW) + content
    chain = asyncio.run(arc.validate(Zone(texts=RECORDS), dkim.take_apart(content)))
    assert (chain.status, chain.sets, chain.oldest_pass) == ("pass", 3, 0), chain
    cv, results, reason = dkimpy.arc_verify(content, dnsfunc=lookup)
    assert cv == dkimpy.CV_Pass, (reason, results)


def test_a_change_after_a_seal_breaks_the_chain_and_nobody_seals_it_again():
    letter = dkim.take_apart(LETTER)
    content = arc.seal(letter, arc.Chain("none"), "here.test; none", SIGNERS["rsa"], NOW) + LETTER
    changed = dkim.take_apart(content.replace(b"Alice", b"Mallory"))
    chain = asyncio.run(arc.validate(Zone(texts=RECORDS), changed))
    assert (chain.status, chain.sealer) == ("fail", "here.test")
    assert arc.seal(changed, chain, "here.test; none", SIGNERS["rsa"], NOW) == b""


def test_a_list_that_changes_the_letter_and_seals_it_is_seen_in_oldest_pass():
    content = arc.seal(dkim.take_apart(LETTER), arc.Chain("none"), "here.test; none", SIGNERS["rsa"], NOW) + LETTER
    content = content.replace(b"Subject: ", b"Subject: [list]")
    letter = dkim.take_apart(content)
    content = arc.seal(letter, arc.Chain("pass", 1), "here.test; arc=pass", SIGNERS["rsa"], NOW) + content
    chain = asyncio.run(arc.validate(Zone(texts=RECORDS), dkim.take_apart(content)))
    assert (chain.status, chain.sets, chain.oldest_pass) == ("pass", 2, 2)

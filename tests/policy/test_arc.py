"""ValiMail's ARC validation vectors, whole; and our own seals."""

import asyncio
from functools import partial
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from zone import Zone

from fubako.message.authentication import without_forged
from fubako.message.headers import header_end
from fubako.policy import arc, dkim

SUITE = Path(__file__).parent.parent / "suites" / "arc" / "arc-draft-validation-tests.yml"


def cases():
    for scenario in yaml.safe_load_all(SUITE.read_text(encoding="utf-8")):
        records = {name: [text.encode()] for name, text in (scenario.get("txt-records") or {}).items()}
        for name, case in scenario["tests"].items():
            yield pytest.param(records, case, id=name)


@pytest.mark.parametrize(("records", "case"), list(cases()))
def test_the_suite(records, case):
    content = (case["message"] or "").replace("\r\n", "\n").replace("\n", "\r\n").encode()
    found = asyncio.run(arc.validate(Zone(texts=records), dkim.take_apart(content)))
    # three vectors leave the status of a chain that says cv=fail empty; RFC 8617 §5.2, step 2 and 3 say what it is
    wanted = "fail" if case["cv"] == "" else str(case["cv"] or "none").lower()
    assert found.status == wanted, (found, case["description"])


def test_there_are_as_many_cases_as_the_suite_has():
    assert len(list(cases())) == 171


# -- sets in our name
#
# Leaves out: who asks (tests/server/test_gate.py), and fields in our name that are no ARC (test_dmarc.py).

OURS, THEIRS = (generate_private_key(65537, 2048) for _ in range(2))
LETTER = b"From: <a@b.test>\r\nSubject: x\r\n\r\nbody\r\n"


def sealed(content, signer, server):
    """The letter with one more set, as that server seals it."""
    letter = dkim.take_apart(content)
    chain = arc.Chain("pass" if b"ARC-Seal" in content else "none", content.count(b"ARC-Seal:"))
    return arc.seal(letter, chain, f"{server}; dmarc=pass", signer, 1.0) + content


def unforged(content, *signers):
    proven = partial(arc.proven, dkim.take_apart(content), signers)
    return without_forged(content, header_end(content), "mx.here.test", proven)


def test_a_set_in_our_name_that_our_key_seals_stays():
    ours, theirs = dkim.Signer("here.test", "k", OURS), dkim.Signer("list.test", "k", THEIRS)
    content = sealed(sealed(LETTER, ours, "mx.here.test"), theirs, "list.test")
    assert unforged(content, ours, theirs) == unforged(content, ours) == content


def test_a_set_in_our_name_that_another_key_seals_goes_whole_and_leaves_the_chain_below_it_valid():
    ours, theirs = dkim.Signer("here.test", "k", OURS), dkim.Signer("list.test", "k", THEIRS)
    below = sealed(LETTER, theirs, "list.test")
    for forger in (theirs, dkim.Signer("here.test", "k", THEIRS)):
        assert unforged(sealed(below, forger, "mx.here.test"), ours) == below
    zone = Zone(texts={"k._domainkey.list.test": [theirs.record.encode()]})
    assert asyncio.run(arc.validate(zone, dkim.take_apart(below))).status == "pass"


def test_a_seal_of_ours_proves_no_other_words():
    ours = dkim.Signer("here.test", "k", OURS)
    content = sealed(LETTER, ours, "mx.here.test").replace(b"dmarc=pass", b"dmarc=fail")
    assert unforged(content, ours) == LETTER
    assert unforged(content.replace(b"i=1", b"i=1; i=1"), ours).count(b"ARC-Authentication-Results") == 0


def test_seals_of_other_servers_are_never_touched():
    theirs = dkim.Signer("list.test", "k", THEIRS)
    content = sealed(sealed(LETTER, theirs, "list.test"), theirs, "next.test")
    assert unforged(content) == content

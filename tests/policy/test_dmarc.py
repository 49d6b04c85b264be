"""Whose wish holds, and what proves a domain (RFC 9989)."""

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from zone import Zone

from fubako.message import authentication
from fubako.policy import dkim, dmarc
from fubako.policy.authenticity import Examiner, Rules
from fubako.policy.disposition import Policy

LETTER = b"From: Alice <alice@%s>\r\nTo: bob@there.test\r\n\r\nhello\r\n"


async def judged(zone, domain, evidence=()):
    """Of one author."""
    return await dmarc.judge(await dmarc.find_policy(zone, domain), [dmarc.Evidence(*one) for one in evidence])


def judge(zone, author="mail.example.test", evidence=()):
    return asyncio.run(judged(Zone(texts=zone), author, evidence))


@pytest.mark.parametrize(
    ("zone", "evidence", "result", "wish"),
    [
        ({}, [], "none", "none"),
        ({"_dmarc.mail.example.test": [b"v=DMARC1; p=reject"]}, [], "fail", "reject"),
        # a policy that is tested asks for one step less
        ({"_dmarc.mail.example.test": [b"v=DMARC1; p=reject; t=y"]}, [], "fail", "quarantine"),
        ({"_dmarc.mail.example.test": [b"v=DMARC1; p=quarantine; t=y"]}, [], "fail", "none"),
        ({"_dmarc.mail.example.test": [b"v=DMARC1; p=reject; t=x; pct=0; unknown=1; =; ;;"]}, [], "fail", "reject"),
        ({"_dmarc.mail.example.test": [b"v=DMARC1;p=none"]}, [], "fail", "none"),
        ({"_dmarc.example.test": [b"v=DMARC1; p=reject"]}, [], "fail", "reject"),
        ({"_dmarc.example.test": [b"v=DMARC1; p=none; sp=quarantine"]}, [], "fail", "quarantine"),
        ({"_dmarc.example.test": [b"v=DMARC1; p=none; sp=quarantine; np=reject"]}, [], "fail", "reject"),
        ({"_dmarc.example.test": [b"v=DMARC1; p=reject"]}, [("dkim", "example.test")], "pass", "none"),
        ({"_dmarc.example.test": [b"v=DMARC1; p=reject"]}, [("spf", "other.example.test")], "pass", "none"),
        ({"_dmarc.example.test": [b"v=DMARC1; p=reject; adkim=s"]}, [("dkim", "example.test")], "fail", "reject"),
        ({"_dmarc.example.test": [b"v=DMARC1; p=reject; aspf=s"]}, [("dkim", "example.test")], "pass", "none"),
        ({"_dmarc.example.test": [b"v=DMARC1; p=reject"]}, [("dkim", "evil.test"), ("spf", "evil.test")], "fail", "reject"),
        # a public suffix that says so does not make neighbours out of its customers
        ({"_dmarc.test": [b"v=DMARC1; p=reject; psd=y"]}, [("dkim", "other.test")], "fail", "reject"),
        ({"_dmarc.example.test": [b"v=DMARC1; p=reject; psd=n"], "_dmarc.test": [b"v=DMARC1"]}, [("spf", "example.test")],
         "pass", "none"),
        # two records are none; so is one that is not DMARC
        ({"_dmarc.mail.example.test": [b"v=DMARC1; p=reject", b"v=DMARC1; p=none"]}, [], "none", "none"),
        ({"_dmarc.mail.example.test": [b"v=DMARC2; p=reject"]}, [], "none", "none"),
        ({"_dmarc.mail.example.test": [b"v=DMARC1; p=rejekt"]}, [], "none", "none"),
        ({"_dmarc.mail.example.test": [b"v=DMARC1; p=rejekt; rua=mailto:a@b.test"]}, [], "fail", "none"),
        # so does a wish for subdomains that is not known (RFC 9989 §4.10.1)
        ({"_dmarc.example.test": [b"v=DMARC1; p=reject; sp=rejekt; rua=mailto:a@b.test"]}, [], "fail", "none"),
        ({"_dmarc.example.test": [b"v=DMARC1; p=reject; np=; rua=mailto:a@b.test"]}, [], "fail", "none"),
        ({"_dmarc.example.test": [b"v=DMARC1; p=reject; np=rejekt"]}, [], "none", "none"),
        # several records are none of theirs, and the walk goes on above
        ({"_dmarc.mail.example.test": [b"v=DMARC1; p=none", b"v=DMARC1; p=none"], "_dmarc.example.test": [b"v=DMARC1; p=reject"]},
         [], "fail", "reject"),
        ({"_dmarc.mail.example.test": [b"v=DMARC1;p=none", b"v=spf1 -all"]}, [], "fail", "none"),
        ({"_dmarc.mail.example.test": [b"p=reject; v=DMARC1"]}, [], "none", "none"),
        ({"_dmarc.mail.example.test": [b" v = DMARC1 ; P = Reject "]}, [], "fail", "reject"),
    ],
)  # fmt: skip
def test_wishes(zone, evidence, result, wish):
    found = judge(zone, evidence=evidence)
    assert (found.result, found.wish) == (result, wish), found


def test_every_author_must_be_proved():
    zone = Zone(
        texts={"_dmarc.good.test": [b"v=DMARC1; p=none"], "_dmarc.bad.test": [b"v=DMARC1; p=reject"],
               "good.test": [b"v=spf1 +all"]}
    )  # fmt: skip
    found = examine(zone, b"From: a@good.test, b@bad.test\r\n\r\n", sender="a@good.test")
    assert (found.judged.result, found.judged.domain, found.judged.wish) == ("fail", "bad.test", "reject")
    assert found.verdict.status.code == 550


def test_a_walk_is_short_however_long_the_name():
    name = ".".join("abcdefghijklmnopqrstuvwxyz") + ".test"
    zone = Zone()
    asyncio.run(judged(zone, name))
    assert len(zone.asked) <= dmarc.LABELS_MAX


@pytest.mark.parametrize(
    ("zone", "organization"),
    [
        ({}, "a.mail.example.co.test"),
        ({"example.co.test": b""}, "example.co.test"),
        ({"example.co.test": b"", "mail.example.co.test": b""}, "example.co.test"),
        ({"example.co.test": b"", "co.test": b"psd=y"}, "example.co.test"),
        ({"co.test": b"psd=y"}, "example.co.test"),
        ({"mail.example.co.test": b"psd=n", "example.co.test": b""}, "mail.example.co.test"),
        ({"a.mail.example.co.test": b"psd=y", "example.co.test": b""}, "a.mail.example.co.test"),
        ({"test": b"psd=y", "example.co.test": b""}, "co.test"),
        ({"test": b"psd=u"}, "test"),
    ],
)
def test_where_an_organization_begins(zone, organization):
    """RFC 9989 §4.10.2, each step of it."""
    texts = {f"_dmarc.{name}": [b"v=DMARC1; p=none; " + tags] for name, tags in zone.items()}
    assert asyncio.run(dmarc._Walk(Zone(texts=texts)).organization("a.mail.example.co.test")) == organization


def test_a_public_suffix_of_seven_labels_has_customers_of_eight():
    suffix = "b.c.d.e.f.g.test"
    walk = dmarc._Walk(Zone(texts={f"_dmarc.{suffix}": [b"v=DMARC1; psd=y"]}))
    assert asyncio.run(walk.organization(f"x.y.z.a.{suffix}")) == f"a.{suffix}"


def test_dns_that_fails_is_neither_a_policy_nor_none():
    zone = Zone(fails=["_dmarc.mail.example.test"])
    found = asyncio.run(judged(zone, "mail.example.test"))
    assert (found.result, found.policy) == ("temperror", Policy.TEMPORARY)


# -- all together


def examine(zone, content, sender="eve@evil.test", rules=None):
    examiner = Examiner(zone, "mx.here.test", rules or Rules())
    return asyncio.run(examiner.examine("192.0.2.1", "client.evil.test", sender, content, 1.0))


def test_a_forged_author_is_refused_with_the_reason():
    zone = Zone(texts={"_dmarc.bank.test": [b"v=DMARC1; p=reject"], "evil.test": [b"v=spf1 ip4:192.0.2.1 -all"]})
    found = examine(zone, LETTER % b"bank.test")
    assert str(found.verdict.status) == (
        "550 5.7.26 neither SPF nor DKIM shows that it comes from bank.test, which asks to refuse such letters (DMARC)"
    )
    text = authentication.results("mx.here.test", found.methods)
    assert (
        "spf=pass" in text
        and "smtp.mailfrom=eve@evil.test" in text
        and "dmarc=fail" in text
        and "header.from=bank.test" in text
    )


def test_quarantine_marks_and_none_only_tells():
    zone = Zone(texts={"_dmarc.bank.test": [b"v=DMARC1; p=quarantine"]})
    assert examine(zone, LETTER % b"bank.test").junk
    assert not examine(zone, LETTER % b"bank.test", rules=Rules(dmarc=False)).junk


def test_a_signature_of_a_domain_that_tests_proves_no_author():
    """RFC 6376 §3.6.1: "MUST NOT treat messages from Signers in testing mode differently from unsigned email"."""
    signer = dkim.Signer("bank.test", "k", Ed25519PrivateKey.generate())
    content = dkim.sign(dkim.take_apart(LETTER % b"bank.test"), signer, 1.0) + LETTER % b"bank.test"
    texts = {"_dmarc.bank.test": [b"v=DMARC1; p=reject"], "k._domainkey.bank.test": [signer.record.encode()]}
    assert examine(Zone(texts=texts), content).verdict.accepted
    texts["k._domainkey.bank.test"] = [signer.record.encode() + b"; t=y"]
    assert examine(Zone(texts=texts), content).verdict.status.code == 550


def test_an_spf_fail_is_refused_only_where_that_is_wished():
    zone = Zone(texts={"evil.test": [b"v=spf1 -all exp=why.evil.test"], "why.evil.test": [b"not %{i}"]})
    assert examine(zone, LETTER % b"other.test").verdict.accepted
    found = examine(zone, LETTER % b"other.test", rules=Rules(spf_reject=True))
    assert str(found.verdict.status) == "550 5.7.23 SPF of evil.test does not allow this server: not 192.0.2.1"


# -- Authentication-Results


@pytest.mark.parametrize(
    "forged",
    [
        b"Authentication-Results: mx.here.test; dmarc=pass\r\n",
        b"authentication-results:\r\n\tmx.here.test;\r\n\tdmarc=pass\r\n",
        b"Authentication-Results : MX.HERE.TEST 1; dmarc=pass\r\n",
        b"Authentication-Results: (hello) mx.here.test; dmarc=pass\r\n",
        b'Authentication-Results: "mx.here.test"; dmarc=pass\r\n',
        b"Authentication-Results: ;dmarc=pass\r\n",
        b"Received-SPF: pass (mx.here.test: domain of x@bank.test permits it) client-ip=192.0.2.1\r\n",
        b"Received-SPF: pass receiver=mx.here.test; identity=mailfrom\r\n",
        b'received-spf : pass receiver="MX.here\\.test";\r\n',
        b"Received-SPF: pass receiver=mx.here.(x)test\r\n",
        b"X-Spam-Checker-Version: SpamAssassin 4.0 on mx.here.test\r\n",
        b"X-Spam-Status: No, score=-9 (checked by mx.here.test.)\r\n",
        b"X-Virus-Scanned: clean, by MX.HERE.TEST\r\n",
        b"X-Authentication-Results: mx.here.test; dmarc=pass\r\n",
        b"ARC-Authentication-Results: i=1; mx.here.test; dmarc=pass\r\n",
        b"ARC-Authentication-Results: (a) i (b) = 1 ; (c) mx.here.test; dmarc=pass\r\n",
        b"ARC-Authentication-Results: mx.here.test; dmarc=pass\r\n",
    ],
)
def test_results_in_our_name_are_taken_away(forged):
    other = (
        b"Authentication-Results: list.test;\r\n spf=pass\r\n"
        b'Authentication-Results: "quoted.test"; spf=pass\r\n'
        b"ARC-Authentication-Results: i=2; list.test; spf=pass\r\n"
        b"Received-SPF: pass receiver=mx.here.test.list.test; helo=amx.here.test\r\n"
        b"X-Spam-Checker-Version: SpamAssassin 4.0 on list.test\r\n"
        b"X-Mailer: mx.here.test\r\n"
    )
    content = b"Subject: x\r\n" + forged + other + b"To: y\r\n\r\nAuthentication-Results: mx.here.test; body\r\n"
    kept = authentication.without_forged(content, content.index(b"\r\n\r\n") + 4, "mx.here.test")
    assert kept == content.replace(forged, b"", 1)


def test_nothing_that_a_stranger_writes_breaks_our_field():
    method = authentication.Method("spf", "fail", "a\r\nb (c) \\", (("smtp.mailfrom", 'x"\r\nEvil: 1@e.test'),))
    field = authentication.results_field("mx.here.test", [method])
    assert field.count(b"\r\n") == 2 and b"\r\n\t" in field and b"Evil" in field

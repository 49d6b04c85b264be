"""What an attacker's DNS does, and does not, decide (RFC 9989, RFC 7208, RFC 6376, RFC 8617): whole examinations.

Time is not waited for: a name of `Slow` never answers, and a budget of no seconds ends at the first wait. Leaves out the wire
(reception), and what a resolver caches.
"""

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from zone import Zone

from fubako.policy import arc, authors, dkim, dmarc
from fubako.policy.authenticity import Budget, Examiner, Rules

AT_ONCE = Budget(policy_seconds=0, spf_seconds=0, signature_seconds=0, chain_seconds=0, alignment_seconds=0)
KEY = generate_private_key(65537, 2048)
PLAIN = b"From: CEO <ceo@bank.test>\r\nTo: bob@here.test\r\nSubject: pay\r\n\r\nat once\r\n"
REJECT = {"_dmarc.bank.test": [b"v=DMARC1; p=reject"]}
EVIL = {"evil.test": [b"v=spf1 +all"]}


class Slow(Zone):
    """Names in `silent` are asked for and never answer."""

    def __init__(self, silent=(), **tables):
        super().__init__(**tables)
        self.silent = set(silent)

    async def texts(self, name):
        if name in self.silent:
            await asyncio.Event().wait()
        return await super().texts(name)

    async def names(self, address):
        if "names" in self.silent:
            await asyncio.Event().wait()
        return await super().names(address)


def examine(zone, content=PLAIN, sender="x@evil.test", **rules):
    examiner = Examiner(zone, "mx.here.test", Rules(budget=AT_ONCE, **rules))
    return asyncio.run(examiner.examine("192.0.2.1", "client.evil.test", sender, content, 1.0))


def code(found):
    return found.verdict.status.code if found.verdict.status else 250


def signer(domain, selector="s"):
    return dkim.Signer(domain, selector, KEY)


def signed(content, domain, selector="s"):
    return dkim.sign(dkim.take_apart(content), signer(domain, selector), 1.0) + content


def sealed(content, chain, domain):
    return arc.seal(dkim.take_apart(content), chain, "x; none", signer(domain), 1.0) + content


def record_of(domain):
    return {f"s._domainkey.{domain}": [signer(domain).record.encode()]}


# -- the sender's own DNS


def test_the_policy_of_the_senders_domain_switches_nothing_off():
    zone = Slow(texts={**REJECT, **EVIL}, fails=["_dmarc.evil.test"])
    found = examine(zone)
    assert code(found) == 550 and found.judged.result == "fail"
    assert ("texts", "_dmarc.evil.test") not in zone.asked


def test_signatures_of_others_whose_keys_never_come_delay_nothing():
    content = signed(signed(PLAIN, "evil.test"), "slow.test")
    silent = ["s._domainkey.evil.test", "s._domainkey.slow.test"]
    found = examine(Slow(silent, texts=REJECT), content)
    assert code(found) == 550
    assert [one.result for one in found.signatures] == ["temperror", "temperror"]


def test_spf_of_another_domain_that_never_answers_delays_nothing():
    assert code(examine(Slow(["evil.test"], texts=REJECT))) == 550
    assert code(examine(Slow(texts=REJECT, fails=["evil.test"]))) == 550


def test_names_of_the_client_that_never_come_prove_nothing(monkeypatch):
    monkeypatch.setattr("fubako.policy.spf.NAMES_SECONDS", 0)
    zone = Slow(["names"], texts={**REJECT, "bank.test": [b"v=spf1 ptr -all"]})
    rules = Rules(budget=Budget())
    examiner = Examiner(zone, "mx.here.test", rules)
    found = asyncio.run(examiner.examine("192.0.2.1", "c.test", "a@bank.test", PLAIN, 1.0))
    assert (found.sent_by.result, code(found)) == ("fail", 550)


def test_a_chain_of_others_whose_keys_never_come_delays_nothing():
    content = sealed(PLAIN, arc.Chain("none"), "evil.test")
    found = examine(Slow(["s._domainkey.evil.test"], texts=REJECT), content, trusted_sealers=frozenset({"list.test"}))
    assert (found.chain.status, code(found)) == ("fail", 550)


def test_a_seal_in_a_trusted_name_that_does_not_hold_leads_to_no_other_name():
    """Else whoever writes the sets before it could keep it undecided."""
    first = sealed(PLAIN, arc.Chain("none"), "evil.test")
    content = sealed(first, arc.Chain("pass", 1), "list.test").replace(b"Subject: pay", b"Subject: PAY")
    content = content.replace(b"d=list.test; s=s;\r\n\tt=1", b"d=list.test; s=s;\r\n\tt=2")
    zone = Slow(["s._domainkey.evil.test"], texts={**REJECT, **record_of("list.test")})
    found = examine(zone, content, trusted_sealers=frozenset({"list.test"}))
    assert (found.chain.status, found.chain.undecided, code(found)) == ("fail", False, 550)
    assert ("texts", "s._domainkey.evil.test") not in zone.asked


# -- what a later answer could change waits


@pytest.mark.parametrize("wish", [b"reject", b"quarantine"])
def test_an_aligned_signature_whose_key_does_not_come_waits(wish):
    texts = {"_dmarc.bank.test": [b"v=DMARC1; p=" + wish]}
    for zone in (
        Slow(["s._domainkey.bank.test"], texts=texts),
        Slow(texts=texts, fails=["s._domainkey.bank.test"]),
        Slow(["s._domainkey.mail.bank.test"], texts=texts),
    ):
        domain = "mail.bank.test" if "s._domainkey.mail.bank.test" in zone.silent else "bank.test"
        found = examine(zone, signed(PLAIN, domain))
        assert code(found) == 451 and not found.junk, domain
        assert str(found.verdict.status).startswith("451 4.4.3 ")


def test_aligned_spf_that_does_not_answer_waits():
    assert code(examine(Slow(["bank.test"], texts=REJECT), sender="a@bank.test")) == 451


@pytest.mark.parametrize("how", ["silent", "fails"])
def test_a_policy_that_does_not_come_waits(how):
    zone = Slow(["_dmarc.bank.test"]) if how == "silent" else Slow(fails=["_dmarc.bank.test"])
    assert code(examine(zone)) == 451
    proved = Slow(zone.silent, texts=record_of("bank.test"), fails=zone.fails)
    assert code(examine(proved, signed(PLAIN, "bank.test"))) == 250


def test_a_seal_of_a_trusted_sealer_whose_key_does_not_come_waits():
    content = sealed(PLAIN, arc.Chain("none"), "list.test")
    zone = Slow(["s._domainkey.list.test"], texts=REJECT)
    assert code(examine(zone, content, trusted_sealers=frozenset({"list.test"}))) == 451
    there = Slow(texts={**REJECT, **record_of("list.test")})
    assert code(examine(there, content, trusted_sealers=frozenset({"list.test"}))) == 250


def test_spf_alone_waits_too_where_its_fail_is_refused():
    zone = Slow(fails=["evil.test"])
    assert code(examine(zone, spf_reject=True)) == 451


def test_a_proof_that_holds_waits_for_nobody():
    content = signed(signed(PLAIN, "bank.test"), "slow.test")
    zone = Slow(["s._domainkey.slow.test", "evil.test"], texts={**REJECT, **record_of("bank.test")})
    assert code(examine(zone, content)) == 250


# -- the From field


@pytest.mark.parametrize(
    "line",
    [
        b"From: ceo@bank.test\r\nFrom: eve@evil.test",
        b"From: eve@evil.test, ceo@bank.test",
        b"From: =?utf-8?Q?=3Cceo=40bank.test=3E?= <eve@evil.test>",
        b"From: staff: ceo@bank.test;",
        b'From: "ceo <ceo@bank.test>',
        b"From: ceo@bank\xff.test",
        b"From : ceo@bank.test",
    ],
)
def test_an_odd_author_is_no_better_off_than_a_plain_one(line):
    content = PLAIN.replace(b"From: CEO <ceo@bank.test>", line)
    assert code(examine(Slow(texts={**REJECT, **EVIL}), content)) == 550


@pytest.mark.parametrize("line", [b"X: y", b"From: the boss", b"From: =?utf-8?Q?the_boss?=", b"From: x@localhost"])
def test_a_message_of_nobody_is_marked(line):
    found = examine(Slow(texts=EVIL), PLAIN.replace(b"From: CEO <ceo@bank.test>", line))
    assert (code(found), found.junk) == (250, True)


# -- how many questions


def test_one_message_asks_a_number_of_questions_that_is_known():
    """SPF to its limits, every signature and seal of another domain, and as many authors as are judged."""
    spf = {f"m{at}.evil.test": [f"h{at}x{host}.evil.test" for host in range(10)] for at in range(9)}
    hosts = {f"h{at}x{host}.evil.test": ["192.0.2.9"] for at in range(9) for host in range(10)}
    terms = " ".join(f"mx:m{at}.evil.test" for at in range(9))
    zone = Zone(
        mx={name: [(1, host) for host in names] for name, names in spf.items()}, addresses=hosts,
        texts={"evil.test": [f"v=spf1 {terms} -all".encode()]},
    )  # fmt: skip
    authors_line = b", ".join(b"a@x.y.z.w.v.u.t.s.d%d.test" % at for at in range(authors.DOMAINS_MAX))
    content = PLAIN.replace(b"CEO <ceo@bank.test>", authors_line)
    for at in range(20):
        content = signed(content, f"d{at}.evil.test")
    chain = arc.Chain("none")
    for at in range(1, 20):
        content = sealed(content, chain, f"c{at}.evil.test")
        chain = arc.Chain("pass", at)
    examiner = Examiner(zone, "mx.here.test", Rules(budget=Budget(questions=40)))
    found = asyncio.run(examiner.examine("192.0.2.1", "client.evil.test", "x@evil.test", content, 1.0))
    assert found.sent_by.result == "permerror"
    assert len(zone.asked) <= 40 + authors.DOMAINS_MAX * dmarc.QUESTIONS_MAX


def test_three_hundred_authors_ask_nothing():
    line = b"From: " + b",\r\n ".join(b"a@d%d.test" % at for at in range(300))
    zone = Zone()
    found = examine(zone, PLAIN.replace(b"From: CEO <ceo@bank.test>", line))
    assert code(found) == 550
    assert not [name for _, name in zone.asked if name.startswith("_dmarc.")]

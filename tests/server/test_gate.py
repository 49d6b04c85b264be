"""What a stranger's letter meets: lists, limits, greylisting, proofs; and how it looks when it is in."""

import asyncio

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from peer import House
from targets_named import add_alias
from zone import Zone

from fubako.config import DnsListing, Inbound, MasqueradeAs, Rates, Route
from fubako.policy import arc, dkim
from fubako.store import domainkeys, reports

LETTER = ("MAIL FROM:<eve@evil.test>", "RCPT TO:<alice@here.test>", "DATA", "Subject: x", "", "body", ".")
RELAY = Route(to="smtp://127.0.0.1:9")
KEY = generate_private_key(65537, 2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
RECORD = dkim.Signer("here.test", "k", KEY).record.encode()


def letter(*fields, sender="eve@evil.test", to="alice@here.test"):
    return (f"MAIL FROM:<{sender}>", f"RCPT TO:<{to}>", "DATA", *fields, "", "body", ".")


def run(tmp_path, test, *routes, **house):
    async def inside():
        async with House(tmp_path, *routes, **house) as made:
            return await test(made)

    return asyncio.run(inside())


# -- DNS lists


def test_a_listed_client_hears_the_words_of_the_list(tmp_path):
    zone = Zone(
        addresses={"1.2.0.192.dul.test": ["127.0.0.3"]},
        texts={"1.2.0.192.dul.test": [b"Dial-up, see http://dul.test/"]},
    )
    lists = {"dns_list": (DnsListing(zone="dul.test"),)}
    replies = run(tmp_path, lambda house: house.said(*LETTER), zone=zone, more=lists)
    assert replies[0] == "550 5.7.1 192.0.2.1 is listed by dul.test: Dial-up, see http://dul.test/"


def test_lists_of_names_are_asked_at_their_stage(tmp_path):
    for stage, name in (("hello", "x.test.names.test"), ("sender", "evil.test.names.test")):
        zone = Zone(addresses={name: ["127.0.1.2"]})
        lists = {"dns_list": (DnsListing(zone="names.test", stage=stage),)}
        replies = run(tmp_path / stage, lambda house: house.said(*LETTER), zone=zone, more=lists)
        assert "listed by names.test" in replies[0]


def test_weights_add_up_and_speak_for_a_client_too(tmp_path):
    zone = Zone(
        addresses={
            "1.2.0.192.a.test": ["127.0.0.2"],
            "1.2.0.192.b.test": ["127.0.0.2"],
            "1.2.0.192.w.test": ["127.0.0.2"],
        }
    )
    bad = (DnsListing(zone="a.test", weight=6), DnsListing(zone="b.test", weight=6))
    good = DnsListing(zone="w.test", weight=-5)
    assert run(tmp_path / "1", lambda h: h.said(*LETTER), zone=zone, more={"dns_list": bad[:1]})[0].startswith("250")
    assert run(tmp_path / "2", lambda h: h.said(*LETTER), zone=zone, more={"dns_list": bad})[0].startswith("550")
    assert run(tmp_path / "3", lambda h: h.said(*LETTER), zone=zone, more={"dns_list": (*bad, good)})[0].startswith(
        "250"
    )


def test_answers_that_do_not_count_and_lists_that_fail_refuse_nobody(tmp_path):
    zone = Zone(addresses={"1.2.0.192.a.test": ["127.0.0.9"]}, fails=["1.2.0.192.b.test"])
    lists = (DnsListing(zone="a.test", returns=("127.0.0.2/32",)), DnsListing(zone="b.test"))
    assert run(tmp_path, lambda house: house.said(*LETTER), zone=zone, more={"dns_list": lists})[-1].startswith("250")


def test_an_answer_is_remembered(tmp_path):
    zone = Zone(addresses={"1.2.0.192.a.test": ["127.0.0.2"]})

    async def test(house):
        for _ in range(3):
            await house.said(*LETTER)
        return [name for table, name in zone.asked if name == "1.2.0.192.a.test" and table == "addresses"]

    assert len(run(tmp_path, test, zone=zone, more={"dns_list": (DnsListing(zone="a.test"),)})) == 1


def test_ipv6_clients_are_asked_for_by_nibbles(tmp_path):
    name = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.a.test"
    zone = Zone(addresses={name: ["127.0.0.2"]})
    lists = {"dns_list": (DnsListing(zone="a.test"),)}
    assert "listed" in run(tmp_path, lambda house: house.said(*LETTER, peer="2001:db8::1"), zone=zone, more=lists)[0]


# -- greylisting, rates, POP before SMTP


def test_greylisting_lets_in_who_comes_back(tmp_path):
    async def test(house):
        first = await house.said(*LETTER)
        house.clock.at += 60
        early = await house.said(*LETTER)
        house.clock.at += 300
        later = await house.said(*LETTER, peer="192.0.2.200")  # another machine of the same site
        stranger = await house.said(*LETTER, peer="198.51.100.1")
        return first[1], early[1], later[-1], stranger[1]

    first, early, later, stranger = run(tmp_path, test, more={"inbound": Inbound(greylist_seconds=300)})
    assert first == "451 4.7.1 not known here yet; try again in 300 seconds"
    assert early == "451 4.7.1 not known here yet; try again in 240 seconds"
    assert later.startswith("250") and stranger.startswith("451")


def test_a_network_that_sends_too_much_has_to_wait(tmp_path):
    async def test(house):
        replies = [(await house.said(*LETTER))[1] for _ in range(4)]
        other = (await house.said(*LETTER, peer="198.51.100.1"))[1]
        house.clock.at += 1200
        return replies, other, (await house.said(*LETTER))[1]

    replies, other, later = run(tmp_path, test, more={"rates": Rates(network=3)})
    assert [one[:3] for one in replies] == ["250", "250", "250", "450"]
    assert replies[3] == "450 4.7.1 your network sends too much; try again later"
    assert other.startswith("250") and later.startswith("250")


def test_a_domain_that_sends_too_much_has_to_wait(tmp_path):
    async def test(house):
        return [(await house.said(*LETTER, peer=f"192.0.2.{n}"))[1][:3] for n in range(3)]

    assert run(tmp_path, test, more={"rates": Rates(sender_domain=2)}) == ["250", "250", "450"]


def test_pop_before_smtp_is_off_and_has_a_window(tmp_path):
    relay = ("MAIL FROM:<alice@here.test>", "RCPT TO:<bob@far.test>")

    async def test(house):
        gate = house.app.resources.gate
        await gate.note_login("192.0.2.1", "alice@here.test", encrypted=False)
        clear = (await house.said(*relay))[1]
        await gate.note_login("192.0.2.1", "alice@here.test", encrypted=True)
        inside, other = (await house.said(*relay))[1], (await house.said(*relay, peer="192.0.2.2"))[1]
        house.clock.at += 601
        return clear, inside, other, (await house.said(*relay))[1]

    on = run(tmp_path / "on", test, RELAY, more={"inbound": Inbound(pop_before_smtp_minutes=10)})
    assert [one[:3] for one in on] == ["550", "250", "550", "550"]
    assert {one[:3] for one in run(tmp_path / "off", test, RELAY)} == {"550"}


def test_clients_for_whom_we_relay_meet_the_rates_only(tmp_path):
    (tmp_path / "access").write_text("Connect:192.0.2.1 RELAY\n")
    zone = Zone(
        texts={"evil.test": [b"v=spf1 -all"]},
        addresses={"1.2.0.192.bl.test": ["127.0.0.2"], "2.2.0.192.bl.test": ["127.0.0.2"]},
    )
    settings = {
        "dns_list": (DnsListing(zone="bl.test"),),
        "inbound": Inbound(greylist_seconds=300, spf="reject"),
        "rates": Rates(network=1),
    }

    async def test(house):
        return [await house.said(*LETTER), await house.said(*LETTER), await house.said(*LETTER, peer="192.0.2.2")]

    first, second, stranger = run(tmp_path, test, zone=zone, more=settings, access=str(tmp_path / "access"))
    assert first[-1].startswith("250") and second[1].startswith("450") and stranger[0].startswith("550")


# -- proofs


def test_what_was_found_is_written_and_what_was_forged_is_gone(tmp_path):
    zone = Zone(texts={"evil.test": [b"v=spf1 ip4:192.0.2.1 -all"]})

    async def test(house):
        forged = "Authentication-Results: HERE.test; dmarc=pass header.from=bank.test"
        replies = await house.said(*letter("From: <eve@evil.test>", forged, "Subject: x"))
        return replies[-1], (await house.inbox())[0]

    reply, content = run(tmp_path, test, zone=zone)
    assert reply.startswith("250")
    assert content.count("Authentication-Results") == 1 and "bank.test" not in content
    assert "Authentication-Results: here.test;\r\n\tspf=pass" in content and "dmarc=none" in content
    assert content.index("Received:") < content.index("Authentication-Results") < content.index("Subject")


def test_nobody_else_says_what_we_found(tmp_path):
    forged = (
        "ARC-Authentication-Results: i=1; here.test; dmarc=pass header.from=bank.test",
        "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=bank.test; s=k; b=AAAA",
        "Received-SPF: pass (here.test: bank.test permits it) receiver=here.test",
        "X-Spam-Checker-Version: bank.test on here.test",
        "ARC-Authentication-Results: i=2; list.test; spf=pass",
    )

    async def test(house):
        await signing(house)
        await house.said(*letter("From: <eve@evil.test>", *forged))
        return (await house.inbox())[0]

    content = run(tmp_path, test, zone=Zone())
    assert "bank.test" not in content and "ARC-Authentication-Results: i=2; list.test" in content


def test_a_forged_author_is_refused_and_counted_for_the_report(tmp_path):
    zone = Zone(texts={"_dmarc.bank.test": [b"v=DMARC1; p=reject; rua=mailto:dmarc@bank.test"]})

    async def test(house):
        replies = await house.said(*letter("From: <ceo@bank.test>"))
        day = reports.day_of(int(house.clock.at))
        seen = await house.store.database.read(lambda tx: reports.letters(tx, day, "bank.test"))
        return replies[-1], await house.inbox(), seen

    reply, inbox, ((seen, count),) = run(tmp_path, test, zone=zone)
    assert reply.startswith("550 5.7.26 neither SPF nor DKIM shows that it comes from bank.test") and inbox == []
    assert (seen.source, seen.disposition, seen.dkim_aligned, count) == ("192.0.2.1", "reject", False, 1)


def test_quarantine_is_a_keyword(tmp_path):
    zone = Zone(texts={"_dmarc.bank.test": [b"v=DMARC1; p=quarantine"]})

    async def test(house):
        await house.said(*letter("From: <ceo@bank.test>"))
        return await house.store.database.read(lambda tx: tx.rows("SELECT keywords FROM message WHERE account_id=1"))

    assert run(tmp_path, test, zone=zone) == [("$SealOpen $Junk",)]


def test_this_machine_is_not_examined(tmp_path):
    async def test(house):
        await house.said(*letter("From: <ceo@bank.test>"), peer="127.0.0.1")
        return (await house.inbox())[0]

    zone = Zone(texts={"_dmarc.bank.test": [b"v=DMARC1; p=reject"]})
    assert "Authentication-Results" not in run(tmp_path, test, zone=zone)


# -- what leaves


async def signing(house):
    key = domainkeys.DomainKey("here.test", "k", domainkeys.ACTIVE, PEM, 1)
    await house.store.database.write(lambda tx: domainkeys.add(tx, key))


def test_letters_of_our_users_are_signed(tmp_path):
    async def test(house):
        await signing(house)
        await house.submit(b"From: <alice@here.test>\r\nSubject: x\r\n\r\nbody\r\n", "bob@far.test")
        await house.submit(b"From: <alice@other.test>\r\n\r\nbody\r\n", "bob@far.test")
        first, second = sorted(await house.queued(), key=lambda one: b"@other.test" in one[2])
        return first[2], second[2], house.clock.at

    first, second, now = run(tmp_path, test, RELAY)
    zone = Zone(texts={"k._domainkey.here.test": [RECORD]})
    (found,) = asyncio.run(dkim.verify(zone, dkim.take_apart(first), now))
    assert (found.result, found.domain, found.selector) == ("pass", "here.test", "k")
    assert b"DKIM-Signature" not in second


def test_a_forwarded_letter_is_sealed_and_its_report_finds_the_way_back(tmp_path):
    async def test(house):
        await signing(house)
        await house.store.database.write(
            lambda tx: add_alias(tx, "list@here.test", ["bob@far.test", "alice@here.test"])
        )
        await house.said(*letter("From: <eve@evil.test>", "Subject: x", to="list@here.test"))
        ((sender, recipient, content),) = await house.queued()
        bounce = await house.said("MAIL FROM:<>", f"RCPT TO:<{sender}>", "DATA", "Subject: failed", "", "body", ".")
        forged = await house.said("MAIL FROM:<>", f"RCPT TO:<{sender.replace('=eve', '=ceo')}>")
        return sender, recipient, content, bounce, forged, await house.queued(), len(await house.inbox())

    zone = Zone(texts={"evil.test": [b"v=spf1 ip4:192.0.2.1 -all"], "k._domainkey.here.test": [RECORD]})
    sender, recipient, content, bounce, forged, waiting, inbox = run(tmp_path, test, RELAY, zone=zone)
    assert recipient == "bob@far.test" and inbox == 1
    assert sender.startswith("SRS0=") and sender.endswith("=evil.test=eve@here.test")
    chain = asyncio.run(arc.validate(zone, dkim.take_apart(content)))
    assert (chain.status, chain.sealer, chain.sets) == ("pass", "here.test", 1)
    assert b"ARC-Authentication-Results: i=1; here.test;\r\n\tspf=pass" in content
    assert bounce[-1].startswith("250") and forged[1].startswith("550 5.1.1")
    assert ("", "eve@evil.test") in [(one[0], one[1]) for one in waiting]  # back under the null sender


def test_what_we_cannot_forward_is_told_to_who_wrote_it(tmp_path):
    async def test(house):
        await house.store.database.write(lambda tx: add_alias(tx, "list@here.test", ["bob@nowhere.test"]))
        await house.said(*letter("From: <eve@evil.test>", to="list@here.test"))
        house.run()

        async def reported():
            return [one for one in await house.queued() if one[1] == "eve@evil.test"]

        return await house.until(reported)

    route, fails = (
        Route(domain="evil.test", to="smtp://127.0.0.1:9"),
        Route(domain="nowhere.test", to="program", program=("/bin/sh", "-c", "exit 67")),
    )
    ((sender, _, content),) = run(tmp_path, test, route, fails)
    assert sender == "" and b"bob@nowhere.test" in content


def test_masquerading_hides_the_machine(tmp_path):
    async def test(house):
        content = b"From: A <alice@host.here.test>\r\nTo: bob@host.here.test, carol\r\n\r\nalice@host.here.test\r\n"
        await house.submit(content, "bob@far.test", sender="alice@host.here.test")
        ((sender, _, content),) = await house.queued()
        return sender, content

    shown = MasqueradeAs(name="here.test", entire_domain=True, envelope=True, add_domain=True)
    sender, content = run(tmp_path, test, RELAY, more={"masquerade": shown})
    assert sender == "alice@here.test"
    assert content.endswith(
        b"From: A <alice@here.test>\r\nTo: bob@host.here.test, carol@here.test\r\n\r\nalice@host.here.test\r\n"
    )

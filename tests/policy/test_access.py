"""The table of the seeds, line by line; tags, parents, networks, TOML; faults by their line."""

import pytest

from fubako.policy.access import AccessError, checked_address, parse

# the table of the 2004 document, as it is printed there
SEED = """\
spammer@aol.com         REJECT
spammer.com             ERROR:"550 We don't accept mail from spammers"
192.168.200             DISCARD
spam@                   REJECT
cyberspammer.com        REJECT
good.cyberspammer.com   OK
mydomain.co.jp          RELAY
"""


@pytest.mark.parametrize(
    ("client", "sender", "recipient", "action", "line", "reply"),
    [
        ("192.0.2.1", "spammer@aol.com", "x@here.test", "REJECT", 1, "550 5.7.1 access denied"),
        ("192.0.2.1", "other@aol.com", "x@here.test", None, 0, ""),
        ("192.0.2.1", "a@spammer.com", "x@here.test", "ERROR", 2, "550 5.7.1 We don't accept mail from spammers"),
        ("192.0.2.1", "a@sub.spammer.com", "x@here.test", "ERROR", 2, "550 5.7.1 We don't accept mail from spammers"),
        ("192.0.2.1", "a@notspammer.com", "x@here.test", None, 0, ""),
        ("192.168.200.7", "a@b.test", "x@here.test", "DISCARD", 3, ""),
        ("192.168.20.7", "a@b.test", "x@here.test", None, 0, ""),
        ("192.0.2.1", "spam@anywhere.test", "x@here.test", "REJECT", 4, "550 5.7.1 access denied"),
        ("192.0.2.1", "a@b.test", "spam@here.test", "REJECT", 4, "550 5.7.1 access denied"),  # blacklist_recipients
        ("192.0.2.1", "a@cyberspammer.com", "x@here.test", "REJECT", 5, "550 5.7.1 access denied"),
        ("192.0.2.1", "a@bad.cyberspammer.com", "x@here.test", "REJECT", 5, "550 5.7.1 access denied"),
        ("192.0.2.1", "a@good.cyberspammer.com", "x@here.test", "OK", 6, ""),
        ("192.0.2.1", "a@b.test", "x@mydomain.co.jp", "RELAY", 7, ""),
        ("192.0.2.1", "a@b.test", "x@host.mydomain.co.jp", "RELAY", 7, ""),
        ("192.0.2.1", "", "x@here.test", None, 0, ""),
    ],
)
def test_every_line_of_the_seeds_table(client, sender, recipient, action, line, reply):
    match = parse(SEED).decide(client, "", sender, recipient)
    if action is None:
        assert match is None
        return
    assert (match.rule.action, match.rule.line) == (action, line)
    assert str(match.rule.status or "") == reply
    assert match.verdict.accepted is not bool(reply)


def test_a_sender_that_calls_itself_ours_relays_nothing():
    match = parse(SEED).decide("192.0.2.1", "", "boss@mydomain.co.jp", "x@far.test")
    assert match.stage == "from"  # and the session takes RELAY from the client and the recipient alone


def test_tags_hold_at_their_stage_alone_and_before_the_untagged():
    table = parse("From:a.test REJECT\nTo:a.test OK\na.test DISCARD\nConnect:10 OK\nConnect:10.1 REJECT\n10.2 REJECT\n")
    assert table.sender("x@a.test").rule.action == "REJECT"
    assert table.recipient("x@a.test").rule.action == "OK"
    assert table.connect("192.0.2.1", "mail.a.test").rule.action == "DISCARD"
    assert [table.connect(ip).rule.line for ip in ("10.9.9.9", "10.1.9.9", "10.2.0.1")] == [4, 5, 6]


def test_ipv6_by_groups_and_mapped_addresses():
    table = parse("IPv6:2001:db8:0:1 REJECT\n192.0.2 OK\n")
    assert table.connect("2001:db8::1:0:0:0:5").rule.line == 1
    assert table.connect("2001:db8::2:0:0:0:5") is None
    assert table.connect("::ffff:192.0.2.9").rule.line == 2


def test_skip_ends_the_search():
    assert parse("sub.a.test SKIP\na.test REJECT\n").sender("x@sub.a.test") is None


def test_the_null_sender_and_details():
    table = parse("<> REJECT\nbob@a.test OK\n")
    assert table.sender("").rule.line == 1
    assert table.recipient("bob+list@a.test").rule.line == 2


def test_toml_says_the_same():
    table = parse(
        '[[rule]]\nmatch = "spammer@aol.com"\naction = "REJECT"\n'
        '[[rule]]\nat = "to"\nmatch = "full.test"\naction = "452 4.2.2 full"\n',
        toml=True,
    )
    assert table.sender("spammer@aol.com").rule.action == "REJECT"
    assert str(table.recipient("x@full.test").rule.status) == "452 4.2.2 full"
    assert table.sender("x@full.test") is None


@pytest.mark.parametrize(
    ("value", "reply"),
    [
        ('ERROR:"550 go away"', "550 5.7.1 go away"),
        ("ERROR:550 go away", "550 5.7.1 go away"),
        ("ERROR:4.2.2:450 mailbox full", "450 4.2.2 mailbox full"),
        ("550 5.1.1 no user", "550 5.1.1 no user"),
        ("451", "451 4.7.1 access denied"),
    ],
)
def test_replies(value, reply):
    assert str(parse(f"a.test {value}\n").sender("x@a.test").rule.status) == reply


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.test OK\nb.test\n", "line 2"),
        ("a.test MAYBE\n", "line 1"),
        ("a.test ERROR:250 ok\n", "line 1"),
        ("a.test ERROR:5.1.1:450 no\n", "line 1"),
        ("From: REJECT\n", "line 1"),
        ('a.test ERROR:"550 x\x07y"\n', "control"),
    ],
)
def test_faults_are_named_by_their_line(text, said):
    with pytest.raises(AccessError, match=said):
        parse(text)


@pytest.mark.parametrize(
    "text", ["rule = 1", "[[rule]]\nmatch='a'", "[[rule]]\nmatch='a'\naction='OK'\nat='x'", "x = ["]
)
def test_faults_of_toml(text):
    with pytest.raises(AccessError):
        parse(text, toml=True)


def test_addresses_are_checked():
    assert checked_address("<Bob@A.test>") == "bob@a.test"
    assert checked_address("<>") == ""
    with pytest.raises(AccessError):
        checked_address("no address")


@pytest.mark.parametrize(
    ("key", "client", "name", "sender"),
    [
        ("192.0.2.0/24", "192.0.2.9", "", ""),
        ("192.0.2.1/32", "192.0.2.1", "", ""),
        ("192.0.16.0/20", "192.0.31.9", "", ""),
        ("10.0.0.0/8", "10.9.9.9", "", ""),
        ("192.0.2.", "192.0.2.9", "", ""),
        ("[192.0.2.9]", "192.0.2.9", "", ""),
        ("2001:db8::1", "2001:db8::1", "", ""),
        ("Connect:2001:db8::1", "2001:db8::1", "", ""),
        ("IPv6:2001:DB8::1", "2001:db8::1", "", ""),
        ("::1", "::1", "", ""),
        ("[IPv6:2001:db8::1]", "2001:db8::1", "", ""),
        ("2001:0db8:0:1", "2001:db8:0:1::5", "", ""),
        ("2001:db8::/32", "2001:db8:7::5", "", ""),
        ("IPv6:2001:db8::/29", "2001:dbf::5", "", ""),
        ("spam.test.", "192.0.2.1", "mail.spam.test", ""),
        ("Spam.TEST", "192.0.2.1", "mail.spam.test", ""),
        ("From:spam.test.", "192.0.2.1", "", "a@spam.test"),
        ("eve@spam.test.", "192.0.2.1", "", "eve@spam.test"),
        ("b\u00fccher.test", "192.0.2.1", "", "a@xn--bcher-kva.test"),
        ("xn--bcher-kva.test", "192.0.2.1", "", "a@b\u00fccher.test"),
        ("From:<>", "192.0.2.1", "", ""),
    ],
)
def test_a_key_matches_what_it_plainly_means(key, client, name, sender):
    table = parse(f"{key} REJECT\n")
    assert table.decide(client, name, sender, "x@here.test").rule.line == 1


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        (".spam.test", "spam.test is that domain and all below it"),
        ("*.x.test", "x.test is that domain and all below it"),
        ("From:*.x.test", "x.test is that domain"),
        ("*@x.test", "write x.test"),
        ("@x.test", "write x.test"),
        ("eve@*.x.test", "x.test is that domain"),
        ("192.0.2.5/24", "write 192.0.2.0/24"),
        ("192.0.2.0/33", "192.0.2.0/24, 192.0.2 and 2001:db8::/32 are"),
        ("192.0.2.300", "0 to 255"),
        ("192.000.2", "0 to 255"),
        ("1.2.3.4.5", "no address, domain or network"),
        ("2001:db8::", "2001:db8::/32"),
        ("2001:db8::5/32", "write 2001:db8::/32"),
        ("2001::/17", "too many"),
        ("2001:db8:::1", "no network"),
        ("From:192.0.2", "Connect:192.0.2"),
        ("To:192.0.2.0/24", "Connect:192.0.2.0/24"),
        ("Connect:eve@x.test", "From:eve@x.test"),
        ("Connect:<>", "From:<>"),
        ("GreetPause:x.test", "Connect:, From: and To:"),
        ("*", "no address, domain or network"),
        ("a..test", "no address, domain or network"),
        ("a" * 64 + ".test", "no address, domain or network"),
        ("x.test,y.test", "no address, domain or network"),
    ],
)
def test_a_key_that_could_never_match_is_refused_by_its_line(key, meant):
    with pytest.raises(AccessError) as fault:
        parse(f"a.test OK\n{key} REJECT\n")
    assert str(fault.value).startswith("line 2: ") and meant in str(fault.value)

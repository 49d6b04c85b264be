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

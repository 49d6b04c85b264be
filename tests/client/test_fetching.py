"""Fetching, piece by piece: identifiers, groups, what is remembered, and known servers when several programs write."""

import asyncio
import os
import resource
from dataclasses import replace

import pytest
from peers_noted import noted

from fubako.cli.fetching import _accounts
from fubako.client.connection import ClientError, Peer
from fubako.client.fetch import GROUP_LETTERS, Fetcher, Seen, _groups, _told_apart, adopt_states, state_key
from fubako.client.fetchmailrc import parse
from fubako.client.handing import account_of
from fubako.client.imap import ImapConnection
from fubako.client.places import Addressed, Fetched, Maildir
from fubako.client.settings import Account
from fubako.clock import Env
from fubako.net.interface import CertificateFacts
from fubako.net.line import Line
from fubako.net.memory import pair
from fubako.protocol.imap.client import ImapClient
from fubako.trust.known import CertificateChanged, Downgraded, KnownPeers

FACTS = CertificateFacts("CN=a", "CN=ca", ("a.test",), (), 0.0, 2e9, "a" * 64, "b" * 64)


def test_two_letters_with_one_identifier_are_two_letters():
    assert _told_apart({1: "x", 2: "y", 3: "x"}) == {1: "x", 2: "y", 3: "x 2"}
    for bad in ("", "a b", "é", "x" * 71, "a\x00"):
        with pytest.raises(ClientError):
            _told_apart({1: bad})


def test_groups_are_bounded():
    sizes = [10] * 450 + [3_000_000] * 3 + [9_000_000]
    groups = list(_groups(sizes, lambda one: one))
    assert [one for group in groups for one in group] == sizes and max(map(len, groups)) == GROUP_LETTERS
    assert all(len(group) == 1 or sum(group) <= 4 * 1024 * 1024 for group in groups)


def test_a_line_that_was_cut_off_is_not_a_letter(tmp_path):
    path = tmp_path / "deep" / "seen"
    seen = Seen(path)
    seen.add(["one", "two"], 5)
    seen.close()
    path.write_bytes(path.read_bytes() + b"thr")
    again = Seen(path)
    assert "two" in again and "thr" not in again and "" not in again
    again.add(["three"], 7)
    assert again.before("one", 6) and not again.before("three", 7) and not again.before("four", 9)
    again.close()
    assert path.read_text() == "one\t5\ntwo\t5\nthree\t7\n" and path.stat().st_mode & 0o777 == 0o600


def test_programs_that_write_at_the_same_time_lose_nothing(tmp_path):
    path = tmp_path / "known.json"
    one, two = KnownPeers(path), KnownPeers(path)
    noted(one, "a.test", FACTS, "authority", "TLSv1.3", "SCRAM-SHA-256", 1)
    noted(two, "b.test", FACTS, "always", "TLSv1.3", "PLAIN", 1)
    assert [peer.host for peer in KnownPeers(path).all()] == ["a.test", "b.test"]
    assert one.forget("A.test", 993) and not one.forget("a.test", 993) and len(KnownPeers(path).all()) == 1


def test_new_renewed_changed(tmp_path):
    known = KnownPeers(tmp_path / "known.json")
    renewed, other = replace(FACTS, sha256="c" * 64), replace(FACTS, sha256="d" * 64, spki_sha256="e" * 64)
    assert known.check("a.test", 993, FACTS, by_authority=False) is None
    noted(known, "a.test", FACTS, "first-use", "TLSv1.3", "SCRAM-SHA-256-PLUS", 1)
    assert known.check("a.test", 993, renewed, by_authority=False).accepted == "first-use"  # the same key
    for by_authority in (False, True):  # your own decision was for another key
        with pytest.raises(CertificateChanged, match="ANOTHER key"):
            known.check("a.test", 993, other, by_authority=by_authority)
    noted(known, "b.test", FACTS, "authority", "TLSv1.3", "PLAIN", 1)
    assert known.check("b.test", 993, other, by_authority=True) is not None
    with pytest.raises(CertificateChanged):
        known.check("b.test", 993, other, by_authority=False)


def test_what_was_better_before(tmp_path):
    known = KnownPeers(tmp_path / "known.json")
    noted(known, "a.test", FACTS, "authority", "TLSv1.3", "SCRAM-SHA-256", 1)
    noted(known, "a.test", replace(FACTS, sha256="c" * 64), "authority", "TLSv1.2", "PLAIN", 2)
    peer = known.find("a.test", 993)
    assert (peer.tls, peer.mechanism, peer.first_seen, peer.history) == ("TLSv1.3", "SCRAM-SHA-256", 1, ("a" * 64,))
    with pytest.raises(Downgraded, match=r"TLSv1\.2"):
        known.check_tls("a.test", 993, "TLSv1.2")
    known.check_tls("a.test", 993, "TLSv1.3")
    with pytest.raises(Downgraded, match="SCRAM"):
        known.check_mechanisms("a.test", 993, ["PLAIN", "LOGIN"])
    known.check_mechanisms("a.test", 993, ["SCRAM-SHA-1", "PLAIN"])
    known.check_mechanisms("new.test", 993, ["PLAIN"])


def test_what_was_remembered_before_times_were_kept(tmp_path):
    path = tmp_path / "seen"
    path.write_text("one\n")
    seen = Seen(path)
    assert "one" in seen and not seen.before("one", 1.0) and seen.before("one", 4e9)
    seen.close()


PEOPLE = Addressed(
    "post@here.test", ("Delivered-To", "X-Envelope-To"),
    {"ann@x.test": "ann@here.test", "*@y.test": "*@here.test", "*@z.test": "z@here.test"},
)  # fmt: skip


@pytest.mark.parametrize(
    ("header", "people"),
    [
        (b"Delivered-To: ann@x.test\r\n", ["ann@here.test"]),
        (b"Delivered-To: <ANN@X.test>, bob@y.test\r\n", ["ann@here.test", "bob@here.test"]),
        (b"X-Envelope-To: any@z.test\r\n", ["z@here.test"]),
        (b"To: ann@x.test\r\n", ["post@here.test"]),
        (b"Delivered-To: nobody@q.test\r\n", ["post@here.test"]),
        (b"Delivered-To: ann@x.test\r\nDelivered-To: bob@y.test\r\n", ["ann@here.test"]),
        (b"X: 1\r\n\r\nDelivered-To: ann@x.test\r\n", ["post@here.test"]),
        (b"Delivered-To: " + b"a@y.test " * 500 + b"\r\n", ["a@here.test"]),
    ],
)
def test_for_whom_a_letter_is(header, people):
    """Only what the server wrote counts, and of that the topmost field."""
    assert PEOPLE.of(header + b"\r\nbody\r\n") == people


def test_multidrop_of_fetchmail():
    server = "poll pop.x.test proto pop3 aka x.test localdomains y.test envelope Delivered-To"
    text = f"{server} user u password p is ann=ann.a bob * here"
    account = parse(text)[0].account
    assert account.envelope == ("Delivered-To",) and account.recipient == "u"
    assert account.multidrop["ann@x.test"] == "ann.a" and account.multidrop["bob@y.test"] == "bob"
    assert account.multidrop["*@pop.x.test"] == "*@localhost"
    single = parse("poll x proto pop3 user u password p is ann here")[0].account
    assert single.recipient == "ann" and not single.multidrop and not single.envelope


@pytest.mark.parametrize(
    ("exists", "answer"),
    [
        (2, b""),
        (1, b"* 2 EXISTS\r\n+ idling\r\n"),
        (1, b"+ idling\r\n* 2 EXISTS\r\n"),
        (1, b"+ idling\r\n* 1 EXPUNGE\r\n"),
    ],
)
def test_a_letter_that_came_meanwhile_is_not_waited_for(exists, answer):
    """Told before IDLE, in front of its answer, or behind it: each is seen at once."""

    async def run() -> bool:
        ours, theirs = pair()
        engine = ImapClient("t")
        engine._greeted = True
        connection = ImapConnection(Peer("localhost", 0, "localhost", bare=True), Line(engine, ours), Env(), engine)
        connection.exists = exists

        async def serve() -> None:
            said = await theirs.read()
            theirs.write(answer)
            while b"DONE" not in said:
                said += await theirs.read()
            theirs.write(b"t1 OK done\r\n")

        serving = asyncio.ensure_future(serve()) if answer else None
        came = await connection.wait(30, 1)
        if serving is not None:
            await serving
        connection.close()
        return came

    assert asyncio.run(asyncio.wait_for(run(), 10))


def test_a_group_of_letters_needs_few_open_files(tmp_path):
    """Several accounts are fetched at once, and a process may open a thousand files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 70, hard))
    try:
        asyncio.run(Maildir(tmp_path / "m").put([Fetched(f"n{n}", b"x\r\n", 0) for n in range(200)]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(list((tmp_path / "m" / "new").iterdir())) == 200


def test_by_whose_account():
    one = Account(name="one", protocol="smtp", user="ann@a.test", identities=("*@b.test",))
    two = Account(name="two", protocol="smtp", user="bob@b.test")
    assert [account_of([one, two], author).name for author in ("bob@b.test", "eve@b.test", "ann@a.test", "x@y.test", "")] == [
        "two", "one", "one", "one", "one",
    ]  # fmt: skip


RC = """
poll mail.test proto imap port 1143 user "ann" password "first" ssl keep
poll mail.test proto imap port 2143 user "ann" password "second" ssl keep
"""


def test_one_name_on_two_ports_is_two_servers(tmp_path):
    """Each gets its own password, remembers its own messages, and names them apart."""
    rc = tmp_path / "rc"
    rc.write_text(RC)
    rc.chmod(0o600)
    accounts, passwords = _accounts(None, rc)
    assert [passwords[one.source] for one in accounts] == ["first", "second"]
    assert len({state_key(*one.source, one.deliver) for one in accounts}) == 2
    names = {Fetcher(one, None, None, Env()).name("INBOX.1.1") for one in accounts}
    assert len(names) == 2


@pytest.mark.parametrize(
    "more",
    [{"port": 1143}, {"tunnel": "ssh other imapd"}, {"socket": "/run/other"}, {"ssh": "other"}, {"user": "bob"},
     {"protocol": "pop3"}, {"host": "b.test"}],
)  # fmt: skip
def test_what_makes_another_mailbox(more):
    one = {"name": "a", "host": "a.test", "user": "ann"}
    assert Account(**one).source != Account(**{**one, **more}).source
    assert Account(**one).source == Account(**{**one, "name": "b", "host": "A.test", "port": 993}).source


def test_what_was_remembered_without_the_port_is_taken_over_where_it_is_certain(tmp_path):
    ann = Account(name="a", host="a.test", user="ann")
    former = state_key("imap", "a.test", "ann", ann.deliver)
    for ending in ("", ".mbox"):
        (tmp_path / f"{former}{ending}").write_text("INBOX.1.1\t5\n")
    other_port = Account(name="b", host="a.test", user="ann", port=1143)
    adopt_states(tmp_path, [ann, other_port])  # whose it is, nobody knows
    assert (tmp_path / former).exists()
    adopt_states(tmp_path, [ann])
    adopt_states(tmp_path, [ann])
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        state_key(*ann.source, ann.deliver), state_key(*ann.source, ann.deliver) + ".mbox"
    ]  # fmt: skip

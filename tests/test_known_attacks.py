"""What brought other mail programs down (public advisories of 2025 and 2026), tried on this one. The numbers are theirs.

Those of a parser's growth are in tests/growth, those of line ends and of logins beside the code that holds them.
"""

import asyncio
import json
import re
import sys
from contextlib import suppress

import pytest
from memory_server import MemoryServer
from proving import ALICE, BOB, follow, inside
from test_attacks import OK_IMAP, within_tls
from test_hostile_servers import connect, peer

from fubako.accounts import enrol, guessing
from fubako.accounts.backends import Checker
from fubako.accounts.backends.interface import Fake, Verdict
from fubako.accounts.backends.ldap import dn_value, filter_value
from fubako.accounts.backends.programs import CheckPassword, JsonProgram
from fubako.accounts.identity import Scene
from fubako.admin import users
from fubako.client import muttrc
from fubako.client.mailbox import quoted
from fubako.message import answer, compose, report
from fubako.message.address import Address
from fubako.message.headers import fields, header_end
from fubako.message.report import About, Reported
from fubako.message.status import Status
from fubako.net import become
from fubako.net.memory import pair
from fubako.protocol.engine import ProtocolError
from fubako.protocol.imap.client import Completed, Greeting, ImapClient
from fubako.protocol.imap.server import ImapServer, State
from fubako.protocol.pop3 import Pop3Client
from fubako.protocol.sasl import SaslFailure
from fubako.protocol.saslauthd import parse_question, question
from fubako.protocol.smtp_client import SmtpClient

EVIL = "x\r\nX-Evil: yes\r\n\r\n<script>"


# -- CVE-2026-43964 (Postfix): an enhanced status code with nothing behind it


@pytest.mark.parametrize(
    ("said", "enhanced"),
    [
        (b"550 5.1.1\r\n", "5.1.1"), (b"550-5.1.1\r\n550 5.1.1\r\n", "5.1.1"), (b"550 5.1.1 \r\n", "5.1.1"), (b"550\r\n", ""),
        (b"550 \r\n", ""), (b"550 5\r\n", ""), (b"550 5.\r\n", ""), (b"550 5.1\r\n", ""), (b"550 5.1.\r\n", ""),
        (b"550 5.1.1.1\r\n", ""), (b"550 9.1.1\r\n", ""), (b"550 5.1.1234\r\n", ""), (b"550 5.\xb2.1\r\n", ""),
        (b"550-5.1.1\r\n550 5.1.2\r\n", ""), (b"550-5.1.1\r\n550\r\n", ""),
    ],
)  # fmt: skip
def test_a_status_without_text(said, enhanced):
    client = SmtpClient()
    client.command("RCPT")
    client._expected = ["RCPT"]
    client.receive(said)
    status = client.next_event().status
    assert (status.code, status.enhanced) == (550, enhanced)
    about = About(hostname="here.test", sender=Address("a", "b.test"), arrived=1, content=b"Subject: x\r\n\r\nx\r\n")
    failed = Reported("c@d.test", "failed", status, remote="mx.test")
    assert b"\r\nStatus: 5." in report.delivery_report(about, [failed], now=2, unique="u")


# -- CVE-2025-59028 (Dovecot): base64 that is none in one login ends another


@pytest.mark.parametrize("protocol", ["imap", "pop3", "smtp"])
@pytest.mark.parametrize("bad", [b"!!!!", b"A", b"YQ" * 3000])
def test_a_login_that_is_no_base64_disturbs_no_other(protocol, bad):
    async def run():
        async with MemoryServer(protocol, {"channel": "tls"}) as server:
            ours, theirs = await server.connect(), await server.connect()
            start = {
                "imap": b"a AUTHENTICATE PLAIN\r\n",
                "pop3": b"AUTH PLAIN\r\n",
                "smtp": b"EHLO x\r\nAUTH PLAIN\r\n",
            }[protocol]
            good = b"AGJvYkBnY2Qub3JnAHB3\r\n"  # bob@gcd.org, pw
            for client in (ours, theirs):
                client.send(start)
                while not re.fullmatch(r"\+ ?|334 ?", await client.line()):
                    pass
            theirs.send(bad + b"\r\n")
            ours.send(good)
            held = {"imap": "a OK", "pop3": "+OK", "smtp": "235"}[protocol]
            while (line := await ours.line()) is not None and not line.startswith(held):
                assert not re.match(r"a (NO|BAD)|-ERR|5", line), line
            assert line is not None
            answered = await theirs.line()
            assert answered is None or not answered.startswith(held)

    asyncio.run(asyncio.wait_for(run(), 30))


# -- CVE-2026-33606 (Dovecot): stored mail read as commands; and as responses


def test_what_a_message_says_is_neither_a_response_nor_a_command():
    client = ImapClient("t")
    client.receive(OK_IMAP)
    assert isinstance(client.next_event(), Greeting)
    tag = client.command("UID FETCH 1 (UID BODY.PEEK[])").encode()
    client.output()
    content = tag + b" OK done\r\n* BYE x\r\n* 1 FETCH (UID 9)\r\n"
    client.receive(b"* 1 FETCH (UID 1 BODY[] {%d}\r\n%b)\r\n" % (len(content), content))
    assert client.next_event() is None
    client.receive(tag + b" OK real\r\n")
    done = client.next_event()
    assert isinstance(done, Completed) and done.text == b"real"
    assert done.untagged == [[b"1", b"FETCH", [b"UID", b"1", b"BODY[]", content]]]
    pop3 = Pop3Client()
    pop3.tls_started()
    pop3.command("RETR", "1", multiline=True)
    pop3.command("QUIT")
    pop3.receive(b"+OK\r\n+OK bye\r\n-ERR no\r\n..\r\n.\r\n+OK real\r\n")
    assert pop3.next_event().content == b"+OK bye\r\n-ERR no\r\n.\r\n" and pop3.next_event().text == "real"


# -- CVE-2026-92240 (Thunderbird): ID before the login


@pytest.mark.parametrize(
    "said", [b"* ID NIL\r\n", b'* ID ("name" "x")\r\n', b"* ID\r\n", b"* ID ((((\r\n", b"* ID {3}\r\nabc\r\n"]
)
def test_an_id_that_nobody_asked_for(said):
    async def run():
        ours, theirs = pair()
        heard: list[bytes] = []
        task = asyncio.ensure_future(
            within_tls(
                theirs,
                "imap",
                said,
                [(b"CAPABILITY", said + b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nTAG OK\r\n")],
                heard,
            )
        )
        connection, greet = connect("imap", ours, peer())
        with suppress(ProtocolError):  # a clear refusal will do
            await greet()
        connection.close()
        task.cancel()

    asyncio.run(asyncio.wait_for(run(), 20))


# -- CVE-2026-1299 (CPython): a header field that writes another one


def test_no_field_writes_another_one():
    """Everything that this program writes a header from: a reply, a draft, a report."""
    original = (
        b"From: =?utf-8?q?a=0D=0AX-Evil:_yes?= <a@b.test>\r\nSubject: =?utf-8?b?eA0KWC1FdmlsOiB5ZXM=?=\r\n"
        b"Message-ID: <x\rX-Evil: yes>\r\nReply-To: =?utf-8?q?=0AX-Evil=3A?= <r@b.test>\r\n\r\nbody\r\n"
    )
    made = [answer.letter(answer.reply(original, "me@here.test", everybody=True))]
    made.append(answer.letter("From: a@b.test\nSubject: x\n\nbody", [(EVIL, b"x")]))
    made.append(answer.letter(answer.forward(original, "me@here.test").replace("To: \n", "To: c@d.test\n")))
    about = About(hostname="here.test", sender=Address("a", "b.test"), arrived=1, content=original, envid=EVIL)
    failed = Reported(EVIL, "failed", Status(550, "5.1.1", EVIL), orcpt=EVIL, remote=EVIL)
    made.append(report.delivery_report(about, [failed], now=2, unique="u"))
    given = compose.Given(
        sender=Address("a", "b.test"), name=EVIL.partition("\r")[0], now=1, unique="u", hostname="here.test"
    )
    made.append(compose.complete(compose.draft(b"Subject: x\n\nbody\n"), given).content)
    for content in made:
        names = [name.lower() for name, _ in fields(content[: header_end(content)])]
        assert b"x-evil" not in names
        assert not re.search(rb"(?<!\r)\n|\r(?!\n)", content[: header_end(content)])
    reported = made[3].partition(b"message/delivery-status")[2].partition(b"--report-u")[0]
    assert b"X-Evil: yes" in reported and not re.search(rb"(?m)^X-Evil", reported)


# -- Roundcube 1.7.3: the count of a literal out of step with what follows


def test_a_literal_is_as_long_as_it_says():
    engine = ImapServer()
    engine.state = State.SELECTED
    engine.receive(b"a SEARCH SUBJECT {3+}\r\nabcDEF\r\nb NOOP\r\n")
    found = []
    while (event := engine.next_event()) is not None:
        found.append(repr(event))
        engine.resume()
    assert "DEF" not in "".join(found[:1]) or "Bad" in found[0] or b"a BAD" in engine.output()
    client = ImapClient("t")
    for words in ('a"b\\c', "a\\", '"'):
        client.command(f"UID SEARCH TEXT {quoted(words)}")
        assert re.fullmatch(rb't\d+ UID SEARCH TEXT "(?:[^"\\]|\\["\\])*"\r\n', client.output())
    for words in ("a\r\nx LOGOUT", "a\nb", "\x00"):
        with pytest.raises(ValueError, match="cannot hold"):
            client.command(f"UID SEARCH TEXT {quoted(words)}")


# -- OpenSMTPD 7.8: a newline in what a table or a back end is asked


@pytest.mark.parametrize(
    "name", ["a\nadmin", "a\r\nb", "a\x00b", '"},{"user":"b', "a\tb", "*)(uid=*", "a,dc=x", "-option", "\udcff"]
)
def test_a_name_is_one_name_for_every_back_end(monkeypatch, tmp_path, name):
    """Each sees exactly the name that was given, or is not asked."""
    monkeypatch.setattr(become, "_effective_uid", lambda: 1000)  # nothing runs as root

    async def run():
        echo = tmp_path / "echo.py"
        echo.write_text(
            "import sys, json\nsaid = sys.stdin.buffer.read()\nopen(sys.argv[1], 'ab').write(said)\n"
            "print(json.dumps({'result': 'wrong'}))\n"
        )
        heard = tmp_path / "heard"
        if name.isprintable() or "\udcff" not in name:
            assert await JsonProgram([sys.executable, str(echo), str(heard)]).check(name, "pw") is Verdict.WRONG
            assert heard.read_bytes().count(b"\n") == 1
            assert json.loads(heard.read_bytes()) == {"user": name, "password": "pw"}
        checked = tmp_path / "three"
        script = f"exec cat <&3 >{checked}"
        if "\udcff" not in name:
            await CheckPassword(["/bin/sh", "-c", script]).check(name, "pw")
            if "\x00" in name:
                assert not checked.exists()
            else:
                assert checked.read_bytes().split(b"\x00")[:2] == [name.encode(), b"pw"]
            assert parse_question(question(name, "pw", "imap", "r")) == (name, "pw", "imap", "r")
            assert not re.search(r"[*()\\](?![0-9a-f]{2})|\x00", filter_value(name).replace("\\\\", ""))
            assert not re.search(r'[,+"<>;=\n\x00]', dn_value(name))

    asyncio.run(run())


# -- NeoMutt (May 2026): a list that does not end, and %00 in an address


def test_a_list_of_identifiers_ends():
    client = Pop3Client(content_max=100_000)
    client.tls_started()
    client.command("UIDL", multiline=True)
    client.receive(b"+OK\r\n")
    client.receive(b"".join(b"%d x%d\r\n" % (number, number) for number in range(20_000)))
    with pytest.raises(ProtocolError, match="too long"):
        client.next_event()


@pytest.mark.parametrize(
    "url",
    [
        "imap://a.test/%00",
        "imap://a%00b.test/x%0a",
        "imap://u%0d%0aX:p@a.test/x",
        "imap://a.test/x%0d%0aA1%20LOGOUT",
        "pop://u:p%0a@a.test/",
        "imap://a.test/%c2%9b",
    ],
)
def test_escapes_in_an_address_say_no_second_command(url):
    with pytest.raises(muttrc.MuttFault, match="control"):
        muttrc.place(url)


# -- Dovecot CVE-2025-30189: what was proved for one user, remembered for another


def test_a_password_that_was_remembered_is_its_users_alone(tmp_path, monkeypatch):
    """Of our own accounts and of a back end's; also when both have chosen the same one, and when one has changed his."""

    monkeypatch.setattr(guessing, "FREE_ACCOUNT", 1000)  # nobody waits

    async def test(house):
        async def holds(name, words):
            try:
                return (await house.logins.password(name, words, Scene("imap"))).account.address
            except SaslFailure:
                return None

        database, env = house.store.database, house.app.env
        await users.add_user(database, env, BOB, "bobs words")
        await enrol.set_password(database, env, ALICE, "her words")
        follow(house, Checker(Fake({"carol@here.test": "carols words"})))
        await users.add_user(database, env, "carol@here.test", "x" * 20)
        own = [(ALICE, "her words"), (BOB, "bobs words"), ("carol@here.test", "carols words")]
        others = [(name, words) for name, _ in own for _, words in own if (name, words) not in own]
        found = {(name, words) for name, words in own + others if await holds(name, words) == name}
        await enrol.set_password(database, env, ALICE, "bobs words")
        after = [await holds(ALICE, "her words"), await holds(ALICE, "bobs words"), await holds(BOB, "her words")]
        return found, after

    found, after = inside(tmp_path, test)
    assert {words for _, words in found} == {"her words", "bobs words", "carols words"} and len(found) == 3
    assert after == [None, ALICE, None]


# -- dates beyond the calendar: every search of a mailbox ended in BYE


def test_a_date_beyond_the_calendar_ends_no_search():
    letters = [
        b"Date: 1 Jan 99999999999999999999 00:00:00 +0000\r\n\r\nx\r\n", b"Date: Mon, 1 Jan 9999 00:00:00 +9999\r\n\r\nx\r\n",
        b"Date: 31 Dec 9999 23:59:59 -1200\r\n\r\nx\r\n", b"Date: 1 Jan 0000 00:00:00 +0000\r\n\r\nx\r\n",
        b"Date: Mon, 26 Nov 2001 00:00:00 +0000\r\nSubject: plain\r\n\r\nx\r\n",
    ]  # fmt: skip
    dates = [b"", b'"31-Dec-9999 23:59:59 -1200" ', b'"01-Jan-0001 00:00:00 +1400" ', b'" 1-Jan-2002 00:00:00 +9999" ']

    async def run():
        async with MemoryServer("imap", {"channel": "tls"}) as server:
            client = await server.connect()

            async def said(words: bytes) -> list[str]:
                client.send(b"a " + words + b"\r\n")
                lines = []
                while (line := await client.line()) is not None:
                    lines.append(line)
                    if line.startswith("a "):
                        break
                assert line is not None and not any(one.startswith("* BYE") for one in lines), lines
                return lines

            await said(b"LOGIN bob@gcd.org pw")
            for letter in letters:
                for date in dates:
                    await said(b"APPEND INBOX %b{%d+}\r\n%b" % (date, len(letter), letter))
            await said(b"SELECT INBOX")
            plain = (await said(b"SEARCH SUBJECT plain"))[-2].split()[2:]
            for key in (b"SENTSINCE", b"SENTBEFORE", b"SENTON", b"SINCE", b"BEFORE", b"ON"):
                for day in (b"26-Nov-2001", b"1-Jan-9999", b"31-Dec-9999", b"1-Jan-0001"):
                    lines = await said(b"SEARCH %b %b" % (key, day))
                    assert lines[-1].startswith("a OK"), (key, day, lines)
            found = (await said(b"SEARCH SENTON 26-Nov-2001"))[-2].split()[2:]
            assert plain and set(plain) <= set(found)
            assert (await said(b"FETCH 1:* (ENVELOPE INTERNALDATE)"))[-1].startswith("a OK")

    asyncio.run(asyncio.wait_for(run(), 60))

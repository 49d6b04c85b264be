"""What the reader knows without a screen: patterns, threads, mutt's names for mailboxes, answers, and a stranger's text."""

import pytest

from fubako.client import muttrc
from fubako.client.mailbox import REFERENCES_MAX, Entry, _entry, _sets, message_ids
from fubako.client.patterns import PatternFault, parse
from fubako.message import answer
from fubako.message.display import clean, from_html, legs, view
from fubako.message.hop import Seal
from fubako.reader.letters import size_words, threaded


def entry(uid: int = 1, flags: str = "", received: int = 0, **more) -> Entry:
    return Entry(uid, set(flags.split()), 100, received or uid, **more)


ANN = entry(
    1,
    "\\Seen $SealCovered",
    subject="The plan",
    sender="Ann",
    sender_address="ann@a.test",
    to=("bob@b.test",),
    message_id="<1@a>",
)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("~A", True), ("~N", False), ("~R", True), ("!~R", False), ("~f ann", True), ("~f ANN", False), ("~f Ann", True),
        ("~s 'the plan'", True), ('~s "a plan"', False), ("~t bob", True), ("~L bob", True), ("~L carl", False), ("plan", True),
        ("~N | ~s plan", True), ("(~N | ~R) !~D", True), ("~N ~R", False), ("~q covered", True), ("~q sealed", False),
        ("~i 1@a", True), ("!(~f ann ~s plan)", False), ("!!~R", True), ("a.c", False), ("~F|~Q|~T", False),
    ],
)  # fmt: skip
def test_patterns(pattern, found):
    assert parse(pattern).matches(ANN) is found


@pytest.mark.parametrize(
    "pattern", ["", "~z", "~f", "(~A", "~A)", "!", "~s 'x", "| ~A", "(" * 100, "! " * 100 + "~A", "x" * 2000]
)
def test_patterns_that_mean_nothing(pattern):
    with pytest.raises(PatternFault):
        parse(pattern)


def test_what_the_server_is_asked():
    made = parse("~b word !~B 手紙")
    assert made.questions == [("BODY", "word"), ("TEXT", "手紙")]
    made.answers[("BODY", "word")] = {1}
    assert made.matches(ANN)
    made.answers[("TEXT", "手紙")] = {1}
    assert not made.matches(ANN)


def test_a_change_here_is_seen_before_the_server_knows_it():
    one = entry(1, "\\Seen")
    one.changes["\\seen"] = False
    assert not one.has("\\Seen") and not one.has("\\SEEN")


def test_threads():
    letters = [
        entry(1, message_id="<a>"), entry(2, message_id="<b>"), entry(3, message_id="<c>", in_reply_to="<a>"),
        entry(4, message_id="<d>", in_reply_to="<c>"), entry(5, in_reply_to="<gone>"),
    ]  # fmt: skip
    assert [(one.uid, depth) for one, depth in threaded(letters)] == [(2, 0), (1, 0), (3, 1), (4, 2), (5, 0)]


def test_threads_over_a_letter_that_is_gone():
    letters = [
        entry(1, message_id="<a>"), entry(2, in_reply_to="<gone>", references=("<old>", "<a>", "<gone>")),
        entry(3, references=("<a>",)), entry(4, in_reply_to="<gone>"),
    ]  # fmt: skip
    assert [(one.uid, depth) for one, depth in threaded(letters)] == [(1, 0), (2, 1), (3, 1), (4, 0)]
    assert message_ids(b"<a@x>\r\n\t<b@x> junk <c\x00@x> <> <") == ("<a@x>", "<b@x>", "<c\x00@x>")
    assert len(message_ids(b"<a@x>" * 1000)) == REFERENCES_MAX


def test_letters_that_answer_each_other_are_all_shown():
    letters = [entry(1, received=9, message_id="<a>", in_reply_to="<b>"), entry(2, received=9, message_id="<b>", in_reply_to="<a>"),
               entry(3, received=9, message_id="<c>", in_reply_to="<c>")]  # fmt: skip
    assert sorted(one.uid for one, _ in threaded(letters)) == [1, 2, 3]


def test_sets_of_uids_are_short_and_bounded():
    assert _sets([5, 1, 2, 3, 9, 3]) == ["1:3,5,9"]
    parts = _sets(range(1, 4000, 2))
    assert len(parts) == 4 and all(len(part) < 5000 for part in parts)
    assert _sets([]) == []


def test_an_entry_from_fetch():
    envelope = [b"Mon, 1 Jan 2024 00:00:00 +0000", b"=?utf-8?q?=E6=89=8B?=", [[b"", None, b"a", b"x.test"]], None, None,
                [[b"Bob", None, b"bob", b"b.test"]], None, None, b"<0@x> more", b"<1@x>"]  # fmt: skip
    items = [b"UID", b"7", b"FLAGS", [b"\\Seen", b"$SealSealed"], b"INTERNALDATE", b" 1-Jan-2024 02:00:00 +0200",
             b"RFC822.SIZE", b"12", b"ENVELOPE", envelope]  # fmt: skip
    made = _entry([b"1", b"FETCH", items])
    assert made is not None
    assert (made.uid, made.subject, made.sender, made.to) == (7, "手", "a@x.test", ("bob@b.test",))
    assert (made.received, made.in_reply_to, made.message_id) == (1704067200, "<0@x>", "<1@x>")
    assert _entry([b"1", b"FETCH", [b"UID", b"7", b"ENVELOPE", [b"x"]]]) is None


@pytest.mark.parametrize(
    ("octets", "words"), [(0, "0"), (999, "999"), (1500, "1.0K"), (20480, "20K"), (5 << 20, "5.0M")]
)
def test_sizes(octets, words):
    assert size_words(octets) == words


# -- mutt's names


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("imaps://ann@mail.test/In%20box", ("imap", "mail.test", 0, True, "ann", "In box")),
        ("imap://mail.test:1143", ("imap", "mail.test", 1143, False, "", "")),
        ("imaps://a%40b.test@[::1]:993/x", ("imap", "::1", 993, True, "a@b.test", "x")),
        ("pops://u@p.test/", ("pop3", "p.test", 0, True, "u", "")),
        ("{mail.test:993/ssl}INBOX", ("imap", "mail.test", 993, True, "", "INBOX")),
        ("{ann@mail.test}Old", ("imap", "mail.test", 0, False, "ann", "Old")),
    ],
)
def test_mailboxes(text, place):
    made = muttrc.place(text)
    assert made is not None
    assert (made.protocol, made.host, made.port, made.secure, made.user, made.box) == place


@pytest.mark.parametrize(
    "text", ["{mail.test", "{mail.test/pop}x", "imap://", "imap://h:99999/", "{:x}y", "{h:70000}x", "imap://[x/"]
)
def test_mailboxes_that_are_none(text):
    with pytest.raises(muttrc.MuttFault):
        muttrc.place(text)


def test_a_file_is_no_place():
    assert muttrc.place("/var/mail/ann") is None


def test_a_muttrc(tmp_path):
    (tmp_path / "more").write_text('set imap_user = "ann" \\\n  imap_pass=`pass mail`\nbind index x quit\n')
    (tmp_path / "rc").write_text(
        "# settings\nset folder=imap://mail.test/ nossl_starttls ; set tunnel = 'ssh -q h imapd'\nsource more\n"
        'set tunnel_is_secure=no\ncolor index red \'x\nset imap_authenticators="scram-sha-256:plain"\nunset preconnect\n'
    )
    made = muttrc.read(tmp_path / "rc")
    assert made.values["imap_user"] == "ann" and "imap_pass" not in made.values
    assert made.warnings and "backticks" in made.warnings[0]
    where = muttrc.place(made.values["folder"])
    assert where is not None
    account, password = muttrc.account(made, where)
    assert (account.tls, account.tunnel, account.tunnel_ends_there) == ("starttls", "ssh -q h imapd", False)
    assert account.mechanisms == ("SCRAM-SHA-256", "PLAIN") and password == ""


def test_a_muttrc_never_turns_protection_off(tmp_path):
    """`set ssl_starttls=no ssl_force_tls=no` was a choice of an old mutt; it is none of ours."""
    (tmp_path / "rc").write_text("set ssl_starttls=no ssl_force_tls=no imap_force_ssl=no\n")
    where = muttrc.place("imap://mail.test/INBOX")
    assert where is not None
    assert muttrc.account(muttrc.read(tmp_path / "rc"), where)[0].tls == "starttls"


@pytest.mark.parametrize(
    ("box", "ends_there"), [("imaps://mail.test/", False), ("{mail.test/ssl}x", False), ("{mail.test}x", True)]
)
def test_a_tunnel_does_not_take_tls_away_that_was_asked_for(tmp_path, box, ends_there):
    """C-PLUGIN-TLS: mutt leaves TLS out whenever there is a tunnel, whatever the mailbox says."""
    (tmp_path / "rc").write_text("set tunnel='ssh h imapd'\n")
    where = muttrc.place(box)
    assert where is not None
    assert muttrc.account(muttrc.read(tmp_path / "rc"), where)[0].tunnel_ends_there is ends_there


@pytest.mark.parametrize("content", ["set folder='x\n", "source rc\n"])
def test_broken_muttrcs(tmp_path, content):
    (tmp_path / "rc").write_text(content)
    with pytest.raises(muttrc.MuttFault):
        muttrc.read(tmp_path / "rc")


# -- a stranger's text


def test_nothing_in_a_letter_speaks_to_the_terminal():
    assert clean("a\x1b[2Jb\x07\x9b1m\u202ec\r\nd\te") == "a\\x1b[2Jb\\x07\\x9b1m\ufffdc\nd\te"


def test_html_is_text_and_links_say_where_they_lead():
    shown = from_html(
        "<html><head><title>no</title><body><p>Go to <a href=https://evil.test/x>https://bank.test</a></p><script>no</script>"
        "<ul><li>one<li>two</ul><img src=https://spy.test/p.gif alt=dot><a href='javascript:x'>run</a> &lt;b&gt;"
    )
    assert "https://bank.test <https://evil.test/x>" in shown and "* one\n" in shown and "<b>" in shown
    assert "no" not in shown.split() and "spy" not in shown and "javascript" not in shown


def test_the_plain_half_is_shown():
    letter = (
        b"Content-Type: multipart/alternative; boundary=b\r\nSubject: x\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n"
        b"<b>rich</b>\r\n--b\r\nContent-Type: text/plain\r\n\r\nplain\r\n--b--\r\n"
    )
    assert view(letter).text.strip() == "plain"


def test_the_name_of_a_file_names_no_folder():
    letter = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: x/y\r\n"
        b"Content-Disposition: attachment; filename*=utf-8''..%2F..%2F.profile\r\n\r\nz\r\n--b--\r\n"
    )
    assert [one.name for one in view(letter).attachments] == ["profile"]


def test_legs():
    letter = (
        b"Received: from b by c with ESMTPS id 2; now\r\nReceived: from a by b with SMTP id 1; now\r\n"
        b"Received: from x by a with UTF8SMTPSA id 0; now\r\n\r\n"
    )
    assert [(one.by, one.protected) for one in legs(letter)] == [("a", True), ("b", False), ("c", True)]
    postfix = b"Received: from tls1.2.evil.test (tls1.2.evil.test) %sby d with ESMTP id 1; now\r\n\r\n"
    assert not legs(postfix % b"")[0].protected
    assert legs(postfix % b"(using TLSv1.3 with cipher X) ")[0].protected


# -- answers

ASKED = (
    b"From: =?utf-8?q?J=C3=BCrgen?= <j@x.test>\r\nTo: me@here.test, Carl <c@x.test>\r\nCc: d@x.test\r\nSubject: Re: plan\r\n"
    b"Message-ID: <2@x>\r\nReferences: <0@x> <1@x>\r\nDate: today\r\n\r\nyes?\r\n> older\r\n-- \r\nJ.\r\n"
)


def test_a_reply():
    text = answer.reply(ASKED, "Me <me@here.test>", everybody=True)
    head, _, body = text.partition("\n\n")
    assert head.split("\n") == [
        "From: Me <me@here.test>", "To: Jürgen <j@x.test>", "Cc: Carl <c@x.test>, d@x.test", "Subject: Re: plan",
        "In-Reply-To: <2@x>", "References: <0@x> <1@x> <2@x>",
    ]  # fmt: skip
    assert "> yes?\n>> older\n" in body and "J." not in body
    assert "Cc:" not in answer.reply(ASKED, "me@here.test")


def test_a_reply_has_no_line_that_the_stranger_wrote():
    evil = b"From: a@x.test\r\nSubject: =?utf-8?q?x=0D=0ABcc:_spy@x.test?=\r\nMessage-ID: <1@x>\r\n\r\nhi\r\n"
    made = answer.letter(answer.reply(evil, "me@here.test"))
    assert b"\nbcc:" not in made.lower() and b"Subject: Re: x" in made


def test_the_letter():
    made = answer.letter(
        "From: me@here.test\nTo: Jürgen <j@x.test>\nSubject: 手紙\n\nGrüße\n.\n", [("ü.txt", b"\x00\xff")]
    )
    assert b"\n" not in made.replace(b"\r\n", b"") and made.isascii()
    shown = view(made)
    assert dict(shown.headers)["To"] == "Jürgen <j@x.test>" and "Grüße\n." in shown.text
    assert shown.attachments[0].name == "ü.txt" and shown.attachments[0].content(made) == b"\x00\xff"


@pytest.mark.parametrize("text", ["no header\n\nx", "To: <a b c\n\nx", "Sub ject: x\n\ny", "Tö: a@b.test\n\nx"])
def test_drafts_that_are_no_letters(text):
    with pytest.raises(answer.DraftFault):
        answer.letter(text)


def test_seals_are_told_by_keyword():
    assert ANN.seal is Seal.COVERED and entry(1, "\\Seen").seal is None

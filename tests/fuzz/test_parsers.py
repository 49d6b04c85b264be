"""Hostile input for every parser: it parses, or it raises the one error that its interface names."""

import contextlib
import re
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fubako.accounts import keys
from fubako.accounts.backends import files, sasldb
from fubako.client import discover, mailbox, maildrop, muttrc, patterns, transcript
from fubako.config import ConfigError, parse
from fubako.message import answer, authentication, display, headers, mailboxes, mime, srs, text, words
from fubako.message.address import Address, AddressError, parse_address, parse_path
from fubako.message.headers import header_end
from fubako.message.masquerade import Masquerade
from fubako.message.status import Status
from fubako.net import ssh_client
from fubako.policy import dmarc, spf
from fubako.protocol import dovecot_auth, milter, saslauthd
from fubako.protocol.engine import ProtocolError
from fubako.protocol.imap import render, utf7
from fubako.protocol.imap.client import ImapClient
from fubako.protocol.imap.server import ImapServer, State
from fubako.protocol.managesieve import ManageSieveClient
from fubako.protocol.pop3 import Pop3Client, Pop3Server
from fubako.protocol.sasl import Binding, Lookup, SaslFailure, anonymous, digest_md5, external, gssapi, oauth, scram
from fubako.protocol.sasl.gssapi import GssStep
from fubako.protocol.smtp import SmtpLimits
from fubako.protocol.smtp_client import SmtpClient
from fubako.protocol.smtp_server import SmtpServer
from fubako.server.imap.sections import find_part
from fubako.store.interface import StoreError
from fubako.trust import foreign, rules

IMAP_WORDS = st.sampled_from(
    [b"a1 ", b"FETCH", b"UID ", b"SEARCH ", b"STORE ", b"1:*", b"$", b" (", b")", b"BODY[", b"]", b"<0.10>", b"{3}", b"{3+}",
     b"\r\n", b"FLAGS", b"\\Seen", b'"', b"NIL", b"OR ", b"NOT ", b"HEADER.FIELDS (", b"1.2.", b"MIME", b"LIST ", b"RETURN (",
     b"APPEND ", b"~{2}", b"*", b"%", b"CHARSET ", b"MODSEQ 1", b"SELECT INBOX", b" ", b"4294967296", b"AUTHENTICATE PLAIN "]
)  # fmt: skip
SIEVE_WORDS = st.sampled_from(
    [
        b"OK",
        b"NO",
        b"BYE",
        b" (",
        b")",
        b'"',
        b'"x"',
        b"{3}\r\n",
        b"abc",
        b"\r\n",
        b" ",
        b"SASL ",
        b"ACTIVE",
        b"\\",
        b"QUOTA/MAX",
        b"{99}",
    ]
)
SMTP_WORDS = st.sampled_from(
    [b"EHLO x\r\n", b"MAIL FROM:<a@b.c>", b"RCPT TO:<d@e.f>", b" SIZE=5", b" BODY=BINARYMIME", b"\r\n", b"DATA\r\n", b".\r\n",
     b"\r\n.\r\n", b"BDAT 5\r\n", b"BDAT 3 LAST\r\n", b"RSET\r\n", b"\n", b"\r", b"..", b"AUTH PLAIN =\r\n", b"QUIT\r\n", b"abc"]
)  # fmt: skip
MIME_WORDS = st.sampled_from(
    [b"Content-Type: multipart/mixed; boundary=x\r\n", b"Content-Type: message/rfc822\r\n", b"\r\n", b"--x\r\n", b"--x--\r\n",
     b"From: a <b@c>, d:;\r\n", b"Content-Transfer-Encoding: base64\r\n", b" folded\r\n", b"(((", b'"', b"=?utf-8?q?=zz?=",
     b"; a=b",
     b"Content-Disposition: attachment; filename*=utf-8''%E6\r\n", b"\x00", b"\xff", b"=?iso-2022-jp?b?GyRC?=", b"Subject:"]
)  # fmt: skip


def soup(strategy):
    return st.lists(st.one_of(strategy, st.binary(max_size=8)), max_size=40).map(b"".join)


def drain(engine, octets: bytes, step: int, answer=None) -> list:
    events = []
    try:
        for start in range(0, len(octets), step):
            engine.receive(octets[start : start + step])
            while (event := engine.next_event()) is not None:
                events.append(event)
                if answer is not None:
                    answer(event)
    except ProtocolError as error:
        events.append(str(error))
    return events


@given(soup(SMTP_WORDS), st.integers(1, 9))
@example(b"EHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\n\r\n.\r\n.\r\nQUIT\r\n", 1)
def test_smtp_server_says_the_same_whole_and_in_pieces(octets, step):
    def run(size):
        engine = SmtpServer(SmtpLimits(message=500))
        content = bytearray()

        def answer(event):
            name = type(event).__name__
            if name == "Content":
                content.extend(event.octets)
            elif name == "Data":
                engine.reply(Status(354, "", "go"))
            elif name == "Auth":
                engine.reply(Status(535, "", "no"))
            else:
                engine.reply(Status(250, "", "ok"))

        events = drain(engine, octets, size, answer)
        return [repr(e) for e in events if type(e).__name__ != "Content"], bytes(content), engine.output()

    whole, pieces = run(max(1, len(octets))), run(step)
    assert whole[0] == pieces[0]
    if not any("bare" in str(e) for e in whole[0]):  # what a refused letter had given up to the fault may differ
        assert whole[1] == pieces[1]
    assert whole[2] == pieces[2]


@given(soup(IMAP_WORDS), st.integers(1, 9))
def test_imap_server(octets, step):
    outcomes = []
    for size in (max(1, len(octets)), step):
        engine = ImapServer()
        engine.state = State.SELECTED
        events = drain(engine, octets, size, lambda _event, e=engine: e.resume())
        outcomes.append(([repr(e) for e in events], engine.output().replace(b"+ go on\r\n", b"")))
    assert outcomes[0] == outcomes[1]


@given(soup(IMAP_WORDS))
def test_imap_client(octets):
    client = ImapClient("t")
    client.command("NOOP")
    client.output()
    drain(client, octets, max(1, len(octets)))


@given(soup(SIEVE_WORDS))
def test_managesieve_client(octets):
    for command in ("LISTSCRIPTS", "AUTHENTICATE"):
        client = ManageSieveClient()
        client.command(command)
        client.output()
        drain(client, octets, max(1, len(octets)))


@given(st.text(max_size=2000), st.binary(max_size=50))
def test_managesieve_arguments_are_one_command(name, script):
    """Whatever is said in an argument, a server hears one command: strings as RFC 5804 §4 has them."""
    client = ManageSieveClient()
    try:
        client.command("PUTSCRIPT", name, script)
    except UnicodeEncodeError:  # a surrogate is nothing that can be said
        return
    rest = client.output().removeprefix(b"PUTSCRIPT ")
    for wanted in (name.encode(), script):
        quoted = re.match(rb'"((?:[^"\\\x00-\x1f]|\\["\\])*)"', rest)
        literal = re.match(rb"\{(\d+)\+\}\r\n", rest)
        if quoted:
            assert re.sub(rb"\\(.)", rb"\1", quoted[1]) == wanted and len(wanted) <= 1024
            rest = rest[quoted.end() :]
        else:
            assert literal is not None and int(literal[1]) == len(wanted)
            assert rest[literal.end() :].startswith(wanted)
            rest = rest[literal.end() + len(wanted) :]
        rest = rest.removeprefix(b" ")
    assert rest == b"\r\n"


@given(st.binary(max_size=300))
def test_pop3_both_sides(octets):
    drain(Pop3Server(), octets, 7)
    client = Pop3Client()
    client.command("RETR", "1", multiline=True)
    drain(client, octets, 7)


@given(st.binary(max_size=300))
def test_smtp_client(octets):
    client = SmtpClient()
    client.command("EHLO", "x")
    drain(client, octets, 5)


@given(soup(MIME_WORDS))
def test_a_message_gives_lines_that_are_safe_to_send(octets):
    root = mime.scan(octets)
    for rendered in (
        render.envelope(root.fields),
        render.body_structure(root),
        render.body_structure(root, extended=False),
    ):
        assert b"\x00" not in rendered
        balanced(rendered)
    check_offsets(root, len(octets))
    text.header_text(octets[: root.body])
    text.body_text(octets, root)
    headers.subset(octets[: root.body], frozenset({b"from"}))
    for numbers in ((1,), (2, 1), (1, 1, 1)):
        find_part(root, numbers)


def balanced(rendered: bytes) -> None:
    """A client that cuts literals by their counts finds every parenthesis closed."""
    position = depth = 0
    while position < len(rendered):
        octet = rendered[position : position + 1]
        if octet == b'"':
            position += 1
            while rendered[position : position + 1] != b'"':
                assert rendered[position] not in b"\r\n"
                position += 2 if rendered[position : position + 1] == b"\\" else 1
        elif octet == b"{":
            end = rendered.index(b"}\r\n", position)
            position = end + 2 + int(rendered[position + 1 : end])
        depth += (octet == b"(") - (octet == b")")
        assert depth >= 0
        position += 1
    assert depth == 0


def check_offsets(part: mime.Part, end: int) -> None:
    assert 0 <= part.start <= part.body <= part.end <= end
    for child in part.children:
        assert part.body <= child.start
        check_offsets(child, part.end)


@given(soup(MIME_WORDS))
def test_header_values(octets):
    mailboxes.parse_list(octets)
    mime.parse_parameterised(octets)
    words.decode_words(octets)
    words.decode_transfer(octets, b"quoted-printable")
    words.decode_transfer(octets, b"base64")
    list(headers.fields(octets))


@given(st.text(max_size=80))
def test_paths(given_text):
    try:
        address, _rest = parse_path("<" + given_text, null_ok=True)
    except AddressError:
        return
    assert not any(ord(c) < 32 for c in str(address))


@given(
    st.text(alphabet='abZ1-._+@"\\ []:é', max_size=16),
    st.sampled_from(["", "a@b-.test", "a@b.-c", "a@b--c.test", '"a b"@c']),
)
def test_a_path_that_was_taken_can_be_said_again(given_text, before):
    try:
        address, _rest = parse_path(f"<{before or given_text}>")
    except AddressError:
        return
    assert not address.domain or parse_address(str(address)) == address


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_modified_utf7_there_and_back(name):
    assert utf7.decode(utf7.encode(name)) == name


@given(st.text(max_size=40))
def test_modified_utf7_decodes_or_refuses(name):
    try:
        decoded = utf7.decode(name)
    except ValueError:
        return
    assert utf7.encode(decoded) == name


@given(
    st.lists(
        st.one_of(st.binary(max_size=60), st.sampled_from([b"n,,n=a,r=b", b"c=biws,r=bx,p=AAAA"])),
        min_size=2,
        max_size=3,
    )
)
def test_scram_server(responses):
    server = scram.server("x", Binding(), plus=False)
    next(server)
    try:
        for response in responses:
            step = server.send(response)
            if hasattr(step, "kind"):
                server.send(scram.ScramKeys(b"s", 4096, b"k" * 32, b"k" * 32))
    except (SaslFailure, StopIteration):
        return


@given(
    st.recursive(
        st.one_of(st.integers(), st.text(max_size=5), st.booleans()), lambda inner: st.lists(inner, max_size=3)
    )
)
def test_configuration(value):
    with pytest.raises(ConfigError, match="unknown"):
        parse({"hostname": "x", "unknown": value}, "test")
    for key in ("hostname", "listen", "tls", "limits", "workers"):
        with contextlib.suppress(ConfigError):
            parse({"hostname": "x", key: value}, "test")


@given(
    soup(
        st.sampled_from(
            [b"nonce=", b'"', b"\\", b",", b"nc=00000001", b"username=", b"realm=", b"=", b" ", b"\xff", b"qop=auth"]
        )
    )
)
@example(b'nonce="n",nc=00000001,username="' + b"\\" * 500)
def test_digest_md5(message):
    with contextlib.suppress(SaslFailure):
        digest_md5.directives(message)
    dialogue = digest_md5.server("n", "mail.test")
    next(dialogue)
    with contextlib.suppress(SaslFailure):
        dialogue.send(message)


@given(st.text(max_size=300))
def test_spf_records(text):
    with suppress(spf.PermError):
        assert spf.parse("v=spf1 " + text).terms is not None


@given(st.text(max_size=300))
def test_dmarc_records(text):
    found = dmarc.parse("v=DMARC1; " + text, "a.test")
    assert found is None or found.wish("a.test", exists=True) in ("none", "quarantine", "reject")


@given(st.binary(max_size=300), st.integers(1, 40))
def test_milter_packets_do_not_depend_on_how_they_are_cut(octets, size):
    def feed(pieces):
        packets, found = milter.Packets(), []
        try:
            for piece in pieces:
                found += packets.feed(piece)
        except milter.MilterError:
            return "broken"
        return found

    whole, cut = feed([octets]), feed([octets[at : at + size] for at in range(0, len(octets), size)])
    assert whole == cut


@given(st.text(max_size=200))
@example("a=b=\x80")
@example("é=é=é")
def test_forwarding_addresses(text):
    for tag in ("SRS0=", "SRS1="):
        with pytest.raises(srs.NotOurs):
            srs.back(Address(tag + text, "here.test"), b"secret", 1)


@given(st.binary(max_size=400))
def test_masquerading_keeps_the_body_and_every_line(octets):
    content = b"From: " + octets + b"\r\n\r\nbody\r\n"
    shown = Masquerade("here.test", frozenset({"far.test"}), entire=True, add_domain=True).content(content)
    assert shown.endswith(b"\r\n\r\nbody\r\n") and shown.count(b"\r\n") == content.count(b"\r\n")


@given(st.binary(max_size=300))
def test_results_in_our_name(octets):
    content = b"Authentication-Results:" + octets + b"\r\nSubject: x\r\n\r\nbody\r\n"
    kept = authentication.without_forged(content, header_end(content), "here.test")
    assert kept.endswith(b"body\r\n") and len(kept) <= len(content)


# -- what proves somebody


@given(
    st.lists(st.binary(max_size=200), min_size=1, max_size=4),
    st.sampled_from(["external", "anonymous", "bearer", "xoauth2", "gssapi", "gs2"]),
)
def test_mechanisms_without_passwords(responses, name):
    dialogue = {
        "external": external.server, "anonymous": anonymous.server, "bearer": lambda: oauth.server(bearer=True),
        "xoauth2": lambda: oauth.server(bearer=False), "gssapi": gssapi.server,
        "gs2": lambda: gssapi.gs2_server({"tls-exporter": b"x"}, plus=True),
    }[name]()  # fmt: skip
    next(dialogue)
    with suppress(SaslFailure, StopIteration):
        for response in responses:
            step = dialogue.send(response)
            while isinstance(step, Lookup):
                answer = {"token": oauth.Token(), "gss": GssStep(response, True, "u@R")}.get(
                    step.kind, GssStep(response)
                )
                step = dialogue.send("" if step.kind in ("external", "anonymous") else answer)


@given(st.binary(max_size=400), st.integers(1, 50))
def test_the_layer_of_digest_md5(octets, size):
    layer = digest_md5.IntegrityLayer(b"k" * 16, server=True)
    with suppress(SaslFailure):
        for start in range(0, len(octets), size):
            assert layer.unwrap(octets[start : start + size]) == b""


@given(
    st.one_of(
        st.text(max_size=200),
        st.sampled_from(["ssh-ed25519 ", "cert-authority ssh-rsa "]).flatmap(
            lambda a: st.text(max_size=99).map(a.__add__)
        ),
    )
)
def test_ssh_keys(text):
    with suppress(StoreError):
        for key in keys.parse_keys(text):
            assert "\n" not in key.line and len(key.line.split()) == 2 and key.label.isprintable()


@given(st.binary(max_size=300))
def test_certificates(octets):
    with pytest.raises(StoreError):
        keys.parse_certificate(octets)


def small_database() -> bytes:
    """One page of a Berkeley DB hash with one user."""
    key, value = b"\x01u\x00r\x00userPassword", b"\x01words"
    meta = bytearray(512)
    meta[12:16], meta[16:20], meta[20:24] = (
        (0x061561).to_bytes(4, "little"),
        (9).to_bytes(4, "little"),
        (512).to_bytes(4, "little"),
    )
    page = bytearray(512)
    page[20:22], page[25] = (2).to_bytes(2, "little"), 13
    page[26:28], page[28:30] = (
        (512 - len(key)).to_bytes(2, "little"),
        (512 - len(key) - len(value)).to_bytes(2, "little"),
    )
    page[512 - len(key) :] = key
    page[512 - len(key) - len(value) : 512 - len(key)] = value
    return bytes(meta + page)


def test_a_small_sasldb():
    assert sasldb.passwords(sasldb.parse(small_database())) == {"u@r": b"words"}


@given(st.lists(st.tuples(st.integers(12, 1023), st.integers(0, 255)), max_size=12), st.integers(0, 1024))
def test_sasldb(changes, length):
    octets = bytearray(small_database())
    for place, value in changes:
        octets[place] = value
    with suppress(sasldb.NoSaslDb):
        sasldb.parse(bytes(octets[:length]) if length % 7 == 0 else bytes(octets))


@given(st.text(max_size=300))
def test_files_of_users(text):
    assert all(name and isinstance(fields, list) and fields for name, fields in files.parse(text).items())


@given(st.binary(max_size=200))
def test_questions_of_saslauthd(octets):
    with suppress(saslauthd.Malformed):
        asked = saslauthd.parse_question(octets)
        if asked is not None:
            assert saslauthd.parse_question(saslauthd.question(*asked)) == asked
    with suppress(saslauthd.Malformed):
        saslauthd.parse_answer(octets)


AUTH_WORDS = st.sampled_from(
    [
        b"VERSION\t1\t1\n",
        b"CPID\t1\n",
        b"AUTH\t1\tPLAIN\tservice=smtp\tresp=",
        b"CONT\t1\t",
        b"CANCEL\t1\n",
        b"\t",
        b"\n",
        b"\x01t",
        b"AUTH\t",
    ]
)


@given(soup(AUTH_WORDS), st.integers(1, 30))
def test_dovecots_clients(octets, step):
    assert drain(dovecot_auth.DovecotAuth(), octets, step) == drain(
        dovecot_auth.DovecotAuth(), octets, len(octets) or 1
    )


@given(st.text(max_size=60))
def test_fields_of_dovecots_protocol(text):
    assert dovecot_auth.unescaped(dovecot_auth.escaped(text)) == text
    assert not set("\t\r\n\x00") & set(dovecot_auth.escaped(text))


# -- what the reader reads


@given(soup(MIME_WORDS))
def test_a_letter_on_the_screen(octets):
    """Whatever it is, it is shown, and nothing in it speaks to the terminal; a reply to it is a text."""
    shown = display.view(octets, every_field=True)
    said = [shown.text, *(word for pair in shown.headers for word in pair)]
    for one in shown.attachments:
        one.content(octets)
        said += [one.name, one.kind]
        assert "/" not in one.name
    assert all(c in "\n\t" or c.isprintable() for word in said for c in word)
    display.legs(octets)
    with suppress(answer.DraftFault):
        answer.letter(answer.reply(octets, "me@here.test", everybody=True))
    answer.forward(octets, "me@here.test")


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from([*"<>/&;!-a \"'", "<a href=", "<script>", "</", "<![", "&#x"])).map("".join)
)
def test_html_becomes_text(text):
    assert isinstance(display.from_html(text), str)


@given(
    st.lists(st.sampled_from(["~A", "~N", "!", "(", ")", "|", " ", "~f", "~b", "a", "'", '"', "\\", "~"])).map("".join)
    | st.text()
)
@example("(" * 500)
def test_patterns_of_the_reader(text):
    with suppress(patterns.PatternFault):
        patterns.parse(text)


@given(st.text(alphabet="{}[]:/@%imaps9x\x00é", max_size=40))
def test_mutts_names_of_mailboxes(text):
    with suppress(muttrc.MuttFault):
        muttrc.place(text)
    with suppress(muttrc.MuttFault):
        muttrc.place("imap://" + text)


@given(st.text(alphabet="set nofolder=imap;'\"\\#\n`", max_size=80))
def test_a_muttrc(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("rc") / "rc"
    path.write_text(text)
    with suppress(muttrc.MuttFault):
        muttrc.read(path)


# -- what other programs believe

FOREIGN_WORDS = st.sampled_from(
    ["#H ", "a.test ", "ABCD " * 7 + "ABCD", "\n", "-----BEGIN CERTIFICATE-----", "-----END", "QUJD", "host x\n", "account ",
     "tls_fingerprint ", "ab" * 32, "ab:" * 16, "defaults\n", "port 25\n", "[x]\n", "client = yes\n", "CAfile = a\n",
     "connect = h:1\n", "=", '"', "sha256//", "spki:"]
)  # fmt: skip


@given(st.lists(FOREIGN_WORDS | st.text(max_size=5), max_size=30).map("".join))
def test_what_other_programs_believe(text):
    for read in (foreign.mutt, foreign.msmtp, foreign.pem, lambda t, s, n: foreign.stunnel(t, s, n, lambda _name: t)):
        with suppress(rules.RuleFault):
            read(text, "f", 0)
    with suppress(rules.RuleFault):
        rules.fingerprint(text)


@given(st.text(alphabet="a@:[],.-1 ~é", max_size=60))
@example("a," * 20 + "a")
def test_ways_by_ssh(text):
    with suppress(ssh_client.WayFault):
        assert ssh_client.hosts(text)


XML_WORDS = st.sampled_from(
    [b"<clientConfig>", b'<incomingServer type="imap">', b"</incomingServer>", b"<hostname>", b"</hostname>", b"a.test",
     b"<port>993</port>", b"<socketType>SSL</socketType>", b"</clientConfig>", b"%EMAILDOMAIN%", b"&amp;", b"&#0;",
     b"<?xml encoding='x'?>", b"<![CDATA["]
)  # fmt: skip


@given(soup(XML_WORDS))
def test_descriptions_of_a_domain(octets):
    with suppress(discover.AutoconfigFault):
        discover.parse_autoconfig(octets, Address("ann", "example.test"))


@given(soup(MIME_WORDS))
@example(b"Date: Mon, 1 Jan 99999 00:00:00 +9999\r\n\r\n")
@example(b"Date: 1 2 3 4 5 6 7 8 9\r\n\r\n")
def test_a_line_of_a_pop3_mailbox(octets):
    assert maildrop._entry(1, 2, octets).uid == 1


@given(st.recursive(st.none() | st.binary(max_size=10), lambda inner: st.lists(inner, max_size=11), max_leaves=30))
def test_a_line_of_an_imap_mailbox(value):
    mailbox._entry([b"1", b"FETCH", [b"UID", b"7", b"ENVELOPE", value, b"FLAGS", value, b"INTERNALDATE", value]])
    mailbox._entry([b"1", b"FETCH", value])


@given(st.lists(st.tuples(st.booleans(), soup(SMTP_WORDS) | soup(IMAP_WORDS))), st.booleans())
def test_transcripts(pieces, sealed):
    told = []
    watch = transcript.Transcript(told.append)
    for ours, octets in pieces:
        watch(ours, octets, sealed)
    assert all(line.isprintable() for line in told)

"""Attacks on a client that begin after the greeting: inside TLS, on what is remembered, and by what a letter says of itself.

The names are those of the catalogue of wire transcripts; those before TLS are in test_hostile_servers.
"""

import asyncio
from dataclasses import replace

import pytest
from memory_server import certificates
from peers_noted import noted
from test_hostile_servers import REFUSED, connect, peer

from fubako.client.connection import Credentials
from fubako.client.fetch import Fetcher, Seen
from fubako.client.places import Fetched, Maildir, Mbox, Mda
from fubako.client.places import place as place_of
from fubako.client.roads import Roads
from fubako.client.settings import Account
from fubako.clock import Env
from fubako.message.display import line, view
from fubako.net.interface import CertificateFacts, StreamClosed, StreamTimeout, TlsError
from fubako.net.memory import pair
from fubako.net.tls import Certificate, ServerTls
from fubako.trust.known import Downgraded, KnownPeers

OK_IMAP = b"* OK x\r\n"
NOT_SAID = (b"LOGIN", b"alice", b"sesame", b"YWxpY2U", b"SELECT", b"APPEND", b"AHNlc2FtZQ")
FACTS = CertificateFacts("CN=a", "CN=ca", ("a.test",), (), 0.0, 2e9, "a" * 64, "b" * 64)


async def within_tls(
    stream, protocol: str, before: bytes, answers: list[tuple[bytes, bytes]], heard: list[bytes]
) -> None:
    """STARTTLS as it should be, with `before` said in the clear; then an answer to each line that holds the word."""
    greeting = {"imap": OK_IMAP, "pop3": b"+OK x\r\n", "smtp": b"220 x\r\n"}[protocol]
    stream.write(greeting)
    said = b""
    while True:
        octets = await stream.read()
        if not octets:
            return
        said += octets
        last = said.rstrip(b"\r\n").rpartition(b"\n")[2]
        tag = last.partition(b" ")[0]
        if b"EHLO" in last:
            stream.write(b"250-x\r\n250 STARTTLS\r\n")
        elif b"STARTTLS" in last or b"STLS" in last:
            stream.write(before + {"imap": tag + b" OK go\r\n", "pop3": b"+OK go\r\n", "smtp": b"220 go\r\n"}[protocol])
            break
    tls = ServerTls([Certificate.load(certificates() / "s.pem", certificates() / "s.key")])
    try:
        await stream.start_tls(tls.pump())
        while octets := await stream.read():
            heard.append(octets)
            tag = octets.partition(b" ")[0]
            answer = next((answer for word, answer in answers if word in octets.upper()), None)
            if answer is not None:
                stream.write(answer.replace(b"TAG", tag))
    except (TlsError, StreamClosed):
        return


def talk(protocol: str, answers, before: bytes = b"", login: bool = True):
    """What the client said inside TLS, and how it ended: the error, or None."""
    heard: list[bytes] = []

    async def run():
        ours, theirs = pair()
        serving = asyncio.ensure_future(within_tls(theirs, protocol, before, answers, heard))
        connection, greet = connect(protocol, ours, peer())
        error = None
        try:
            await greet()
            if login:
                await connection.login(Credentials("alice", "sesame"))
        except REFUSED as caught:
            error = caught
        connection.close()
        await serving
        return connection, error

    connection, error = asyncio.run(asyncio.wait_for(run(), 30))
    return connection, error, b"".join(heard)


CAPABILITY = b"* CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR\r\nTAG OK done\r\n"


JUNK = [
    b'* LIST () "/" "7XiYhgS7"\r\n', b'* LSUB () "/" x\r\n', b"* 7 EXISTS\r\n", b"* 1 EXPUNGE\r\n", b"* FLAGS (x)\r\n",
    b"* 1 FETCH (BODY[] {4}\r\nevil)\r\n", b"* CAPABILITY IMAP4rev1 AUTH=LOGIN IDLE\r\n", b"* SEARCH 1 2\r\n",
    b"* STATUS x (MESSAGES 1)\r\n",
]  # fmt: skip


@pytest.mark.parametrize("junk", JUNK)
def test_what_was_said_before_tls_is_forgotten(junk):
    """C-STATE, C-CAPA: the capabilities are asked for again inside, and nothing of before is in any answer."""
    connection, error, heard = talk("imap", [(b"CAPABILITY", CAPABILITY)], junk, login=False)
    assert error is None and b"CAPABILITY" in heard
    assert connection.capabilities == ["IMAP4REV1", "AUTH=PLAIN", "SASL-IR"]
    assert connection.engine._untagged == []


@pytest.mark.parametrize("answer", [
    b"TAG NO [REFERRAL IMAP://;AUTH=*@evil.test:243/] go there\r\n", b"* OK [REFERRAL imaps://evil.test/] x\r\nTAG NO no\r\n",
])  # fmt: skip
def test_referrals_are_only_text(answer):
    """C-REFERRAL: the login failed, and nobody else is connected to."""
    _, error, heard = talk("imap", [(b"CAPABILITY", CAPABILITY), (b"AUTHENTICATE", answer)])
    assert error is not None and "refused the login" in str(error) and heard.count(b"AUTHENTICATE") == 1


def test_login_is_never_said():
    """C-LOGINDISABLED: where no mechanism is offered, nothing is said, LOGIN least of all."""
    _, error, heard = talk("imap", [(b"CAPABILITY", b"* CAPABILITY IMAP4rev1 LOGINDISABLED\r\nTAG OK done\r\n")])
    assert error is not None
    assert not any(word in heard for word in NOT_SAID)


@pytest.mark.parametrize(
    "challenge",
    [b"334\r\n", b"334 ???\r\n", b"334 \r\n334 \r\n", b"3\r\n", b"999 x\r\n", b"334 " + b"A" * 100_000 + b"\r\n"],
)
@pytest.mark.parametrize("mechanism", [b"CRAM-MD5", b"SCRAM-SHA-256"])
def test_challenges_that_make_no_sense(challenge, mechanism):
    """C-SMTP334, C-NTLM: an error, and no password."""
    answers = [(b"EHLO", b"250-x\r\n250 AUTH " + mechanism + b"\r\n"), (b"AUTH", challenge), (b"", b"535 no\r\n")]
    _, error, heard = talk("smtp", answers)
    assert error is not None and b"sesame" not in heard


@pytest.mark.parametrize("answer", [b"+ \r\n", b"+ ???\r\n", b"TAG OK done\r\n"])
def test_scram_is_not_cut_short(answer):
    """A server that accepts without the proof that it knows the password is no server of ours."""
    offers = b"* CAPABILITY IMAP4rev1 AUTH=SCRAM-SHA-256 SASL-IR\r\nTAG OK done\r\n"
    _, error, _ = talk("imap", [(b"CAPABILITY", offers), (b"AUTHENTICATE", answer)])
    assert error is not None


@pytest.mark.parametrize(
    "reply", [b"* 1 FETCH (UID 1 BODY[] {4294967295}\r\n", b"* 1 FETCH " + b"(" * 100_000 + b"\r\n", b"* 1 FETCH )\r\n"]
)
def test_answers_that_are_too_much(reply):
    """C-LITERAL, after the login."""
    _, error, _ = talk("imap", [(b"CAPABILITY", reply)], login=False)
    assert error is not None


def test_tls_that_is_never_begun():
    """C-SLOW: the handshake has the same time as everything else."""

    async def run():
        ours, theirs = pair()
        connection, greet = connect("imap", ours, peer())
        ours.idle_seconds = 0.3

        async def serve():
            theirs.write(OK_IMAP)
            said = await theirs.read()
            theirs.write(said.partition(b" ")[0] + b" OK go\r\n")
            while await theirs.read():
                pass

        serving = asyncio.ensure_future(serve())
        with pytest.raises((StreamTimeout, TlsError)):
            await greet()
        assert not any(word in bytes(ours.sent) for word in NOT_SAID)
        connection.close()
        await serving

    asyncio.run(asyncio.wait_for(run(), 20))


@pytest.mark.parametrize("protocol", ["imap", "pop3", "smtp"])
def test_a_handshake_that_fails_is_the_end(protocol):
    """C-TLSFAIL: no second try without TLS."""

    async def run():
        ours, theirs = pair()
        connection, greet = connect(protocol, ours, peer())

        async def serve():
            theirs.write({"imap": OK_IMAP, "pop3": b"+OK x\r\n", "smtp": b"220 x\r\n"}[protocol])
            said = await theirs.read()
            if protocol == "smtp":
                theirs.write(b"250-x\r\n250 STARTTLS\r\n")
                said = await theirs.read()
            theirs.write(
                {"imap": said.partition(b" ")[0] + b" OK go\r\n", "pop3": b"+OK go\r\n", "smtp": b"220 go\r\n"}[
                    protocol
                ]
            )
            await theirs.read()
            theirs.write(b"this is no TLS\r\n" * 10)
            while await theirs.read():
                pass

        serving = asyncio.ensure_future(serve())
        with pytest.raises(REFUSED):
            await greet()
        assert not any(word in bytes(ours.sent) for word in NOT_SAID)
        connection.close()
        await serving

    asyncio.run(asyncio.wait_for(run(), 20))


@pytest.mark.parametrize(
    "greeting", [b"* BYE [ALERT] Your account expires, go to http://evil.test/\r\n", b"* BYE \x1b[2J\x07x\r\n"]
)
def test_words_of_before_tls_are_nobodys(greeting):
    """C-ALERT, C-ESC: they are not shown as if the server had said them, and never write to the terminal."""

    async def run():
        ours, theirs = pair()
        connection, greet = connect("imap", ours, peer())
        theirs.write(greeting)
        with pytest.raises(REFUSED) as caught:
            await greet()
        assert "evil.test" not in str(caught.value) and "\x1b" not in str(caught.value)
        connection.close()

    asyncio.run(asyncio.wait_for(run(), 20))


# -- what is remembered


def test_less_than_before_is_an_alarm(tmp_path):
    """C-AUTHDOWN, and a lower version of TLS."""
    known = KnownPeers(tmp_path / "known.json")
    noted(known, "a.test", FACTS, "authority", "TLSv1.3", "SCRAM-SHA-256-PLUS", 1)
    with pytest.raises(Downgraded):
        known.check_mechanisms("a.test", 993, ["PLAIN", "LOGIN"])
    with pytest.raises(Downgraded):
        known.check_tls("a.test", 993, "TLSv1.2")
    known.check_mechanisms("b.test", 993, ["PLAIN"])


def test_accepted_for_one_host_is_accepted_for_no_other(tmp_path):
    """C-CERT-CROSS; C-CERT-BATCH: without somebody to ask the answer is no."""
    known = KnownPeers(tmp_path / "known.json")
    roads = Roads(known, Env())
    wrong = replace(FACTS, chain_error="the certificate is signed by itself")
    noted(known, "a.test", wrong, "always", "TLSv1.3", "", 1)
    here = Account(name="a", host="a.test", trust=("public",))
    assert roads._believe(here, "a.test", wrong, "TLSv1.3").by == "your decision"
    for host, port in (("b.test", 993), ("a.test", 995)):
        other = Account(name="b", host=host, port=port, trust=("public",))
        with pytest.raises(REFUSED):
            roads._believe(other, host, wrong, "TLSv1.3")


def test_a_pinned_certificate_that_expired_is_said_to_be(tmp_path):
    """C-CERT-EXP: who pinned it decides, and sees it."""
    roads = Roads(KnownPeers(tmp_path / "known.json"), Env())
    account = Account(name="a", host="a.test", trust=(f"sha256:{'a' * 64}",))
    assert "EXPIRED" not in roads._believe(account, "a.test", replace(FACTS, not_after=4e9), "TLSv1.3").by
    assert "EXPIRED" in roads._believe(account, "a.test", replace(FACTS, not_after=1.0), "TLSv1.3").by


# -- what a letter, or a mailbox, says of itself


@pytest.mark.parametrize("identifier", ["../../x", "/etc/passwd", "a/../b", "x" * 70, "..", "\x00"])
def test_identifiers_are_never_names_of_files(tmp_path, identifier):
    """C-PATH-BOX: what a server calls a letter is not how it is called here."""
    account = Account(name="a", deliver=f"maildir:{tmp_path}/m")
    fetcher = Fetcher(account, place_of(account), Seen(tmp_path / "seen"), Env())
    name = fetcher.name(identifier)
    assert "/" not in name and ".." not in name and len(name) == 39
    fetcher.seen.close()


@pytest.mark.parametrize(
    "letter",
    [b"\r\nno header at all\r\n", b"", b"\r\n", b"no colon here\r\nnor here", b"X: " + b"y" * 100_000 + b"\r\n\r\n"],
)
def test_letters_without_a_header(tmp_path, letter):
    """C-EMPTYHDR, C-LONGLOG: kept as they are, and shown."""

    async def run():
        await Maildir(tmp_path / "m").put([Fetched("one", letter, 0)])
        await Mbox(tmp_path / "box").put([Fetched("one", letter, 0)])

    asyncio.run(run())
    (path,) = (tmp_path / "m" / "new").iterdir()
    assert path.read_bytes() == letter.replace(b"\r\n", b"\n")
    assert (tmp_path / "box").read_bytes().startswith(b"From fubako ")
    view(letter)


@pytest.mark.parametrize(
    "sender", ["-oQ/tmp/x@b.test", "a;touch$IFS/tmp/x@b.test", "`id`@b.test", "a b@c.test", "--help"]
)
def test_a_letter_gives_a_program_no_options_and_no_commands(tmp_path, sender):
    """C-SHELL: whatever stands in Return-Path is one harmless argument."""
    script = tmp_path / "mda"
    script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$#" "$@" > {tmp_path}/arguments\ncat > /dev/null\n')
    script.chmod(0o755)
    account = Account(name="a", deliver="mda", mda=(str(script), "%F", "%T"), recipient="-me")
    made = place_of(account)
    assert isinstance(made, Mda)
    asyncio.run(made.put([Fetched("one", f"Return-Path: <{sender}>\r\n\r\nx\r\n".encode(), 0)]))
    count, first, second = (tmp_path / "arguments").read_text().splitlines()
    assert count == "2" and not first.startswith("-") and not second.startswith("-")
    assert not set(first) & set("`$; \t")


def test_folders_of_a_server_are_only_names():
    """C-PATH-BOX, C-ESC: shown, never a path."""
    assert line("../../.ssh\x1b[2J\r\nx") == "../../.ssh\\x1b[2J x"

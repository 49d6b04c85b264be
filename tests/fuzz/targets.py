"""One target a parser of outside octets: a function of octets that ends, or raises AssertionError for a finding.

A parser may refuse with the errors that its interface names, and with no other. The same targets are run by `cover.py`
(guided by coverage, hours) and by `test_corpus.py` (what was found so far, in every `make test`).

Left out: what needs a conversation of more than one side (sessions), the clock, and parsers inside libraries (OpenSSL, expat,
asyncssh) but for the octets that reach them from here.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from fubako.accounts import foreign as hashes
from fubako.accounts import keys, tokens
from fubako.accounts.backends import files, sasldb
from fubako.client import discover, fetchmailrc, mailbox, maildrop, muttrc, patterns
from fubako.message import (
    aggregate,
    answer,
    authentication,
    compose,
    display,
    headers,
    mailboxes,
    mime,
    srs,
    text,
    words,
)
from fubako.message.address import Address, AddressError, parse_address, parse_path
from fubako.message.ambiguity import author_is_ambiguous
from fubako.message.authors import named
from fubako.message.compose import Given, submitted
from fubako.message.headers import header_end
from fubako.message.masquerade import Masquerade
from fubako.message.octets import irregularity, regular, within_line_limit
from fubako.message.status import Status
from fubako.net import certificate, proxy, ssh_client
from fubako.net.interface import Answer, DnsFailure, NoSuchName, TlsError
from fubako.policy import access, arc, dkim, dmarc, spf
from fubako.policy.authors import claimed
from fubako.protocol import callers, dovecot_auth, milter, saslauthd, smtp_arguments
from fubako.protocol.engine import ProtocolError
from fubako.protocol.imap import render, utf7
from fubako.protocol.imap.client import ImapClient
from fubako.protocol.imap.server import ImapServer, State
from fubako.protocol.managesieve import ManageSieveClient
from fubako.protocol.pop3 import Pop3Client, Pop3Server
from fubako.protocol.sasl import (
    Binding,
    Lookup,
    SaslFailure,
    anonymous,
    digest_md5,
    external,
    gssapi,
    oauth,
    scram,
)
from fubako.protocol.sasl.gssapi import GssStep
from fubako.protocol.smtp import SmtpLimits
from fubako.protocol.smtp_client import SmtpClient
from fubako.protocol.smtp_server import SmtpServer
from fubako.store.interface import StoreError
from fubako.trust import foreign, mtasts, rules

Target = Callable[[bytes], None]
TARGETS: dict[str, Target] = {}
SECRET, NOW = b"0123456789abcdef0123456789abcdef", 1_800_000_000


def target(function: Target) -> Target:
    TARGETS[function.__name__] = function
    return function


def latin(octets: bytes) -> str:
    """Octets as a text of as many characters."""
    return octets.decode("latin-1")


def utf(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def feed(engine, octets: bytes, answer: Callable[[object], None] | None = None) -> list[object]:
    """The first octet says how the rest is cut; events of an engine that was told everything."""
    step, rest = (octets[0] % 16 + 1, octets[1:]) if octets else (1, b"")
    events: list[object] = []
    with suppress(ProtocolError):
        for start in range(0, len(rest), step):
            engine.receive(rest[start : start + step])
            while (event := engine.next_event()) is not None:
                events.append(event)
                if answer is not None:
                    answer(event)
    engine.output()
    return events


# -- engines


def _smtp(octets: bytes, *, lmtp: bool) -> None:
    engine = SmtpServer(SmtpLimits(message=2000), lmtp=lmtp)

    def answer(event: object) -> None:
        match type(event).__name__:
            case "Content":
                pass
            case "Data":
                engine.reply(Status(354, "", "go"))
            case "Auth":
                engine.reply(Status(535, "", "no"))
            case _:
                engine.reply(Status(250, "", "ok"))

    feed(engine, octets, answer)


@target
def smtp_server(octets: bytes) -> None:
    _smtp(octets, lmtp=False)


@target
def lmtp_server(octets: bytes) -> None:
    _smtp(octets, lmtp=True)


@target
def smtp_client(octets: bytes) -> None:
    client = SmtpClient()
    client.command("EHLO", "x")
    feed(client, octets)


@target
def imap_server(octets: bytes) -> None:
    engine = ImapServer()
    engine.state = State.SELECTED
    feed(engine, octets, lambda _event: engine.resume())


@target
def imap_client(octets: bytes) -> None:
    client = ImapClient("t")
    client.command("NOOP")
    client.output()
    for event in feed(client, octets):
        for line in getattr(event, "untagged", []):
            mailbox._entry(line)


@target
def pop3_server(octets: bytes) -> None:
    feed(Pop3Server(), octets)


@target
def pop3_client(octets: bytes) -> None:
    client = Pop3Client()
    client.command("RETR", "1", multiline=True)
    feed(client, octets)


@target
def managesieve_client(octets: bytes) -> None:
    client = ManageSieveClient()
    client.command("LISTSCRIPTS")
    client.output()
    feed(client, octets)


@target
def dovecot_clients(octets: bytes) -> None:
    feed(dovecot_auth.DovecotAuth(), octets)


@target
def milter_packets(octets: bytes) -> None:
    with suppress(milter.MilterError):
        milter.Packets().feed(octets)


@target
def saslauthd_both_sides(octets: bytes) -> None:
    with suppress(saslauthd.Malformed):
        saslauthd.parse_question(octets)
    with suppress(saslauthd.Malformed):
        saslauthd.parse_answer(octets)


@target
def proxy_header(octets: bytes) -> None:
    with suppress(proxy.ProxyError):
        found = proxy.parse(octets)
        assert found is None or found[1] <= len(octets)


@target
def smtp_parameters(octets: bytes) -> None:
    for parse in (smtp_arguments.parse_mail, smtp_arguments.parse_rcpt):
        with suppress(ValueError):
            parse(utf(octets))


# -- messages


def _whole(part: mime.Part, end: int) -> None:
    assert 0 <= part.start <= part.body <= part.end <= end
    for child in part.children:
        _whole(child, part.end)


@target
def message(octets: bytes) -> None:
    root = mime.scan(octets)
    _whole(root, len(octets))
    for rendered in (
        render.envelope(root.fields),
        render.body_structure(root),
        render.body_structure(root, extended=False),
    ):
        assert b"\x00" not in rendered
    text.header_text(octets[: root.body])
    text.body_text(octets, root)


@target
def message_on_screen(octets: bytes) -> None:
    shown = display.view(octets, every_field=True)
    said = [shown.text, *(word for pair in shown.headers for word in pair)]
    for one in shown.attachments:
        one.content(octets)
        assert "/" not in one.name
        said += [one.name, one.kind]
    assert all(c in "\n\t" or c.isprintable() for word in said for c in word)
    display.legs(octets)


@target
def message_answered(octets: bytes) -> None:
    with suppress(answer.DraftFault):
        answer.letter(answer.reply(octets, "me@here.test", everybody=True))
    answer.forward(octets, "me@here.test")


@target
def html(octets: bytes) -> None:
    display.from_html(utf(octets))


@target
def header_values(octets: bytes) -> None:
    mailboxes.parse_list(octets)
    mime.parse_parameterised(octets)
    words.decode_words(octets)
    words.decode_transfer(octets, b"quoted-printable")
    words.decode_transfer(octets, b"base64")
    list(headers.fields(octets))


@target
def forged_results(octets: bytes) -> None:
    kept = authentication.without_forged(octets, header_end(octets), "here.test")
    assert len(kept) <= len(octets)


@target
def masquerading(octets: bytes) -> None:
    content = b"From: " + octets + b"\r\n\r\nbody\r\n"
    shown = Masquerade("here.test", frozenset({"far.test"}), entire=True, add_domain=True).content(content)
    assert shown.endswith(b"\r\n\r\nbody\r\n")


@target
def drafts(octets: bytes) -> None:
    with suppress(answer.DraftFault, AddressError, ValueError):
        draft = compose.draft(octets)
        compose.recipients(draft, "here.test")


@target
def batch(octets: bytes) -> None:
    callers.until_dot(octets)
    with suppress(ValueError):
        callers.rmail_sender(octets)


@target
def paths(octets: bytes) -> None:
    given = utf(octets)
    with suppress(AddressError):
        address, _ = parse_path(given, null_ok=True)
        assert not any(ord(c) < 32 for c in str(address))
        if address.domain:
            assert parse_address(str(address)) == address
    with suppress(AddressError):
        parse_address(given)


@target
def modified_utf7(octets: bytes) -> None:
    name = utf(octets)
    with suppress(ValueError):
        assert utf7.encode(utf7.decode(name)) == name


@target
def forwarding_addresses(octets: bytes) -> None:
    for tag in ("SRS0=", "SRS1="):
        with suppress(srs.NotOurs):
            srs.back(Address(tag + utf(octets), "here.test"), SECRET, 1)
            raise AssertionError("an address that was never made here")


# -- who wrote it


class Silence:
    """A resolver that knows nothing, quickly."""

    def __getattr__(self, name: str):
        async def ask(*_: object, **__: object) -> None:
            raise NoSuchName(name)

        return ask


@target
def signatures(octets: bytes) -> None:
    letter = dkim.take_apart(octets)
    asyncio.run(dkim.verify(Silence(), letter, NOW))
    asyncio.run(arc.validate(Silence(), letter))
    claimed(octets)


@target
def signature_tags(octets: bytes) -> None:
    with suppress(dkim.DkimError):
        dkim.parse_tags(octets)


@target
def records(octets: bytes) -> None:
    with suppress(spf.PermError):
        spf.parse("v=spf1 " + latin(octets))
    dmarc.parse("v=DMARC1; " + latin(octets), "a.test")
    mtasts.record_id([b"v=STSv1;" + octets])


@target
def spf_evaluation(octets: bytes) -> None:
    class OneRecord(Silence):
        async def texts(self, _name: str):
            return Answer((b"v=spf1 " + octets.replace(b"\x00", b""),))

    with suppress(DnsFailure):
        asyncio.run(spf.check(OneRecord(), "192.0.2.1", "a@b.test", "c.test", "here.test", NOW))


@target
def sts_policy(octets: bytes) -> None:
    with suppress(mtasts.StsError):
        mtasts.parse(octets)


@target
def reports(octets: bytes) -> None:
    for read in (aggregate.read, aggregate.read_tls, aggregate.read_dmarc, aggregate.in_letter):
        with suppress(aggregate.ReportError):
            read(octets)


@target
def access_table(octets: bytes) -> None:
    for toml in (False, True):
        with suppress(access.AccessError):
            access.parse(utf(octets), toml=toml)


# -- who somebody is


def _dialogue(server, octets: bytes) -> None:
    next(server)
    with suppress(SaslFailure, StopIteration):
        for response in octets.split(b"\x00\x00"):
            step = server.send(response)
            while isinstance(step, Lookup):
                answers = {"token": oauth.Token(), "gss": GssStep(response, True, "u@R")}
                empty = "" if step.kind in ("external", "anonymous") else GssStep(response)
                step = server.send(answers.get(step.kind, empty))


@target
def mechanisms(octets: bytes) -> None:
    for server in (
        external.server(),
        anonymous.server(),
        oauth.server(bearer=True),
        oauth.server(bearer=False),
        gssapi.server(),
        gssapi.gs2_server({"tls-exporter": b"x"}, plus=True),
    ):
        _dialogue(server, octets)


@target
def scram_server(octets: bytes) -> None:
    server = scram.server("x", Binding(), plus=False)
    next(server)
    with suppress(SaslFailure, StopIteration):
        for response in octets.split(b"\x00"):
            step = server.send(response)
            if hasattr(step, "kind"):
                server.send(scram.ScramKeys(b"s", 4096, b"k" * 32, b"k" * 32))


@target
def digest(octets: bytes) -> None:
    with suppress(SaslFailure):
        digest_md5.directives(octets)
    layer = digest_md5.IntegrityLayer(b"k" * 16, server=True)
    with suppress(SaslFailure):
        layer.unwrap(octets)


@target
def kept_hashes(octets: bytes) -> None:
    with suppress(hashes.UnknownHash):
        hashes.recognized(utf(octets))


@target
def claims(octets: bytes) -> None:
    import msgspec

    with suppress(msgspec.DecodeError, tokens.Refused, UnicodeDecodeError):
        read = msgspec.json.decode(octets)
        if isinstance(read, dict):
            tokens.claimed(read, tokens.OAuthRules(), NOW)


@target
def public_keys(octets: bytes) -> None:
    with suppress(StoreError):
        keys.parse_keys(utf(octets))
    with suppress(StoreError):
        keys.parse_certificate(octets)


@target
def user_files(octets: bytes) -> None:
    files.parse(utf(octets))
    with suppress(sasldb.NoSaslDb):
        sasldb.parse(octets)


# -- what servers and other programs say to our client


@target
def certificates(octets: bytes) -> None:
    with suppress(TlsError):
        certificate.public_key_info(octets)
    with suppress(rules.RuleFault):
        rules.described(octets)


@target
def autoconfig(octets: bytes) -> None:
    with suppress(discover.AutoconfigFault):
        discover.parse_autoconfig(octets, Address("ann", "example.test"))


@target
def other_programs(octets: bytes) -> None:
    given = utf(octets)
    for read in (foreign.mutt, foreign.msmtp, foreign.pem, lambda t, s, n: foreign.stunnel(t, s, n, lambda _name: t)):
        with suppress(rules.RuleFault):
            read(given, "f", 0)
    with suppress(rules.RuleFault):
        rules.fingerprint(given)
    with suppress(ssh_client.WayFault):
        ssh_client.hosts(given)
    with suppress(fetchmailrc.FetchmailFault):
        fetchmailrc.parse(given)
    with suppress(muttrc.MuttFault):
        muttrc.place(given)
    with suppress(patterns.PatternFault):
        patterns.parse(given)


@target
def maildrop_lines(octets: bytes) -> None:
    assert maildrop._entry(1, 2, octets).uid == 1


@target
def stored_formats(octets: bytes) -> None:
    converted = regular(octets)
    assert irregularity(converted, long_lines=True) is None


@target
def authors(octets: bytes) -> None:
    """Whether its author is plain has an answer; where it is, the addresses can be read, and a completed message is still so."""
    if author_is_ambiguous(octets) is None:
        assert None not in named(octets[: header_end(octets)], b"from")
    content = regular(octets)
    made = submitted(content, Given(parse_address("a@b.test"), "", "here.test", 1.0, "1"))
    assert irregularity(made, long_lines=True) is None
    assert irregularity(within_line_limit(made)) is None

"""Every way in gives the same octets the same form, and nothing that leaves holds an end of itself.

A table of doors and one of irregular octets; sessions run whole in memory with a real store, and BDAT is cut anywhere. Leaves out:
TLS between client and server, and programs of others (tests/interop/test_readers_agree.py has Dovecot and Python).
"""

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_server import MemoryServer
from peer import House
from test_authorship import Pipe

from fubako.accounts import directory
from fubako.accounts.identity import Identity
from fubako.admin import formats
from fubako.admin.inject import Injector
from fubako.config import ContentFilter, Inbound
from fubako.message.address import NULL, parse_address
from fubako.message.envelope import Recipient, Sender
from fubako.message.octets import irregularity
from fubako.message.status import Status
from fubako.net.memory import pair
from fubako.protocol.pop3 import MultiLine
from fubako.protocol.smtp import SmtpLimits
from fubako.protocol.smtp_client import SmtpClient
from fubako.protocol.smtp_events import ContentEnd, Data
from fubako.protocol.smtp_server import SmtpServer
from fubako.server.imap.transform import as_kept
from fubako.server.session import Arrival
from fubako.server.smtp import SmtpSession
from fubako.server.ssh_commands import Commands

HEAD = b"From: <alice@here.test>\r\nSubject: x\r\n"
IRREGULAR = {
    "smuggled": HEAD + b"\r\nhi\n.\nMAIL FROM:<ceo@here.test>\r\n",
    "smuggled by CR": HEAD + b"\r\nhi\r.\rMAIL FROM:<ceo@here.test>\r\n",
    "dot after a bare CR": HEAD + b"\r\nhi\r.\r\nMAIL FROM:<ceo@here.test>\r\n",
    "hidden author": HEAD + b"X: y\nReply-To: <ceo@bank.test>\r\n\r\nhi\r\n",
    "NUL": HEAD + b"X: y\0z\r\n\r\na\0b\r\n",
    "ends in CR": HEAD + b"\r\nhi\r",
    "CR CR LF": HEAD.replace(b"\r\n", b"\r\r\n") + b"\r\r\nhi\r\r\n",
    "LF alone": HEAD.replace(b"\r\n", b"\n") + b"\nhi\n",
}
LONG = {
    "long line": HEAD + b"\r\n" + b"x" * 5000 + b"\r\n",
    "long header": HEAD + b"X: " + b"y" * 5000 + b"\r\n\r\nhi\r\n",
}
ENVELOPE = b"MAIL FROM:<alice@here.test>\r\nRCPT TO:<alice@here.test>\r\n"


def run(tmp_path, test, **more):
    async def inside():
        async with House(tmp_path, more=more) as house:
            return await test(house)

    return asyncio.run(inside())


async def session(house, service, octets, *, user=False, peer="192.0.2.1"):
    """The last reply before the end, and what is in the mailbox."""
    account = await house.store.database.read(lambda tx: directory.account(tx, "alice@here.test"))
    ours, theirs = pair(peer=f"{peer}:40000", local=user or service not in ("smtp", "submission"))
    arrival = Arrival(ours, service, None, proved=Identity(account, "PLAIN") if user else None)
    task = asyncio.ensure_future(SmtpSession(house.app.resources, arrival).run())
    hello = b"LHLO" if service == "lmtp" else b"EHLO"
    theirs.write(hello + b" x\r\n" + ENVELOPE + octets)
    heard = b""
    while octets := await theirs.read():
        heard += octets
    await task
    return heard.decode().splitlines(), [one.encode() for one in await house.inbox()]


def by_data(content):
    stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
    end = b".\r\n" if stuffed.endswith(b"\r\n") else b"\r\n.\r\n"
    return b"DATA\r\n" + stuffed + end + b"QUIT\r\n"


def by_chunks(content, cut=9):
    pieces = [content[:cut], content[cut:]]
    return b"BDAT %d\r\n%bBDAT %d LAST\r\n%bQUIT\r\n" % (len(pieces[0]), pieces[0], len(pieces[1]), pieces[1])


@pytest.mark.parametrize("way", [by_data, by_chunks])
@pytest.mark.parametrize("case", [*IRREGULAR, *LONG])
def test_a_stranger_is_refused(tmp_path, way, case):
    content = {**IRREGULAR, **LONG}[case]
    heard, inbox = run(tmp_path, lambda house: session(house, "smtp", way(content)))
    said = [line for line in heard if line[:3] in ("521", "554")]
    assert len(said) == 1 and not inbox
    # only where a message ends is in doubt the connection ends: a CRLF.CRLF is looked for, and something else may be one for others
    assert (heard[-1][:3] == "521") is (way is by_data and case not in ("NUL", *LONG))


@pytest.mark.parametrize("way", [by_data, by_chunks])
@pytest.mark.parametrize("service", ["smtp", "submission", "lmtp", "local", "filtered"])
@pytest.mark.parametrize("case", [*IRREGULAR, *LONG])
def test_who_is_known_is_mended(tmp_path, way, service, case):
    content = {**IRREGULAR, **LONG}[case]

    async def test(house):
        return await session(house, service, way(content), user=service in ("smtp", "submission"))

    heard, inbox = run(tmp_path, test)
    assert heard[-2].startswith("250 2.0.0"), heard
    assert len(inbox) == 1  # and nothing was smuggled
    assert irregularity(inbox[0], long_lines=service in ("lmtp", "filtered")) is None


def test_a_device_of_the_house_is_mended_and_no_other(tmp_path):
    devices = {"inbound": Inbound(lenient_networks=("192.0.2.64/26",))}

    async def test(house):
        lf = (
            b"HELO\nHELO my old device\n"
            + ENVELOPE.replace(b"\r\n", b"\n")
            + b"DATA\n"
            + IRREGULAR["LF alone"]
            + b".\n"
            + b"NOOP\nQUIT\n"
        )
        return await session(house, "smtp", lf, peer="192.0.2.65"), await session(house, "smtp", lf, peer="192.0.2.1")

    (good, inbox), (bad, _) = run(tmp_path, test, **devices)
    assert [line[:3] for line in good[-3:]] == ["250", "250", "221"] and len(inbox) == 1
    assert bad[-1].startswith("521") and inbox[0].endswith(b"\r\n\r\nhi\r\n")


def test_the_end_of_a_message_is_not_in_the_text_of_somebody_else(tmp_path):
    """DATA was said with CRLF: a line of LF dot LF is text, even of a user."""
    content = HEAD + b"\r\nquoted:\n.\nMAIL FROM:<bob@here.test>\nend\r\n"
    heard, inbox = run(tmp_path, lambda house: session(house, "submission", by_data(content), user=True))
    assert len(inbox) == 1 and inbox[0].endswith(b"quoted:\r\n.\r\nMAIL FROM:<bob@here.test>\r\nend\r\n")
    assert heard[-1].startswith("221")


@pytest.mark.parametrize(
    ("header", "marked"),
    [(b"From: a@b.test", False), (b"From: ceo@bank.test <a@b.test>", True), (b"X: y\r\nFrom : ceo@bank.test", True)],
)
def test_a_stranger_whose_author_is_in_doubt_is_marked(tmp_path, header, marked):
    async def test(house):
        await session(house, "smtp", by_data(header + b"\r\nSubject: x\r\n\r\nhi\r\n"))
        rows = await house.store.database.read(lambda tx: tx.rows("SELECT keywords FROM message"))
        return rows[0][0], house.app.telemetry.counters["message.author_in_doubt"]

    keywords, events = run(tmp_path, test)
    assert ("$Junk" in keywords.split(), events) == (marked, int(marked))


def test_long_lines_of_strangers_are_a_setting(tmp_path):
    setting = {"inbound": Inbound(long_lines="accept", examine=False)}
    _, inbox = run(tmp_path, lambda house: session(house, "smtp", by_data(LONG["long line"])), **setting)
    assert b"x" * 5000 + b"\r\n" in inbox[0]  # as it is: a signature of its author holds


@pytest.mark.parametrize("case", IRREGULAR)
def test_programs_of_this_machine(tmp_path, case):
    content = IRREGULAR[case]

    async def test(house):
        resources = house.app.resources
        account = await house.store.database.read(lambda tx: directory.account(tx, "alice@here.test"))
        injector = Injector(
            house.store.database, house.store.blobs, house.app.env, "here.test", house.app.telemetry,
            lambda _domain: False, resources.dresser,
        )  # fmt: skip
        await injector.inject("root", Sender(NULL), [Recipient(parse_address("alice@here.test"))], content)
        pipe = Pipe(content)
        code = await Commands(resources, Identity(account, "ssh"), (), None, "192.0.2.1:1", "t").run(
            "sendmail -i alice@here.test", pipe
        )
        assert code == 0, pipe.said
        return await house.inbox()

    inbox = run(tmp_path, test)
    assert len(inbox) == 2
    assert all(irregularity(one.encode()) is None for one in inbox)


@pytest.mark.parametrize("case", IRREGULAR)
def test_what_is_appended_and_imported(tmp_path, case):
    content = IRREGULAR[case]
    if b"\0" not in content:  # RFC 3516 has an answer for that
        assert irregularity(as_kept(content)) is None
    (tmp_path / "cur").mkdir()
    (tmp_path / "cur" / "1").write_bytes(content)
    (kept,) = formats.read_maildir(tmp_path)
    assert irregularity(kept.content) is None
    box = tmp_path / "box"
    box.write_bytes(b"From alice Thu Nov 26 12:00:00 2026\n" + content + b"\n\n")
    (kept,) = formats.read_mbox(box)
    assert irregularity(kept.content) is None


def test_a_binary_part_that_is_appended_keeps_its_octets():
    content = (
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: image/png\r\n'
        b"Content-Transfer-Encoding: binary\r\n\r\n\x89PNG\r\n\x1a\n\r\n--b--\r\n"
    )
    made = as_kept(content)
    assert irregularity(made) is None and b"iVBORw0KGgo=" in made


def test_what_a_filter_program_writes(tmp_path):
    script = tmp_path / "filter"
    script.write_bytes(b"#!/bin/sh\nprintf 'Subject: x\\nX: y\\0z\\r\\n\\nhi\\n.\\nthere\\r'\n")
    script.chmod(0o755)
    program = {"filter": ContentFilter(program=(str(script),)), "inbound": Inbound(examine=False)}
    content = b"Subject: x\r\n\r\nhi\r\n"
    _, inbox = run(tmp_path / "house", lambda house: session(house, "smtp", by_data(content)), **program)
    assert irregularity(inbox[0]) is None and inbox[0].endswith(b"\r\n\r\nhi\r\n.\r\nthere\r\n")


def test_octets_in_the_clear_behind_the_end_of_tls_are_nobodys(tmp_path):
    """CVE-2026-45185 (Exim): close_notify in the middle of a BDAT, then octets without TLS."""

    async def test():
        async with MemoryServer("smtp", {"channel": "tls", "service": "smtp"}) as server:
            client = await server.connect()
            client.send(b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<bob@gcd.org>\r\nBDAT 30 LAST\r\nSubject: x")
            while not (await client.line()).startswith("250 2.1.5"):
                pass
            raw = client.stream
            raw._pump.close()
            raw._flush_pump()
            raw._transmit(b"\r\n\r\n" + b"x" * 30 + b"\r\nNOOP\r\n")
            rest = await client.rest()
            rows = await server.store.database.read(lambda tx: tx.rows("SELECT count(*) FROM message"))
            return rest, rows[0][0]

    assert asyncio.run(asyncio.wait_for(test(), 20)) == (b"", 0)


# -- the engine alone, cut anywhere

SOUP = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"\0", b"a", b"\r\n.\r\n", b"x" * 999]), max_size=10)


def engine_says(octets, pieces, *, lenient=False):
    """(content, what was irregular) of the first message, or the error."""
    engine = SmtpServer(SmtpLimits())
    engine.lenient = lenient
    content, ends = b"", []
    for piece in pieces(b"EHLO x\r\n" + ENVELOPE + octets):
        engine.receive(piece)
        while not ends and (event := engine.next_event()) is not None:
            if isinstance(event, ContentEnd):
                ends.append(event.irregular)
            elif isinstance(event, Data):
                engine.reply(Status(354, "", "go"))
            elif hasattr(event, "octets"):
                content += event.octets
            else:
                engine.reply(Status(250, "", "ok"))
    return content, ends


def whole(octets):
    return [octets]


def single(octets):
    return [octets[at : at + 1] for at in range(len(octets))]


@settings(max_examples=150, deadline=None)
@given(SOUP, st.lists(st.integers(0, 400), max_size=4))
def test_chunks_are_looked_at_across_their_borders(pieces, cuts):
    content = b"".join(pieces)
    places = sorted({0, *(min(cut, len(content)) for cut in cuts)})
    chunks = [content[a:b] for a, b in itertools.pairwise([*places, len(content)])]
    said = b"".join(b"BDAT %d\r\n%b" % (len(chunk), chunk) for chunk in chunks) + b"BDAT 0 LAST\r\n"
    for way in (whole, single):
        got, (irregular,) = engine_says(said, way)
        assert (irregular is None) is (irregularity(content) is None)
        assert irregular is not None or got == content
        assert engine_says(said, way, lenient=True)[0] == content


# -- the ways out


@settings(max_examples=200, deadline=None)
@given(SOUP)
def test_nothing_inside_ends_what_leaves_by_data(pieces):
    """Whoever takes LF, CR or CRLF for a line end finds one dot alone, at the end."""
    content = b"".join(pieces)
    client = SmtpClient()
    client.content(content)
    sent = client.output()
    lines = sent.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    assert sent.endswith(b".\r\n") and lines.index(b".") == len(lines) - 2
    form, whole = MultiLine(), MultiLine()
    sent = b"".join(map(form.piece, pieces)) + form.end()
    assert sent == whole.piece(content) + whole.end()
    lines = sent.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    assert sent.endswith(b".\r\n") and lines.index(b".") == len(lines) - 2
    client.chunk(content)
    _, _, sent = client.output().partition(b"\r\n")
    assert irregularity(sent, long_lines=True) is None

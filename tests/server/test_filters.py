"""Filters: a scripted milter, OpenDKIM itself, a program, and a server that gives letters back."""

import asyncio
import shutil
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from peer import House, Peer
from server import without
from test_gate import KEY, RECORD
from zone import Zone

from fubako.accounts import directory
from fubako.config import ContentFilter, Inbound, Milter, Route
from fubako.message.address import NULL
from fubako.message.envelope import Sender, Transaction
from fubako.message.hop import Hop
from fubako.net import tcp
from fubako.policy import dkim
from fubako.protocol import milter
from fubako.protocol.milter import packet, texts
from fubako.server import filters

LETTER = (
    "MAIL FROM:<eve@evil.test>",
    "RCPT TO:<alice@here.test>",
    "DATA",
    "From: <eve@evil.test>",
    "Subject: x",
    "",
    "body",
    ".",
)


class Scripted:
    """A milter that answers each kind of command with the packets it is given, `continue` otherwise."""

    def __init__(self, says=None, protocol=0, drop=""):
        self.says, self.protocol, self.drop, self.heard = says or {}, protocol, drop, []

    async def __aenter__(self):
        listener = tcp.bound_socket("127.0.0.1", 0)
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        self._tasks = set()
        self._server = await tcp.listen(listener, self._connected)
        return self

    async def __aexit__(self, *_error):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, stream):
        self._tasks.add(asyncio.ensure_future(self._talk(stream)))

    async def _talk(self, stream):
        packets = milter.Packets()
        while octets := await stream.read():
            for one in packets.feed(octets):
                self.heard.append((one.kind, one.data))
                if one.kind == self.drop:
                    stream.close()
                    return
                if one.kind == "O":
                    stream.write(packet("O", one.data[:8] + self.protocol.to_bytes(4, "big")))
                elif one.kind not in "DAQ" and not self.protocol & milter.NO_REPLY.get(one.kind, 0):
                    stream.write(self.says.get(one.kind, packet("c")))

    def kinds(self):
        return "".join(kind for kind, _ in self.heard if kind != "D")


def with_milter(tmp_path, *words, says=None, test=None, fallback="tempfail", more=None, **scripted):
    async def inside():
        async with Scripted(says, **scripted) as filter_:
            settings = {"milter": (Milter(address=filter_.address, fallback=fallback),), **(more or {})}
            async with House(tmp_path, more=settings) as house:
                replies = await (test(house) if test else house.said(*(words or LETTER)))
                return replies, await house.inbox(), filter_

    return asyncio.run(inside())


def test_it_hears_everything_and_changes_nothing(tmp_path):
    replies, (letter,), heard = with_milter(tmp_path)
    assert replies[-1].startswith("250") and "Subject: x\r\n\r\nbody" in letter
    assert heard.kinds() == "OCHMRTLLNBEQ"
    facts = dict(heard.heard)
    assert facts["C"] == b"[192.0.2.1]\x004\x9c@192.0.2.1\x00" and facts["H"] == b"x.test\x00"
    assert facts["M"] == b"<eve@evil.test>\x00" and facts["R"] == b"<alice@here.test>\x00"
    assert [data for kind, data in heard.heard if kind == "L"] == [b"From\x00<eve@evil.test>\x00", b"Subject\x00x\x00"]
    assert facts["B"] == b"body\r\n"
    names = b"".join(data for kind, data in heard.heard if kind == "D")
    assert b"{client_addr}\x00192.0.2.1\x00" in names and b"j\x00here.test\x00" in names


@pytest.mark.parametrize(
    ("stage", "answer", "at", "reply"),
    [
        ("C", packet("r"), 0, "550 5.7.1 refused by a filter"),
        ("H", packet("y", texts("554 5.7.9 go away")), 0, "554 5.7.9 go away"),
        ("M", packet("t"), 0, "451 4.7.1 refused by a filter for now; try again later"),
        ("R", packet("y", texts("550 no such friend")), 1, "550 5.7.1 no such friend"),
        ("L", packet("r"), -1, "550 5.7.1 refused by a filter"),
        ("E", packet("p") + packet("y", texts("451 4.3.2 busy")), -1, "451 4.3.2 busy"),
        ("E", packet("d"), -1, "250 2.0.0 ok"),
        ("E", packet("?"), -1, "451 4.7.1 a filter does not answer; try again later"),
        ("B", packet("y", texts("nonsense")), -1, "451 4.7.1 a filter does not answer; try again later"),
    ],
)
def test_what_it_refuses(tmp_path, stage, answer, at, reply):
    replies, inbox, _ = with_milter(tmp_path, says={stage: answer})
    assert replies[at] == reply and inbox == []


@pytest.mark.parametrize("stage", ["C", "M", "R", "L", "E"])
def test_what_it_throws_away_is_taken_and_gone(tmp_path, stage):
    replies, inbox, _ = with_milter(tmp_path, says={stage: packet("d")})
    assert [one[:3] for one in replies] == ["250", "250", "354", "250"] and inbox == []


def test_a_letter_that_never_came_is_told(tmp_path):
    _, inbox, heard = with_milter(tmp_path, LETTER[0], "RSET", *LETTER)
    assert heard.kinds() == "OCHMAMRTLLNBEQ" and len(inbox) == 1


def test_it_hears_who_speaks_now(tmp_path):
    async def test(house):
        hers = [line.replace("eve@evil.test", "alice@here.test") for line in LETTER]
        return await house.said(*LETTER, "XCLIENT ADDR=198.51.100.7 LOGIN=alice@here.test", "EHLO far.test", *hers)

    speakers = {"inbound": Inbound(xclient_networks=("192.0.2.0/24",))}
    _, inbox, heard = with_milter(tmp_path, test=test, more=speakers)
    assert len(inbox) == 2
    assert heard.kinds() == "OCHMRTLLNBEQ" + "OCHMRTLLLLNBEQ"  # a user's letter got a Date and a Message-ID
    names = [data for kind, data in heard.heard if kind == "D" and data.startswith(b"M")]
    assert b"auth_authen" not in names[0] and b"{auth_authen}\x00alice@here.test\x00" in names[1]
    assert [data.split(b"\x00")[0] for kind, data in heard.heard if kind == "C"] == [b"[192.0.2.1]", b"[198.51.100.7]"]


def test_what_it_changes(tmp_path):
    changes = [
        packet("h", texts("X-Added", "last\n\tfolded")),
        packet("i", b"\0\0\0\0" + texts("X-First", "top")),
        packet("m", b"\0\0\0\1" + texts("Subject", "[spam] x")),
        packet("m", b"\0\0\0\1" + texts("From", "")),
        packet("b", b"another "),
        packet("b", b"body\r\n"),
        packet("e", texts("<new@evil.test>")),
        packet("q", texts("look at it")),
        packet("c"),
    ]
    _, (letter,), _ = with_milter(tmp_path, says={"E": b"".join(changes)})
    assert letter.startswith("Return-Path: <new@evil.test>\r\n")
    assert letter.endswith("X-First: top\r\nSubject: [spam] x\r\nX-Added: last\r\n\tfolded\r\n\r\nanother body\r\n")


@pytest.mark.parametrize(("index", "names"), [(0, "XFS"), (1, "XFS"), (2, "FXS"), (3, "FSX"), (99, "FSX")])
def test_a_field_is_inserted_below_the_received_field_that_a_filter_does_not_see(tmp_path, index, names):
    change = packet("i", index.to_bytes(4, "big") + texts("X-New", "here"))
    _, (letter,), _ = with_milter(tmp_path, says={"E": change + packet("c")})
    fields = letter.partition("\r\n\r\n")[0].split("\r\n")
    assert "".join(field[0] for field in fields if field.startswith(("X-New", "From", "Subject"))) == names


def test_it_adds_and_removes_recipients(tmp_path):
    async def test(house):
        await house.store.database.write(lambda tx: directory.add_account(tx, "bob@here.test", 1))
        await house.said(*LETTER)
        return await house.store.database.read(lambda tx: tx.rows("SELECT account_id FROM message"))

    changes = (
        packet("+", texts("<bob@here.test>"))
        + packet("+", texts("<x@far.test>"))
        + packet("-", texts("<alice@here.test>"))
    )
    rows, _, _ = with_milter(tmp_path, says={"E": changes + packet("c")}, test=test)
    assert rows == [(2,)]  # bob's alone; nobody relays to far.test


def test_it_says_what_it_does_not_want_to_hear(tmp_path):
    wish = milter.NO_CONNECT | milter.NO_HELO | milter.NO_BODY | milter.NO_REPLY["L"] | milter.NO_REPLY["R"]
    replies, _, heard = with_milter(tmp_path, protocol=wish)
    assert replies[-1].startswith("250") and heard.kinds() == "OMRTLLNEQ"


def test_accept_ends_its_interest(tmp_path):
    _, inbox, heard = with_milter(tmp_path, says={"M": packet("a")})
    assert heard.kinds() == "OCHMQ" and len(inbox) == 1
    _, inbox, heard = with_milter(tmp_path / "c", *LETTER, *LETTER, says={"C": packet("a")})
    assert heard.kinds() == "OCQ" and len(inbox) == 2


@pytest.mark.parametrize(("fallback", "reply"), [("tempfail", "451"), ("accept", "250"), ("reject", "550")])
def test_a_filter_that_hangs_up_leaves_the_fallback(tmp_path, fallback, reply):
    replies, inbox, _ = with_milter(tmp_path, drop="E", fallback=fallback)
    assert replies[-1][:3] == reply and len(inbox) == (fallback == "accept")


def test_a_filter_that_is_not_there(tmp_path):
    async def inside():
        async with House(tmp_path, more={"milter": (Milter(address="127.0.0.1:9"),)}) as house:
            return await house.said(*LETTER)

    assert asyncio.run(inside())[0] == "451 4.7.1 a filter does not answer; try again later"


def test_opendkim_signs_and_our_verifier_believes_it(tmp_path):
    program = shutil.which("opendkim")
    if program is None:
        without("opendkim is not installed")
    pem = KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    (tmp_path / "key").write_bytes(pem)
    (tmp_path / "key").chmod(0o600)
    socket = tmp_path / "s"
    (tmp_path / "conf").write_text(
        f"Socket local:{socket}\nDomain evil.test\nSelector k\nKeyFile {tmp_path}/key\nCanonicalization relaxed/simple\n"
        f"Mode s\nInternalHosts 0.0.0.0/0\nSyslog no\nBackground no\nRequireSafeKeys no\nPidFile {tmp_path}/pid\n"
    )
    running = subprocess.Popen([program, "-f", "-x", str(tmp_path / "conf")], stderr=subprocess.PIPE)

    async def inside():
        for _ in range(500):
            if socket.exists():
                break
            await asyncio.sleep(0.01)
        async with House(tmp_path / "house", more={"milter": (Milter(address=str(socket)),)}) as house:
            replies = await house.said(*LETTER)
            return replies, await house.inbox()

    try:
        replies, inbox = asyncio.run(inside())
    finally:
        running.terminate()
        running.wait(10)
    assert replies[-1].startswith("250"), replies
    zone = Zone(texts={"k._domainkey.evil.test": [RECORD]})
    content = inbox[0].encode()
    (found,) = asyncio.run(dkim.verify(zone, dkim.take_apart(content), 2_000_000_000))
    assert (found.result, found.domain) == ("pass", "evil.test"), (found, inbox)


# -- a program


def by_program(tmp_path, script):
    async def inside():
        settings = {"filter": ContentFilter(program=(sys.executable, "-c", script))}
        async with House(tmp_path, more=settings) as house:
            return (await house.said(*LETTER))[-1], await house.inbox()

    return asyncio.run(inside())


def test_a_program_writes_the_letter_that_is_taken(tmp_path):
    script = "import sys, os; print('X-Seen:', os.environ['SENDER']); sys.stdout.write(sys.stdin.read())"
    reply, (letter,) = by_program(tmp_path, script)
    assert (
        reply.startswith("250")
        and "X-Seen: eve@evil.test\r\nFrom:" in letter
        and "\n" not in letter.replace("\r\n", "")
    )


@pytest.mark.parametrize("code", [*range(1, 130), -9])
def test_each_exit_code_means_one_thing(monkeypatch, code):
    """Whatever another attempt may mend is never final. Leaves the program out: its end is given."""

    async def ends(*_words):
        return code, b"", b"a reason"

    monkeypatch.setattr(filters.launcher, "run", ends)
    hop = Hop("smtp", "in", "192.0.2.1:5", 1.0)
    transaction = Transaction(hop, "x.test", Sender(NULL), [], [b"From: a@b.test\r\n\r\n"])
    verdict, *_ = asyncio.run(filters.Filters((), ("filter",), "here.test").content(transaction))
    final = {65, 67, 68, 77, *range(79, 99), 100}
    assert verdict.status.code == (250 if code == 99 else 550 if code in final else 451)


@pytest.mark.parametrize(
    ("script", "reply"),
    [
        ("import sys; sys.exit('x' * 9) if 0 else (sys.stderr.write('a virus\\n'), sys.exit(65))", "550 5.7.1 a virus"),
        ("raise SystemExit(75)", "451 4.7.1 a filter does not answer; try again later"),
        ("raise SystemExit(1)", "451 4.7.1 a filter does not answer; try again later"),
        ("pass", "451 4.7.1 a filter does not answer; try again later"),
        ("raise SystemExit(99)", "250 2.0.0 ok"),
    ],
)
def test_what_a_program_says_by_its_exit_code(tmp_path, script, reply):
    assert by_program(tmp_path, script) == (reply, [])


# -- a server


def test_letters_go_through_a_server_and_come_back(tmp_path):
    async def inside():
        async with Peer() as peer:
            settings = {"filter": ContentFilter(next_hop=f"lmtp://127.0.0.1:{peer.port}")}
            async with House(tmp_path, Route(to="smtp://127.0.0.1:9"), more=settings) as house:
                house.run()
                replies = await house.said(*LETTER)
                before = await house.inbox()
                await house.until(lambda: peer.letters)
                back = await house.said(*LETTER, service="filtered", peer="127.0.0.1")
                return replies[-1], before, peer.letters, back[-1], await house.inbox()

    reply, before, letters, back, inbox = asyncio.run(inside())
    assert reply.startswith("250") and before == []
    ((sender, recipients, content),) = letters
    assert (sender, recipients) == ("eve@evil.test", ["alice@here.test"]) and b"Subject: x" in content
    assert back.startswith("250") and len(inbox) == 1

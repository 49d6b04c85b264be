"""Three readers, one author: our header reader, Python's `email` and Dovecot's ENVELOPE agree on From, Subject and
Date of every message, or `message.ambiguity` or `message.octets` says that they may not.

Ten thousand messages by seeded mutation of a small corpus, and the corpus itself; Dovecot reads them in one mailbox
by one FETCH. Leaves out: readers that nobody can run here (Outlook, webmail), and what a person makes of a display name.
"""

import email
import email.utils
import os
import random
import re
import subprocess
from pathlib import Path

import pytest
from server import have, without

from fubako.message import mailboxes
from fubako.message.ambiguity import author_is_ambiguous, field_is_ambiguous
from fubako.message.headers import first_fields, header_end
from fubako.message.octets import irregularity

MUTATED = 10_000
SEED = 20261126
FIRST = 1_000_000_000  # the seconds of the first file, by which messages are told apart
BODY = b"\r\n\r\nFrom: body@b.test\r\nbody\r\n"
CORPUS = [
    b"From: alice@here.test\r\nTo: bob@there.test\r\nSubject: hello\r\nDate: Thu, 26 Nov 2026 12:00:00 +0900",
    (
        b'Received: from a by b;\r\n\tThu, 26 Nov 2026 12:00:00 +0900\r\nFrom: "Doe, Jane \\"JD\\"" <jane.doe@here.test>\r\n'
        b"Subject: long\r\n and folded\r\n\ttwice\r\nDate: 1 Jan 2027 00:00:00 GMT"
    ),
    b"Date: Thu, 26 Nov 2026 12:00:00 +0000 (UTC)\r\nFrom: a@b.test (A. B. Comment)\r\nSubject: =?utf-8?q?caf=C3=A9?=",
    b"From: =?utf-8?b?5paH566x?= <bun@here.test>, Second <two@there.test>\r\nSender: bun@here.test\r\nSubject: x",
    b"Subject:\r\nFrom: John Q. Public <john+q=x@[192.0.2.1]>\r\nDate: Thu, 26 Nov 26 12:00 EST",
    "From: J\u00fcrgen <j\u00fcrgen@b\u00fccher.test>\r\nSubject: \u6587\u7bb1".encode(),
    b"From: Undisclosed: a@b.test, c@d.test;\r\nSubject: group\r\nDate: x",
    b"From: <@relay.test:ceo@bank.test>\r\nSubject: route",
    b'From: "quoted local"@here.test\r\nSubject: quoted',
    b"From: ceo@bank.test <eve@evil.test>\r\nSubject: display",
    b"From: (ceo@bank.test) eve@evil.test\r\nSubject: comment",
    b"From: eve@evil.test\r\nFrom: ceo@bank.test\r\nSubject: two\r\nSubject: three",
    b"no field\r\nFrom: eve@evil.test\r\nSubject: x",
    b"From : eve@evil.test\r\nSubject : x",
    b"From: eve@evil.test\r\n \r\nFrom: ceo@bank.test\r\nSubject: blank",
    b"X: y\r\n z\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\nFrom: eve@evil.test\r\nsubject:no blank\r\nDATE: x",
]
PIECES = [
    b"\r\n", b"\r\n ", b"\r\n\t", b"\r\n \r\n", b" ", b"\t", b":", b",", b";", b"<", b">", b"(", b")", b'"', b"\\", b"@",
    b"[", b"]",
    b"=?utf-8?q?ceo=40bank.test?=", b"=?utf-8?b?PGNlb0BiYW5rLnRlc3Q+?=", b"From: ceo@bank.test\r\n", b"\r\nfrom: ceo@bank.test",
    b"\r\nFrom", b"ceo@bank.test", b"<ceo@bank.test>", b", ceo@bank.test", b"\r\nSubject: again\r\n", b"\r\nDate: now\r\n", b"\x01",
    b"\x7f", b"\x80", b"\xc3\xa9", b"\xff", b"\r\nX\r\n", b"\r\n: x\r\n", b".", b"..", b"%", b"!", b"\r", b"\n", b"\0", b"group: ",
]  # fmt: skip


def mutated(chance: random.Random) -> bytes:
    header = bytearray(chance.choice(CORPUS))
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3))):
        at = chance.randrange(len(header) + 1)
        if chance.random() < 0.6:  # where it hurts: in the field that names the author
            place = bytes(header).lower().find(b"from")
            at = min(len(header), max(0, place + chance.randrange(-3, 45)))
        match chance.randrange(5):
            case 0 | 1 | 2:
                header[at:at] = chance.choice(PIECES)
            case 3:
                del header[at : at + chance.randrange(1, 4)]
            case 4:
                lines = bytes(header).split(b"\r\n")
                chance.shuffle(lines)
                header = bytearray(b"\r\n".join(lines))
    return bytes(header) + BODY


def messages() -> list[bytes]:
    chance = random.Random(SEED)
    return [header + BODY for header in CORPUS] + [mutated(chance) for _ in range(MUTATED)]


# -- the readers; each gives (addresses in From, Subject, Date)

Read = tuple[list[tuple[bytes, bytes]], bytes, bytes]


def plain(value: bytes) -> bytes:
    """White space is nobody's matter here."""
    return re.sub(rb"[ \t\r\n]+", b" ", value).strip(b" ")


def by_us(content: bytes) -> Read:
    fields = first_fields(content[: header_end(content)])
    boxes = [box for box in mailboxes.parse_list(fields.get(b"from", b"")) if box.mailbox is not None]
    people = [(box.mailbox or b"", box.host or b"") for box in boxes]
    return people, plain(fields.get(b"subject", b"")), plain(fields.get(b"date", b""))


def by_python(content: bytes) -> Read:
    message = email.message_from_bytes(content)
    first: dict[str, str] = {}
    for name, value in message.raw_items():
        first.setdefault(name.lower(), value)

    def octets(name: str) -> bytes:
        return first.get(name, "").encode("ascii", "surrogateescape")

    pairs = email.utils.getaddresses([first.get("from", "").replace("\r\n", "")])
    found = [address.encode("ascii", "surrogateescape").rpartition(b"@") for _, address in pairs if address]
    return [(local, host) for local, _, host in found], plain(octets("subject")), plain(octets("date"))


def by_dovecot(folder: Path, count: int) -> list[Read]:
    """The replies to one FETCH, in the order of the files."""
    (folder / "home").mkdir()
    settings = {
        "log_path": folder / "log", "mail_location": f"maildir:{folder}/mail", "base_dir": folder / "run", "ssl": "no",
        "protocols": "imap", "first_valid_uid": 1,
    }  # fmt: skip
    (folder / "conf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
    subprocess.run(["chown", "-R", "65534:65534", folder], check=True)
    for parent in folder.parents:  # pytest's folders are the owner's alone
        if parent != Path("/tmp") and parent.is_relative_to("/tmp"):
            parent.chmod(0o711)
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "USER=nobody", f"HOME={folder}/home"]
    with subprocess.Popen(
        [*words, "doveadm", "-c", folder / "conf", "exec", "imap"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        process.stdin.write(b"a SELECT INBOX\r\nb FETCH 1:* (INTERNALDATE ENVELOPE)\r\nc LOGOUT\r\n")
        process.stdin.flush()  # and left open: at the end of its input Dovecot ends
        said = process.stdout.read()
    found: dict[int, Read] = {}
    place = 0
    while (place := said.find(b" FETCH (", place)) >= 0:
        values, place = _values(said, place + len(b" FETCH "))
        assert isinstance(values, list)
        envelope = values[values.index(b"ENVELOPE") + 1]
        when = email.utils.parsedate_to_datetime(values[1].strip().decode().replace("-", " "))
        people = [one for one in envelope[2] or [] if one[2] is not None]
        found[int(when.timestamp()) - FIRST] = (
            [(one[2] or b"", one[3] or b"") for one in people], plain(envelope[1] or b""), plain(envelope[0] or b"")
        )  # fmt: skip
    assert sorted(found) == list(range(count))
    return [found[number] for number in range(count)]


_ATOM = re.compile(rb"[^ ()\r\n]+")


def _values(said: bytes, place: int):
    """What stands at a place of an IMAP response: a list, a string, NIL as None, or an atom; and the place behind it."""
    if said[place : place + 1] == b"(":
        found = []
        place += 1
        while said[place : place + 1] != b")":
            if said[place : place + 1] == b" ":
                place += 1
                continue
            value, place = _values(said, place)
            found.append(value)
        return found, place + 1
    if said[place : place + 1] == b'"':
        match = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL).match(said, place)
        return re.sub(rb"\\(.)", rb"\1", match.group(1), flags=re.DOTALL), match.end()
    literal = re.compile(rb"\{(\d+)\}\r\n").match(said, place)
    if literal:
        end = literal.end() + int(literal.group(1))
        return said[literal.end() : end], end
    match = _ATOM.match(said, place)
    return None if match.group() == b"NIL" else match.group(), match.end()


@pytest.fixture(scope="module")
def everybody(tmp_path_factory):
    """(message, what we, Python and Dovecot read in it)."""
    if not have("doveadm") or os.getuid() != 0:
        without("not installed, or not root: dovecot")
    folder = tmp_path_factory.mktemp("dovecot")
    for part in ("cur", "new", "tmp"):
        (folder / "mail" / part).mkdir(parents=True)
    given = messages()
    for number, content in enumerate(given):
        path = folder / "mail" / "cur" / f"{FIRST + number}.M1P1.x:2,"
        path.write_bytes(content)
        os.utime(path, (FIRST + number, FIRST + number))
    read = by_dovecot(folder, len(given))
    return [(one, by_us(one), by_python(one), dovecot) for one, dovecot in zip(given, read, strict=True)]


def test_readers_agree_about_the_author_or_we_say_that_they_may_not(everybody):
    plainly = 0
    for content, us, python, dovecot in everybody:
        if irregularity(content) is None and author_is_ambiguous(content) is None:
            plainly += 1
            assert (us[0], content) == (python[0], content)
            assert (us[0], content) == (dovecot[0], content)
    assert plainly > len(everybody) // 6, plainly  # it does not agree by saying nothing


@pytest.mark.parametrize(("place", "name"), [(1, b"subject"), (2, b"date")])
def test_readers_agree_about_subject_and_date(everybody, place, name):
    plainly = 0
    for content, us, python, dovecot in everybody:
        if irregularity(content) is None and field_is_ambiguous(content, name) is None:
            plainly += 1
            assert (us[place], content) == (python[place], content)
            assert (us[place], content) == (dovecot[place], content)
    assert plainly > len(everybody) // 4, plainly


def test_where_they_do_not_agree_they_were_not_to(everybody):
    """The mutations bite: without the marks there would be disagreement."""
    assert sum(us[0] != python[0] or us[0] != dovecot[0] for _, us, python, dovecot in everybody) > 500

"""What stands on the screen, cell by cell. To write the pictures anew: FUBAKO_SNAPSHOTS=write pytest tests/reader; then
look at them."""

import asyncio
import os
from pathlib import Path

import pytest

from fubako.client.mailbox import Entry, Folder
from fubako.client.roads import Roads
from fubako.client.settings import Account
from fubako.clock import Env
from fubako.net.interface import CertificateFacts
from fubako.reader.app import Reader
from fubako.reader.road import Asked
from fubako.reader.screens import Certificate
from fubako.trust.known import KnownPeers

PICTURES = Path(__file__).parent / "snapshots"
LETTER = (
    b"Received: from out.x.test by mx.here.test with ESMTPS id 2; Thu, 2 Jan 2020 00:00:01 +0000\r\n"
    b"Received: from laptop by out.x.test with ESMTP id 1; Thu, 2 Jan 2020 00:00:00 +0000\r\n"
    b"Date: Thu, 2 Jan 2020 00:00:00 +0000\r\nFrom: Ann <ann@x.test>\r\nTo: me@here.test\r\n"
    b"Subject: The plan\r\nMessage-ID: <1@x>\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n> quoted\r\nGr\xc3\xbc\xc3\x9fe \xe6\x89\x8b\xe7\xb4\x99\r\n"
    b"--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=plan.pdf\r\n\r\n%PDF\r\n--b--\r\n"
)


class Box:
    """A mailbox of three letters, without a server."""

    def __init__(self, count: int = 3) -> None:
        self.exists = count
        self.told: list[tuple] = []

    async def entries(self):
        subjects = ["The plan", "Re: The plan", "手紙 with \x1b[2J a trap"]
        seals = ["$SealSealed", "$SealCovered", "$SealOpen"]
        made = []
        for n in range(self.exists):
            flags = {seals[n % 3]} | ({"\\Seen", "\\Flagged"} if n == 0 else set())
            parent = "<0@x>" if n == 1 else ""
            made.append(
                Entry(
                    n + 1,
                    flags,
                    1200 * (n + 1),
                    1577923200 + n,
                    subjects[n % 3],
                    "Ann",
                    "ann@x.test",
                    (),
                    f"<{n}@x>",
                    parent,
                )
            )
        for at in range(0, len(made), 500):
            yield made[at : at + 500]

    async def folders(self):
        return [Folder("INBOX", "INBOX"), Folder("手紙", "&YksSew-"), Folder("Gesendet", "Gesendet", "sent")]

    async def letter(self, _uid):
        return LETTER

    async def look(self):
        return False

    async def store(self, *what):
        self.told.append(what)


class Road:
    state = "sealed: mail.here.test:993, TLSv1.3 TLS_AES_128_GCM_SHA256, believed by public, me by SCRAM-SHA-256-PLUS"

    def __init__(self, box: Box) -> None:
        self.box = box

    async def folder(self, _wire, *, read_only=False):
        return self.box

    async def use(self, work, *, again=True):
        return await work(self.box)

    async def close(self):
        pass


def made(tmp_path, count: int = 3) -> Reader:
    os.environ["TZ"] = "UTC"
    account = Account(name="here", protocol="imap", host="mail.here.test", user="me@here.test")
    reader = Reader(account, Roads(KnownPeers(tmp_path / "known.json"), Env()), Asked(), home=tmp_path)
    reader.road = Road(Box(count))
    return reader


def picture(reader: Reader) -> str:
    rows = reader.screen._compositor.render_strips(reader.screen.size)
    return "".join("".join(segment.text for segment in row).rstrip() + "\n" for row in rows)


def drawn(tmp_path, name: str, *keys: str, size=(100, 16), before=None) -> None:
    async def run() -> str:
        reader = made(tmp_path)
        async with reader.run_test(size=size) as pilot:
            await pilot.pause(0.1)
            if before is not None:
                before(reader)
            for key in keys:
                await pilot.press(key)
                await pilot.pause(0.03)
            await pilot.pause(0.1)
            return picture(reader)

    found = asyncio.run(run())
    path = PICTURES / f"{name}.txt"
    if os.environ.get("FUBAKO_SNAPSHOTS") == "write":
        path.write_text(found)
    assert found == path.read_text()


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("list", ""), ("threads", "o"), ("marked", "equals_sign d t F"), ("limited", "l ~ q space s e a l e d enter"),
        ("asked", "l ~"), ("letter", "equals_sign enter"), ("every-field", "equals_sign enter h"), ("journey", "equals_sign J"),
        ("attached", "equals_sign v"), ("folders", "y"), ("leaving", "equals_sign d q"), ("a-fault", "l ~ z enter"),
    ],
)  # fmt: skip
def test_screens(tmp_path, name, keys):
    drawn(tmp_path, name, *keys.split())


def test_narrow(tmp_path):
    drawn(tmp_path, "narrow", size=(40, 8))


def test_the_certificate(tmp_path):
    facts = CertificateFacts(
        subject="CN=mail.here.test", issuer="CN=Somebody \x1b[2J", not_before=1577836800, not_after=1609459200,
        dns_names=("mail.here.test",), ip_names=(), sha256="ab" * 32, spki_sha256="cd" * 32, md5="ef" * 16,
    )  # fmt: skip
    drawn(
        tmp_path,
        "certificate",
        before=lambda reader: reader.push_screen(Certificate(facts, "it has expired")),
        size=(100, 18),
    )


def test_a_hundred_thousand_letters(tmp_path):
    """Only what is in view is drawn: the end of a large folder is one key away."""

    async def run() -> str:
        reader = made(tmp_path, 100_000)
        async with reader.run_test(size=(100, 12)) as pilot:
            for _ in range(600):
                await pilot.pause(0.03)
                if len(reader.entries) == 100_000 and len(reader.letters.rows) == 100_000:
                    break
            await pilot.press("asterisk")
            await pilot.pause(0.03)
            return picture(reader)

    assert "100000 " in asyncio.run(run())

"""Postfix as another site: our queue delivers to it and hears its refusals; it relays to us."""

import asyncio
import email
import os
import smtplib
import subprocess
import time

import pytest
from memory_server import certificates
from peer import House
from peers import Postfix
from server import without
from test_programs import kept

from fubako.config import Route

CA = str(certificates() / "ca.pem")


@pytest.fixture
def postfix(tmp_path, needs):
    needs("postfix")
    if os.getuid() != 0:
        without("Postfix starts only as root")
    for folder in (tmp_path, *tmp_path.parents):
        if "pytest-of" in str(folder):
            folder.chmod(0o755)  # its processes become other users
    root = tmp_path / "postfix"
    running = []

    def start(**settings):
        certificate = certificates()
        server = Postfix(root, certificate / "s.pem", certificate / "s.key", **settings)
        running.append(server)
        return server.start()

    yield start
    for server in running:
        server.stop()


def test_to_postfix_over_verified_tls(tmp_path, postfix):
    site = postfix()
    route = Route(domain="fubako.test", to=f"smtp://localhost:{site.ports['smtp']}", tls="verify", ca_files=(CA,))

    async def test():
        (tmp_path / "ours").mkdir()
        async with House(tmp_path / "ours", route) as house:
            await house.send("user1@fubako.test", "nobody@fubako.test", "user2@fubako.test", notify="SUCCESS,FAILURE")
            house.run()
            await house.until(lambda: len(list((site.root / "mail").glob("user[12]/new/*"))) == 2, 30)
            (report,) = await house.until(house.inbox, 30)
            await house.quiet()
            assert not await house.entries()
            sent = await house.store.database.read(
                lambda tx: tx.rows("SELECT address, code, journey FROM sent ORDER BY 1")
            )
            assert [row[:2] for row in sent] == [
                ("nobody@fubako.test", 550), ("user1@fubako.test", 250), ("user2@fubako.test", 250)
            ]  # fmt: skip
            assert '"tls_version":"TLSv1.3"' in sent[1][2]
            assert "an authority of the route" in sent[1][2]
            return report

    report = email.message_from_string(asyncio.run(test()))
    assert report.get_content_type() == "multipart/report"
    people, programs, returned = report.get_payload()
    assert "nobody@fubako.test" in people.get_payload()
    fields = programs.get_payload()
    assert fields[0]["Reporting-MTA"] == "dns; here.test"
    assert (fields[1]["Action"], fields[1]["Status"]) == ("failed", "5.1.1")
    assert returned.get_content_type() == "text/rfc822-headers"
    (letter,) = [path.read_bytes() for path in (site.root / "mail").glob("user1/new/*")]
    assert letter.startswith(b"Return-Path: <alice@here.test>")
    assert letter.endswith(b"\n\n.dots and body\n")


def test_to_postfix_that_hides_starttls(tmp_path, postfix):
    """It offered TLS the day before yesterday and yesterday. Today it does not, so nothing is said to it."""
    site = postfix()
    route = Route(domain="fubako.test", to=f"smtp://localhost:{site.ports['smtp']}", ca_files=(CA,))

    async def test():
        (tmp_path / "ours").mkdir()
        async with House(tmp_path / "ours", route) as house:
            house.run()
            for count in (1, 2):
                await house.send("user1@fubako.test")
                await house.until(lambda n=count: len(list((site.root / "mail").glob("user1/new/*"))) == n, 30)
                await house.quiet()
                house.clock.at += 86_400 + 60
            config = str(site.root / "etc")
            for command in (
                ["postconf", "-c", config, "-e", "smtpd_tls_security_level=none"],
                ["postfix", "-c", config, "reload"],
            ):
                await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
            await asyncio.sleep(1.5)  # its old processes end
            await house.send("user1@fubako.test")
            (one,) = await house.until(lambda: _tried(house), 30)
            assert "offers no encryption" in one.status
            assert len(list((site.root / "mail").glob("user1/new/*"))) == 2

    async def _tried(house):
        entries = await house.entries()
        return entries if entries and entries[0].attempts else None

    asyncio.run(test())


def test_from_postfix(server, user, postfix):
    site = postfix(sink=server.port("smtp"))
    with smtplib.SMTP("127.0.0.1", site.ports["smtp"]) as client:
        client.sendmail("x@elsewhere.test", [user[0]], "Subject: from postfix\r\n\r\nhello\r\n")
    end = time.monotonic() + 30
    while not (letters := kept(server, user)) and time.monotonic() < end:
        time.sleep(0.2)
    (letter,) = letters
    assert b"Subject: from postfix" in letter
    assert b"by bench.test (Postfix)" in letter

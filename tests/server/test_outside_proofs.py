"""Sessions of those who have no name, and of those whom SSH proved already."""

import asyncio

import pytest
from peer import House

from fubako.accounts import directory
from fubako.accounts.identity import Identity
from fubako.accounts.login import LoginRules
from fubako.admin import users
from fubako.net.interface import SshFacts
from fubako.net.memory import pair
from fubako.server.imap import ImapSession
from fubako.server.pop3 import Pop3Session
from fubako.server.session import Arrival
from fubako.server.smtp import SmtpSession

ALICE = "alice@here.test"
FACTS = SshFacts(ALICE, "ssh-ed25519 SHA256:x", "SHA256:x", "aes256-gcm@openssh.com")
ALL = ("ANONYMOUS", "EXTERNAL", "PLAIN")


def talk(tmp_path, kind, service, *lines, came_as="", ssh=FACTS, rules=None, proved=False):
    async def run():
        async with House(tmp_path) as house:
            house.app.resources.logins.follow(rules or LoginRules(ALL, anonymous=ALICE))
            await users.add_user(house.store.database, house.app.env, "bob@here.test", "bobs words here")
            await house.submit(b"From: a@b.test\r\nSubject: public\r\n\r\nx\r\n", ALICE)
            ours, theirs = pair()
            ours.ssh = ssh
            identity = None
            if proved:
                account = await house.store.database.read(lambda tx: directory.account(tx, ALICE))
                identity = Identity(account, "publickey")
            task = asyncio.ensure_future(
                kind(house.app.resources, Arrival(ours, service, None, False, identity, came_as)).run()
            )
            theirs.write("".join(f"{line}\r\n" for line in lines).encode())
            heard = b""
            while octets := await theirs.read():
                heard += octets
            await task
            rows = await house.store.database.read(lambda tx: tx.rows("SELECT flags FROM message WHERE account_id=1"))
            return heard.decode(), [row[0] for row in rows]

    return asyncio.run(run())


WRITING = (
    "STORE 1 +FLAGS (\\Deleted)", "COPY 1 Trash", "MOVE 1 Trash", "EXPUNGE", "CREATE x", "DELETE Trash", "RENAME Trash x",
    "SUBSCRIBE x",
    "APPEND INBOX {1+}\r\nx",
)  # fmt: skip


def test_who_has_no_name_may_read_by_imap_and_change_nothing(tmp_path):
    tries = [f"w {one}" for one in WRITING]
    lines = ["a AUTHENTICATE ANONYMOUS =", "b SELECT INBOX", "c FETCH 1 (BODY[])", *tries, "d CLOSE", "e LOGOUT"]
    heard, flags = talk(tmp_path, ImapSession, "imap", *lines)
    assert "a OK" in heard and "b OK [READ-ONLY]" in heard and "Subject: public" in heard and "d OK" in heard
    assert heard.count("w NO [NOPERM]") == len(WRITING)
    assert flags == [0]


def test_who_has_no_name_may_read_by_pop3_and_delete_nothing(tmp_path):
    heard, flags = talk(tmp_path, Pop3Session, "pop3", "AUTH ANONYMOUS", "", "RETR 1", "DELE 1", "QUIT")
    assert "+OK 1 messages" in heard and "Subject: public" in heard and "-ERR who has no name may only read" in heard
    assert len(flags) == 1


def test_who_has_no_name_sends_nothing(tmp_path):
    heard, _ = talk(tmp_path, SmtpSession, "submission", "EHLO x", "AUTH ANONYMOUS =", "MAIL FROM:<>", "QUIT")
    assert "ANONYMOUS" not in heard and "504 5.5.4" in heard and "530 5.7.0" in heard


@pytest.mark.parametrize("enabled", [LoginRules(("EXTERNAL", "PLAIN"), anonymous=ALICE), LoginRules(ALL)])
def test_anonymous_takes_both_settings(tmp_path, enabled):
    heard, _ = talk(tmp_path, ImapSession, "imap", "a AUTHENTICATE ANONYMOUS =", "b LOGOUT", rules=enabled)
    assert "AUTH=ANONYMOUS" not in heard and "a NO" in heard


def test_whom_ssh_proved_needs_no_password(tmp_path):
    """A forwarded connection asks for a login, and EXTERNAL is one."""
    heard, _ = talk(
        tmp_path, ImapSession, "imap", "a AUTHENTICATE EXTERNAL =", "b SELECT INBOX", "c LOGOUT", came_as=ALICE
    )
    assert "AUTH=EXTERNAL" in heard and "a OK" in heard and "b OK [READ-WRITE]" in heard
    heard, _ = talk(
        tmp_path / "2", ImapSession, "imap", "a AUTHENTICATE EXTERNAL Ym9iQGhlcmUudGVzdA==", "c LOGOUT", came_as=ALICE
    )
    assert "a NO [AUTHENTICATIONFAILED]" in heard
    heard, _ = talk(tmp_path / "3", ImapSession, "imap", "a AUTHENTICATE EXTERNAL =", "c LOGOUT")
    assert "AUTH=EXTERNAL" not in heard and "a NO" in heard


def test_without_ssh_or_tls_nothing_is_offered(tmp_path):
    heard, _ = talk(tmp_path, ImapSession, "imap", "a AUTHENTICATE ANONYMOUS =", "b LOGIN a b", "c LOGOUT", ssh=None)
    assert "AUTH=" not in heard and "LOGINDISABLED" in heard and heard.count("NO [PRIVACYREQUIRED]") == 2

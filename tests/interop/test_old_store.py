"""Messages that were taken before line ends were made regular: POP3 programs fetch them and keep in step.

Left out: what IMAP programs make of them; a literal has its length.
"""

import asyncio
import mailbox
import time

import pytest
from test_programs import Terminal, run

from fubako import app
from fubako.accounts import directory
from fubako.delivery.letters import describe
from fubako.store import messages

FIRST = b"From: a@x.test\r\nSubject: first of all\r\n\r\nbefore\r\n"
LAST = b"From: a@x.test\r\nSubject: last of all\r\n\r\nafter\r\n"
HEAD = b"From: eve@x.test\r\nSubject: an old one\r\n\r\n"
OLD = {
    "a dot between line feeds": HEAD + b"hi\n.\n+OK 0 messages\nthere\r\n",
    "a dot behind a line feed": HEAD + b"hi\n.\r\n-ERR gone\r\nthere\r\n",
    "a dot before a line feed": HEAD + b"hi\r\n.\n+OK\r\nthere\r\n",
    "a dot between carriage returns": HEAD + b"hi\r.\rthere\r\n",
    "a dot at the end": HEAD + b"hi\n.",
    "a dot at the end of a line feed": HEAD + b"there\n.\n",
    "a carriage return at the end": HEAD + b"there\r\n.\r",
    "a dot in the header": b"From: eve@x.test\r\nX: y\n.\nSubject: an old one\r\n\r\nthere\r\n",
    "a NUL": HEAD + b"hi\0\n.\n\0there\r\n",
}


def put(server, user, *contents: bytes) -> None:
    """Straight into the store, past every door."""

    async def work() -> None:
        store = app.open_store(server.root / "store")
        try:
            account = await store.database.read(lambda tx: directory.account(tx, user[0]))
            for content in contents:
                blob = await store.blobs.put([content])
                made = describe(content, blob, internaldate=int(time.time()))
                await store.database.write(
                    lambda tx, made=made: messages.deliver(tx, [account.account_id], made, int(time.time()))
                )
        finally:
            await store.close()

    asyncio.run(work())


@pytest.mark.parametrize("what", OLD)
def test_fetchmail_keeps_in_step(server, user, home, needs, what):
    needs("fetchmail")
    put(server, user, FIRST, OLD[what], LAST)
    rc = home / "fetchmailrc"
    rc.write_text(
        f"poll localhost protocol pop3 service {server.port('pop3s')} uidl bad-header accept"
        f' user "{user[0]}" password "{user[1]}" keep ssl sslcertck'
        f' sslcertfile "{server.ca}" mda "cat >> {home}/got; echo >> {home}/got"\n'
    )
    rc.chmod(0o600)
    for code in (0, 1):  # 1: there is no new mail
        done = run(
            "fetchmail",
            "--nosyslog",
            "-v",
            "--pidfile",
            str(home / "pid"),
            "-f",
            str(rc),
            home=home,
            FETCHMAILHOME=str(home),
        )
        assert done.returncode == code, done.stdout[-5000:].decode() + done.stderr.decode()
    got = (home / "got").read_bytes()
    places = [got.index(words) for words in (b"first of all", b"before", b"an old one", b"last of all", b"after")]
    assert places == sorted(places) and got.count(b"Subject: ") == 3
    assert b"there" in got or b"there" not in OLD[what]


@pytest.mark.parametrize("what", ["a dot between line feeds", "a dot at the end", "a dot in the header"])
def test_mutt_keeps_in_step(server, user, home, needs, what):
    needs("mutt", "tmux")
    put(server, user, FIRST, OLD[what], LAST)
    rc = home / "muttrc"
    rc.write_text(
        f'set pop_pass="{user[1]}" ssl_ca_certificates_file={server.ca} sleep_time=0 wait_key=no folder="{home}"\n'
        'set mbox_type=mbox pop_authenticators="scram-sha-256"\n'  # it knows no binding to TLS 1.3
        'set quit=yes delete=yes confirmappend=no confirmcreate=no copy=no record=""\n'
    )
    terminal = Terminal(
        home, "pop", f"mutt -n -F {rc} -f pops://{user[0].replace('@', '%40')}@localhost:{server.port('pop3s')}/"
    )
    try:
        terminal.wait("last of all")
        for number in range(3):
            terminal.keys(*str(number + 1), "Enter")
            terminal.keys("C")
            terminal.keys(*(["C-u"]), *f"{home}/kept", "Enter")
            end = time.monotonic() + 30
            while not (home / "kept").exists() or len(mailbox.mbox(home / "kept")) <= number:
                assert time.monotonic() < end, terminal.screen()
                time.sleep(0.1)
        terminal.keys("q")
    finally:
        terminal.close()
    kept = [str(one["subject"]) for one in mailbox.mbox(home / "kept")]
    assert kept == ["first of all", "an old one", "last of all"] or what == "a dot in the header"
    assert len(kept) == 3 and kept[-1] == "last of all"

"""What was expunged, and whoever was removed, is gone from every file of the store once the house has been kept.

Left out: other workers, which keep segments that were removed open until they end; blocks of the disk below the file
system; backups.
"""

import asyncio
from pathlib import Path

from fubako import app
from fubako.accounts import directory
from fubako.config import Config
from fubako.store import mailboxes, messages
from fubako.store.messages import Letter
from fubako.telemetry import Telemetry

GONE = (b"vanishingword", b"Removedperson")
STAYS = b"remainingword"
NOW = 2_000_000_000.0


def found(store: Path, word: bytes) -> list[str]:
    return [
        str(path.relative_to(store))
        for path in store.rglob("*")
        if path.is_file() and word.lower() in path.read_bytes().lower()
    ]


def message(word: bytes) -> bytes:
    return b"From: a@a.test\r\nSubject: about " + word + b"\r\n\r\nBody with " + word + b" twice.\r\n"


async def deliver(application: app.Application, account_id: int, content: bytes) -> None:
    store = application.store
    ref = await store.blobs.put([content])
    subject = content.split(b"\r\n")[1]
    letter = Letter(ref, content.index(b"\r\n\r\n") + 4, b"(" + subject + b")", b"()", 1)
    await store.database.write(lambda tx: messages.deliver(tx, [account_id], letter, 1))


async def index(application: app.Application, account_id: int) -> None:
    key = (account_id, mailboxes.INBOX_ID)
    uids = await application.store.database.read(lambda tx: messages.uids(tx, *key))
    await application.store.indexer.catch_up(*key, uids)


async def kept(root: Path) -> None:
    config = Config(hostname="h.test", directory="store")
    application = app.Application(config, root, app.open_store(root / "store"), Telemetry(quiet=True))
    try:
        await one_life(application, root / "store")
    finally:
        await application.close()


async def one_life(application: app.Application, store: Path) -> None:
    database = application.store.database

    def setup(tx):
        directory.add_domain(tx, "a.test", 1)
        return directory.add_account(tx, "u@a.test", 1), directory.add_account(tx, "removed@a.test", 1)

    await database.write(setup)
    stays, removed = [
        (await database.read(lambda tx, a=address: directory.account(tx, a))).account_id
        for address in ("u@a.test", "removed@a.test")
    ]
    for account_id, word in ((stays, GONE[0]), (stays, STAYS), (removed, GONE[1])):
        await deliver(application, account_id, message(word))
    for account_id in (stays, removed):
        await index(application, account_id)
    for word in (*GONE, STAYS):
        assert any("search" in name for name in found(store, word)), "the test looks at nothing"
        assert any("segment" in name for name in found(store, word))
    await database.write(lambda tx: messages.expunge(tx, stays, mailboxes.INBOX_ID, [1], flagged=False))
    await database.write(lambda tx: directory.remove_account(tx, "removed@a.test"))
    await application.leave_segment()
    await deliver(application, stays, message(b"another"))
    await application.erase(NOW)
    for word in GONE:
        assert found(store, word) == []
    assert found(store, STAYS)
    assert (await application.store.indexer.find(stays, mailboxes.INBOX_ID, [2, 3], "remainingword", "body")).uids == {
        2
    }
    await index(application, stays)
    assert (await application.store.indexer.find(stays, mailboxes.INBOX_ID, [2, 3], "another", "body")).uids == {3}
    # within half of the hours contents are not looked at again
    await deliver(application, stays, message(b"laterword"))
    assert application._erasing_due(NOW + 60) is None
    assert application._erasing_due(NOW + 12 * 3600) is not None


def test_nothing_of_what_is_gone_stays_in_the_store(tmp_path):
    asyncio.run(kept(tmp_path))

"""Compaction gives room back and loses nothing."""

from types import SimpleNamespace

from fubako.accounts import directory
from fubako.store import mailboxes, messages
from fubako.store.disk import OsDisk
from fubako.store.messages import Letter
from fubako.store.segments import SegmentCore
from fubako.store.sqlite import SqliteCore
from fubako.store.verify import compact, verify


def test_what_lives_is_moved_and_the_rest_given_back(tmp_path):
    (tmp_path / "segments").mkdir()
    database = SqliteCore(str(tmp_path / "mail.sqlite"))
    segments = SegmentCore(OsDisk(), str(tmp_path / "segments"), segment_max=10_000)
    quiet = SimpleNamespace(calls=0)

    def progress(_done, _all):
        quiet.calls += 1

    def setup(tx):
        directory.add_domain(tx, "a.test", 1)
        directory.add_account(tx, "u@a.test", 1)

    database.commit([setup])
    contents = [bytes([i]) * 3000 for i in range(20)]
    for content in contents:
        (ref,) = segments.put([[content]])
        database.commit([lambda tx, r=ref: messages.deliver(tx, [1], Letter(r, 0, b"()", b"()", 1), 1)])
    gone = [uid for uid in range(1, 21) if uid % 5]
    database.commit([lambda tx: messages.expunge(tx, 1, mailboxes.INBOX_ID, gone, flagged=False)])
    before = len(segments.numbers())
    given_back = compact(database, segments, quiet_seconds=-1)
    assert given_back > 30_000
    assert len(segments.numbers()) < before
    for uid in (5, 10, 15, 20):
        (blob_id,) = database.read(lambda tx, u=uid: tx.row("SELECT blob_id FROM message WHERE uid=?", (u,)))
        ref = database.read(lambda tx, b=blob_id: messages.blob_of(tx, b))
        assert segments.read(ref) == contents[uid - 1]
    report = verify(database, segments, None, progress)
    assert report.faults == [] and report.messages == 4 and quiet.calls


def test_damage_is_named(tmp_path):
    (tmp_path / "segments").mkdir()
    database = SqliteCore(str(tmp_path / "mail.sqlite"))
    segments = SegmentCore(OsDisk(), str(tmp_path / "segments"))

    def setup(tx):
        directory.add_domain(tx, "a.test", 1)
        directory.add_account(tx, "u@a.test", 1)

    database.commit([setup])
    (ref,) = segments.put([[b"content that will be damaged"]])
    database.commit([lambda tx: messages.deliver(tx, [1], Letter(ref, 0, b"()", b"()", 1), 1)])
    database.commit([lambda tx: tx.run("UPDATE mailbox SET messages=7 WHERE mailbox_id=1")])
    (path,) = (tmp_path / "segments").iterdir()
    with path.open("r+b") as file:
        file.seek(ref.offset + 3)
        file.write(b"\xff")
    report = verify(database, segments, None, lambda *_: None)
    assert any("checksum" in fault for fault in report.faults)
    assert any("counts do not match" in fault for fault in report.faults)

"""A store of rows and segments without a loop, for tests that keep, move and damage content."""

from pathlib import Path

from fubako.accounts import directory
from fubako.store import mailboxes, messages, ownership
from fubako.store.compaction import Keeper, commit
from fubako.store.disk import OsDisk
from fubako.store.interface import BlobRef
from fubako.store.messages import Letter
from fubako.store.segments import SegmentCore
from fubako.store.sqlite import SqliteCore


def put(database: SqliteCore, segments: SegmentCore, contents: list[list[bytes]], owner: str = "one") -> list[BlobRef]:
    """Durable, and in no row yet."""
    while segments.full:
        number = commit(database, ownership.next_number)
        if segments.begin(number) and not commit(database, lambda tx, n=number: ownership.begin(tx, n, owner, 1)):
            segments.leave()
    return segments.put(contents)


class Owner:
    """One process's view of a store: connections and files of its own."""

    def __init__(self, root: Path, name: str = "one", *, segment_max: int = 10_000) -> None:
        (root / "segments").mkdir(exist_ok=True)
        self.root, self.name = root, name
        self.database = SqliteCore(str(root / "mail.sqlite"))
        self.segments = SegmentCore(OsDisk(), str(root / "segments"), segment_max=segment_max)

    def begin_account(self) -> None:
        def setup(tx) -> None:
            directory.add_domain(tx, "a.test", 1)
            directory.add_account(tx, "u@a.test", 1)

        self.commit(setup)

    def commit(self, unit):
        return commit(self.database, unit)

    def put(self, content: bytes) -> BlobRef:
        """Durable, and in no row yet."""
        return put(self.database, self.segments, [[content]], self.name)[0]

    def take(self, ref: BlobRef) -> int:
        """The rows of a content; gives its UID in INBOX."""
        ((_, _, uid),) = self.commit(lambda tx: messages.deliver(tx, [1], Letter(ref, 0, b"()", b"()", 1), 1))
        return uid

    def deliver(self, content: bytes) -> int:
        return self.take(self.put(content))

    def expunge(self, uids: list[int]) -> None:
        self.commit(lambda tx: messages.expunge(tx, 1, mailboxes.INBOX_ID, uids, flagged=False))

    def ref(self, uid: int, mailbox_id: int = mailboxes.INBOX_ID) -> BlobRef:
        return self.database.read(lambda tx: messages.content(tx, 1, mailbox_id, uid))

    def read(self, uid: int, mailbox_id: int = mailboxes.INBOX_ID) -> bytes:
        return self.segments.read(self.ref(uid, mailbox_id))

    def keeper(self) -> Keeper:
        return Keeper(self.database, self.segments, owner=f"keeper of {self.name}")

    def path(self, number: int) -> Path:
        return self.root / "segments" / f"{number:012x}.segment"

    def close(self) -> None:
        """As a process ends that is killed: what it wrote stays WRITING."""
        self.segments.close()
        self.database.close()

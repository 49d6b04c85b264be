"""`View`: a selected mailbox as one session knows it: which UID has which number, and how far it was told of changes.

Invariant: a number means the message the client thinks it means; numbers move only when an EXPUNGE or VANISHED was said.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from fubako.protocol.imap.types import SequenceSet
from fubako.store import mailboxes, messages
from fubako.store.interface import Database, Transaction
from fubako.store.mailboxes import MailboxState
from fubako.store.messages import flag_names


@dataclass(slots=True)
class News:
    """What changed since the client was last told."""

    gone: bool = False  # the mailbox itself
    expunged: list[int] = field(default_factory=list)  # UIDs
    numbers: list[int] = field(default_factory=list)  # their numbers, each as of when it is said
    arrived: bool = False
    flagged: list[tuple[int, int, str, int]] = field(default_factory=list)
    keywords: str | None = None


class View:
    """`uids` is read when it is first needed, as of the moment of SELECT: a client that only looks pays nothing."""

    def __init__(self, account_id: int, box: MailboxState, *, read_only: bool, recent: int) -> None:
        self.account_id = account_id
        self.mailbox_id = box.mailbox_id
        self.name = box.name
        self.uidvalidity = box.uidvalidity
        self.uidnext = box.uidnext
        self.read_only = read_only
        self.recent_from = recent
        self.exists = box.messages
        self.modseq = box.modseq  # flags and arrivals told up to here
        self.expunge_modseq = box.modseq
        self.keywords = box.keywords
        self.own: dict[int, int] = {}  # uid -> modseq of changes the client was told of already
        self.saved: list[int] = []  # SEARCHRES
        self.awaiting_expunge = False
        self._uids: list[int] | None = None if box.messages else []

    async def uids(self, database: Database) -> list[int]:
        """Sorted; position + 1 is the number."""
        if self._uids is None:

            def unit(tx: Transaction) -> list[int]:
                present = [uid for uid in messages.uids(tx, self.account_id, self.mailbox_id) if uid < self.uidnext]
                gone = messages.expunged_since(tx, self.account_id, self.mailbox_id, self.expunge_modseq)
                return sorted({*present, *(uid for uid in gone if uid < self.uidnext)}) if gone else present

            self._uids = await database.read(unit)
        return self._uids

    def number(self, uid: int) -> int:
        """The number of a UID that is known."""
        assert self._uids is not None
        return bisect_left(self._uids, uid) + 1

    def numbers(self, some: Sequence[int]) -> Sequence[int]:
        """The numbers of UIDs that are known, sorted."""
        uids = self._uids or []
        first = self.number(some[0])
        if uids[first - 1 : first - 1 + len(some)] == list(some):  # the usual case: an unbroken run
            return range(first, first + len(some))
        return [self.number(uid) for uid in some]

    async def choose(self, database: Database, numbers: SequenceSet, *, uid: bool) -> list[int] | None:
        """The UIDs a set names, sorted; None when a number is beyond the last (RFC 9051 §6.4)."""
        uids = await self.uids(database)
        if numbers.saved:
            known = set(uids)
            return [one for one in self.saved if one in known]
        if not uids:
            return [] if uid or all(low == high == 0 for low, high in numbers.ranges) else None
        chosen: list[tuple[int, int]] = []
        for low, high in numbers.resolve(uids[-1] if uid else len(uids)):
            if uid:
                chosen.append((bisect_left(uids, low), bisect_right(uids, high)))
            elif low > len(uids) or high > len(uids):
                return None
            else:
                chosen.append((low - 1, high))
        if len(chosen) == 1:
            return uids[chosen[0][0] : chosen[0][1]]
        return sorted({one for start, end in chosen for one in uids[start:end]})

    async def sync(self, database: Database, *, expunge: bool) -> News:
        """Look what changed, and take note of it as told. Without `expunge` removals are left for later."""
        news = News()

        def look(tx: Transaction) -> tuple[MailboxState | None, list[int], list[tuple[int, int, str, int]]]:
            box = mailboxes.state(tx, self.account_id, self.mailbox_id)
            if box is None or box.noselect:
                return None, [], []
            if box.modseq == self.modseq and not (expunge and self.awaiting_expunge):
                return box, [], []
            gone = messages.expunged_since(tx, self.account_id, self.mailbox_id, self.expunge_modseq)
            changed = messages.changed_since(tx, self.account_id, self.mailbox_id, self.modseq)
            return box, gone, changed

        if self._uids is None and await self._changed(database):
            await self.uids(database)
        box, gone, changed = await database.read(look)
        if box is None:
            news.gone = True
            return news
        if box.keywords != self.keywords:
            self.keywords = news.keywords = box.keywords
        if box.modseq == self.modseq and not gone:
            return news
        self._remove(news, gone, expunge=expunge, modseq=box.modseq)
        self._add(news, changed, box)
        self.modseq = box.modseq
        self.own.clear()
        return news

    async def _changed(self, database: Database) -> bool:
        box = await database.read(lambda tx: mailboxes.state(tx, self.account_id, self.mailbox_id))
        return box is not None and box.modseq != self.modseq

    def _remove(self, news: News, gone: list[int], *, expunge: bool, modseq: int) -> None:
        if not expunge:
            self.awaiting_expunge = self.awaiting_expunge or bool(gone)
            return
        uids = self._uids or []
        for uid in gone:
            place = bisect_left(uids, uid)
            if place < len(uids) and uids[place] == uid:
                news.numbers.append(place + 1 - len(news.expunged))  # as of when it is said
                news.expunged.append(uid)
        if news.expunged:
            removed = set(news.expunged)
            uids[:] = [uid for uid in uids if uid not in removed]
        self.expunge_modseq = modseq
        self.awaiting_expunge = False
        self.exists = len(uids)

    def _add(self, news: News, changed: list[tuple[int, int, str, int]], box: MailboxState) -> None:
        uids = self._uids if self._uids is not None else []
        for row in changed:
            if row[0] >= self.uidnext:
                uids.append(row[0])
                news.arrived = True
            elif self.own.get(row[0]) != row[3]:
                news.flagged.append(row)
        self._uids = uids
        self.uidnext = box.uidnext
        self.exists = len(uids)

    def shown_flags(self, uid: int, bits: int, keywords: str) -> bytes:
        """The flags of a message as this session sees them, \\Recent included."""
        return _flags(bits, keywords, uid >= self.recent_from)


@lru_cache(maxsize=1024)
def _flags(bits: int, keywords: str, recent: bool) -> bytes:
    names = flag_names(bits, keywords)
    if recent:
        names = f"{names} \\Recent" if names else "\\Recent"
    return names.encode()

"""SEARCH: sets and columns first, texts last and only in what is left (RFC 9051 §6.4.4)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import date

from fubako.message.dates import local_day, written_day
from fubako.message.headers import fields, unfold
from fubako.message.limits import HEADER_OCTETS_MAX
from fubako.message.mailboxes import parse_list
from fubako.message.words import decode_words
from fubako.protocol.imap import render
from fubako.protocol.imap import types as t
from fubako.scan.jobs import Holds
from fubako.scan.terms import fold
from fubako.server.imap.context import ImapContext
from fubako.server.imap.outcome import No
from fubako.server.imap.view import View
from fubako.store import messages
from fubako.store.indexer import Unsearchable
from fubako.store.interface import BlobRef, Row, StoreError, Transaction
from fubako.store.messages import FLAG_BITS

_COST = {
    t.Numbers: 0,
    t.Recent: 0,
    t.Flagged: 1,
    t.ModSeq: 1,
    t.Size: 1,
    t.Dated: 2,
    t.And: 3,
    t.Or: 3,
    t.Not: 3,
    t.Text: 9,
}
_READ_BATCH = 200
_ROWS_A_TURN = 2000
_KNOWN_MAX = 4  # criteria whose UIDs are kept while a search lasts
SEARCH_SECONDS = 60.0  # that a session waits for a search in texts


async def search(session: ImapContext, tag: str, command: t.Search) -> str:
    view = session.selected
    if _keys(command.criteria) > session.resources.limits.search_keys:
        raise No("[LIMIT] the search has too many keys")
    searching = _Searching(session, view, texts=tuple(dict.fromkeys(_texts(command.criteria))))
    uids = await view.uids(session.resources.database)
    found = await _in_time(session, view, searching.evaluate(command.criteria, set(uids)))
    hits = sorted(found)
    if searching.asked_modseq:
        session.use_condstore()
    if command.returns is not None and "SAVE" in command.returns:
        view.saved = _returned(hits, command.returns)
    highest = 0
    if searching.asked_modseq and hits:
        highest = await _highest_modseq(session, view, _returned(hits, command.returns or frozenset()))
    numbers = hits if command.uid else [view.number(uid) for uid in hits]
    if command.returns is None and not session.rev2:
        shown = b"".join(b" %d" % number for number in numbers)
        session.engine.untagged(b"SEARCH" + shown + (b" (MODSEQ %d)" % highest if highest else b""))
        return "searched"
    returns = command.returns if command.returns is not None else frozenset({"ALL"})
    line = _extended(tag, command.uid, returns, numbers, highest)
    if line is not None:
        session.engine.untagged(line)
    return "searched"


async def _in_time(session: ImapContext, view: View, search: Awaitable[set[int]]) -> set[int]:
    """What cannot be read within the time is read when it is quiet: the next search finds it done. Raises No (RFC 5530)."""
    try:
        async with asyncio.timeout(SEARCH_SECONDS):
            return await search
    except (TimeoutError, Unsearchable):
        session.resources.search.unfinished({(view.account_id, view.mailbox_id)})
        raise No("[UNAVAILABLE] messages are still being read for search, try again later") from None


def _returned(hits: list[int], returns: frozenset[str]) -> list[int]:
    """What a search gives: with MIN and MAX alone only these (`$`: RFC 5182 §2.1; MODSEQ: RFC 4731 §3.2)."""
    if not returns & {"MIN", "MAX"} or returns & {"ALL", "COUNT"} or not hits:
        return hits
    kept = ([hits[0]] if "MIN" in returns else []) + ([hits[-1]] if "MAX" in returns else [])
    return sorted(set(kept))


def _extended(tag: str, uid: bool, returns: frozenset[str], numbers: list[int], highest: int) -> bytes | None:
    if returns == {"SAVE"}:
        return None
    line = b'ESEARCH (TAG "%b")' % tag.encode() + (b" UID" if uid else b"")
    if numbers and "MIN" in returns:
        line += b" MIN %d" % numbers[0]
    if numbers and "MAX" in returns:
        line += b" MAX %d" % numbers[-1]
    if numbers and "ALL" in returns:
        line += b" ALL " + render.number_set(numbers)
    if "COUNT" in returns:
        line += b" COUNT %d" % len(numbers)
    return line + (b" MODSEQ %d" % highest if highest else b"")


def _keys(criterion: t.Criterion) -> int:
    """How many keys a program has."""
    match criterion:
        case t.And(criteria):
            return sum(map(_keys, criteria))
        case t.Or(either, other):
            return _keys(either) + _keys(other)
        case t.Not(inner):
            return _keys(inner)
        case _:
            return 1


def _texts(criterion: t.Criterion) -> Iterator[tuple[str, bool]]:
    """What a program looks for in contents."""
    match criterion:
        case t.And(criteria):
            for one in criteria:
                yield from _texts(one)
        case t.Or(either, other):
            yield from _texts(either)
            yield from _texts(other)
        case t.Not(inner):
            yield from _texts(inner)
        case t.Text() if criterion.where != "header":
            yield _folded(criterion)
        case _:
            return


def _folded(criterion: t.Text) -> tuple[str, bool]:
    """(the text, whether it may be in the header too)."""
    return fold(criterion.needle), criterion.where == "text"


async def _highest_modseq(session: ImapContext, view: View, hits: list[int]) -> int:
    rows = await session.resources.database.read(
        lambda tx: messages.select(tx, "uid, modseq", view.account_id, view.mailbox_id, hits)
    )
    return max((row[1] for row in rows), default=0)


@dataclass
class _Searching:
    """Evaluates criteria to sets of UIDs; `among` is always what is still in question.

    A criterion that rows can tell is asked once, however often the program names it; others have
    their turns between any two.
    """

    session: ImapContext
    view: View
    asked_modseq: bool = False
    known: dict[t.Criterion, set[int]] = field(default_factory=dict)
    texts: tuple[tuple[str, bool], ...] = ()  # that contents are read for
    held: dict[int, int] = field(default_factory=dict)  # by UID: a bit for each of them

    async def evaluate(self, criterion: t.Criterion, among: set[int]) -> set[int]:
        await self.session.line.turn()
        match criterion:
            case t.And(criteria):
                for one in sorted(dict.fromkeys(criteria), key=lambda c: _COST[type(c)]):
                    if not among and not isinstance(one, t.ModSeq):
                        break
                    among = await self.evaluate(one, among)
                return among
            case t.Or(either, other):
                found = await self.evaluate(either, among)
                return found | await self.evaluate(other, among - found)
            case t.Not(inner):
                return among - await self.evaluate(inner, among)
            case t.Numbers(uid, numbers):
                return await self._numbers(uid, numbers, among)
            case t.Recent(wanted):
                return {uid for uid in among if (uid >= self.view.recent_from) is wanted}
            case t.Text():
                return await self._text(criterion, among)
            case t.Dated("sent"):
                return await self._sent(criterion, among)
            case _:
                return await self._columns(criterion, among)

    async def _numbers(self, uid: bool, numbers: t.SequenceSet, among: set[int]) -> set[int]:
        chosen = await self.view.choose(self.session.resources.database, numbers, uid=uid)
        if chosen is None:  # numbers beyond the last match nothing in a search
            uids = await self.view.uids(self.session.resources.database)
            clipped = [(low, min(high, len(uids))) for low, high in numbers.resolve(len(uids)) if low <= len(uids)]
            chosen = [one for low, high in clipped for one in uids[low - 1 : high]]
        return among & set(chosen)

    async def _columns(self, criterion: t.Criterion, among: set[int]) -> set[int]:
        """What one pass over the rows can tell."""
        if criterion not in self.known:
            columns, test = self._test(criterion)
            found: set[int] = set()
            after = 0
            while rows := await self._rows(columns, after):
                found.update(row[0] for row in rows if test(row))
                after = rows[-1][0]
                await self.session.line.turn()
            if len(self.known) >= _KNOWN_MAX:
                del self.known[next(iter(self.known))]
            self.known[criterion] = found
        return among & self.known[criterion]

    async def _rows(self, columns: str, after: int) -> list[Row]:
        view = self.view
        return await self.session.resources.database.read(
            lambda tx: tx.rows(
                f"SELECT uid, {columns} FROM message WHERE account_id=? AND mailbox_id=? AND uid>?"
                f" ORDER BY uid LIMIT {_ROWS_A_TURN}",
                (view.account_id, view.mailbox_id, after),
            )
        )

    def _test(self, criterion: t.Criterion) -> tuple[str, Callable[[Row], bool]]:
        match criterion:
            case t.Flagged(name, wanted):
                bit = FLAG_BITS.get(name.lower())
                if bit is not None:
                    return "flags", lambda row: bool(row[1] & bit) is wanted
                keyword = name.lower()
                return "keywords", lambda row: (keyword in row[1].lower().split()) is wanted
            case t.Size(larger, octets):
                return "size", lambda row: row[1] > octets if larger else row[1] < octets
            case t.ModSeq(modseq):
                self.asked_modseq = True
                return "modseq", lambda row: row[1] >= modseq
            case t.Dated("saved", relation, day):
                return "savedate, 0", lambda row: _related(local_day(row[1], 0), relation, day)
            case t.Dated(_, relation, day):
                return "internaldate, zone", lambda row: _related(local_day(row[1], row[2]), relation, day)
            case _:
                raise AssertionError(criterion)

    async def _sent(self, criterion: t.Dated, among: set[int]) -> set[int]:
        def holds(header: bytes) -> bool:
            value = next((value for name, value in fields(header) if name.lower() == b"date"), None)
            day = written_day(unfold(value)) if value is not None else None
            return day is not None and _related(day, criterion.relation, criterion.day)

        return await self._by_header(among, holds)

    # -- texts

    async def _text(self, criterion: t.Text, among: set[int]) -> set[int]:
        if criterion.where == "header":
            return await self._by_header(among, _header_test(criterion.name.encode(), criterion.needle))
        if not criterion.needle:
            return among
        index = self.session.resources.search
        column = "body" if criterion.where == "body" else ""
        found = None
        if len(among) > INDEX_FROM:
            found = await index.find(
                self.view.account_id, self.view.mailbox_id, sorted(among), criterion.needle, column
            )
        if found is not None:
            among = among & found.uids
            if found.exact:
                return among
        among = among - await index.passed_over(self.view.account_id, self.view.mailbox_id)
        return await self._by_content(among, self.texts.index(_folded(criterion)))

    async def _by_content(self, among: set[int], number: int) -> set[int]:
        """A worker reads each of them, once for all texts that the program names."""
        view, resources = self.view, self.session.resources
        async for uid, size, ref in self._refs(among - self.held.keys()):
            try:
                content = await resources.blobs.read(ref)
            except StoreError:  # `store verify` tells of it
                self.held[uid] = 0
                continue
            question = Holds(self.texts, size)
            held = await resources.search.holds((view.account_id, view.mailbox_id), uid, content, question)
            self.held[uid] = sum(1 << place for place, one in enumerate(held) if one)
        return {uid for uid in among if self.held[uid] >> number & 1}

    async def _by_header(self, among: set[int], holds: Callable[[bytes], bool]) -> set[int]:
        """Others have their turns between any two."""
        found: set[int] = set()
        async for uid, size, ref in self._refs(among):
            if holds(await self.session.resources.blobs.read(ref, 0, min(size, HEADER_OCTETS_MAX))):
                found.add(uid)
        return found

    async def _refs(self, among: set[int]) -> AsyncIterator[tuple[int, int, BlobRef]]:
        """UID, octets of the header, and where the content lies."""
        view = self.view
        uids = sorted(among)
        for start in range(0, len(uids), _READ_BATCH):
            part = uids[start : start + _READ_BATCH]

            def unit(tx: Transaction, part: list[int] = part) -> list[tuple[int, int, BlobRef]]:
                rows = messages.select(
                    tx, f"uid, header_size, {messages.PLACE}", view.account_id, view.mailbox_id, part
                )  # fmt: skip
                return [(uid, size, BlobRef(*place)) for uid, size, *place in rows]

            for row in await self.session.resources.database.read(unit):
                yield row
                await self.session.line.turn()


INDEX_FROM = 50  # below this many messages reading them is quicker than asking the index


def _related(day: date, relation: str, wanted: date) -> bool:
    if relation == "on":
        return day == wanted
    return day < wanted if relation == "before" else day >= wanted


_ADDRESSES = frozenset({b"from", b"to", b"cc", b"bcc", b"sender", b"reply-to"})


def _normalised(value: bytes) -> str:
    """An address list without comments and odd spacing, as people search for it."""
    shown = ((box.name or b"", box.mailbox or b"", box.host or b"") for box in parse_list(value))
    return decode_words(b", ".join(b"%b <%b@%b>" % one for one in shown))


def _header_test(name: bytes, needle: str) -> Callable[[bytes], bool]:
    folded = fold(needle)

    def holds(header: bytes) -> bool:
        for key, value in fields(header):
            if key.lower() != name:
                continue
            text = unfold(value)
            if not folded or folded in fold(decode_words(text)):
                return True
            if name in _ADDRESSES and folded in fold(_normalised(text)):
                return True
        return False

    return holds

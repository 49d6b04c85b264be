"""`LetterList`: the list of letters. Only the lines in view are made, so that a folder of a hundred thousand is as quick as one
of ten."""

import time
from collections.abc import Sequence

from rich.cells import set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from fubako.client.mailbox import Entry
from fubako.message.display import line
from fubako.message.hop import Seal

SEALS = {
    Seal.SEALED: ("●", "green"),
    Seal.COVERED: ("◐", "yellow"),
    Seal.OPEN: ("○", "red"),
    None: ("·", "bright_black"),
}
SEEN, DELETED, FLAGGED, ANSWERED = "\\Seen", "\\Deleted", "\\Flagged", "\\Answered"
_CURSOR = Style(reverse=True)


def size_words(octets: int) -> str:
    for unit in ("", "K", "M"):
        if octets < 1000:
            return f"{octets:.0f}{unit}" if unit == "" or octets >= 10 else f"{octets:.1f}{unit}"
        octets //= 1024
    return f"{octets}G"


def sorted_by_date(entries: Sequence[Entry]) -> list[tuple[Entry, int]]:
    return [(one, 0) for one in sorted(entries, key=lambda one: (one.received, one.uid))]


def answered(one: Entry) -> tuple[str, ...]:
    """Message-IDs of what a letter answers, the nearest first; where a letter is not there, the one before it stands for it."""
    direct = (one.in_reply_to,) if one.in_reply_to else ()
    return (*direct, *reversed(one.references or ()))


def threaded(entries: Sequence[Entry]) -> list[tuple[Entry, int]]:
    """Answers under what they answer, each with its depth; threads in the order of their newest letter."""
    known = {one.message_id: one for one in entries if one.message_id}
    children: dict[int, list[Entry]] = {}
    roots = []
    for one in sorted(entries, key=lambda one: (one.received, one.uid)):
        parent = next((known[name] for name in answered(one) if name in known), None)
        # an answer is younger: so nothing runs in a circle
        if parent is None or parent is one or parent.received > one.received:
            roots.append(one)
        else:
            children.setdefault(parent.uid, []).append(one)

    def whole(root: Entry) -> list[tuple[Entry, int]]:
        found, waiting = [], [(root, 0)]
        seen: set[int] = set()
        while waiting:
            one, depth = waiting.pop()
            if one.uid in seen:
                continue
            seen.add(one.uid)
            found.append((one, depth))
            waiting += [(child, depth + 1) for child in reversed(children.get(one.uid, []))]
        return found

    threads = [whole(root) for root in roots]
    threads.sort(key=lambda thread: max(one.received for one, _ in thread))
    shown = [pair for thread in threads for pair in thread]
    left = {one.uid for one in entries} - {one.uid for one, _ in shown}  # letters of one second that answer each other
    return shown + [(one, 0) for one in entries if one.uid in left]


class LetterList(ScrollView, can_focus=True):
    DEFAULT_CSS = "LetterList { height: 1fr; scrollbar-size-horizontal: 0; }"

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[Entry, int]] = []
        self.cursor = 0
        self._now = time.time()

    @property
    def entry(self) -> Entry | None:
        return self.rows[self.cursor][0] if self.rows else None

    def show(self, rows: list[tuple[Entry, int]], keep: int | None = None) -> None:
        """`keep`: the uid on which the cursor stays, where it is still there."""
        self.rows = rows
        self._now = time.time()
        at = (
            next((number for number, (one, _) in enumerate(rows) if one.uid == keep), None)
            if keep is not None
            else None
        )
        self.cursor = at if at is not None else min(self.cursor, max(len(rows) - 1, 0))
        self.virtual_size = Size(self.size.width, len(rows))
        self.follow()
        self.refresh()

    def move(self, to: int) -> bool:
        """Whether the cursor moved."""
        before, self.cursor = self.cursor, max(0, min(to, len(self.rows) - 1))
        self.follow()
        self.refresh()
        return self.cursor != before

    def follow(self) -> None:
        self.scroll_to_region(Region(0, self.cursor, 1, 1), animate=False, force=True)

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, len(self.rows))
        self.follow()

    def render_line(self, y: int) -> Strip:
        number = y + self.scroll_offset.y
        width = self.size.width
        if number >= len(self.rows):
            return Strip.blank(width, self.rich_style)
        entry, depth = self.rows[number]
        return self._line(number, entry, depth, width)

    def _line(self, number: int, entry: Entry, depth: int, width: int) -> Strip:
        base = self.rich_style + (_CURSOR if number == self.cursor else Style())
        if entry.has(DELETED):
            base += Style(strike=True, dim=True)
        elif not entry.has(SEEN):
            base += Style(bold=True)
        sign, colour = SEALS[entry.seal]
        state = "D" if entry.has(DELETED) else "r" if entry.has(ANSWERED) else " " if entry.has(SEEN) else "N"
        marks = f"{state}{'!' if entry.has(FLAGGED) else ' '}{'*' if entry.tagged else ' '}"
        young = self._now - entry.received < 86400 and entry.received <= self._now
        day = time.strftime("%H:%M" if young else "%b %d", time.localtime(entry.received))
        if self._now - entry.received > 300 * 86400:
            day = time.strftime("%Y-%m", time.localtime(entry.received))
        names = max(12, min(26, width // 4))
        left = f"{number + 1:>5} {marks} "
        tree = "  " * min(depth - 1, 10) + "└▶" if depth else ""
        sender = set_cell_size(line(entry.sender) or "?", names)
        rest = f" {day:<7} {sender} {size_words(entry.octets):>5} {tree}{line(entry.subject)}"
        room = max(0, width - len(left) - 1)
        return Strip(
            [Segment(left, base), Segment(sign, base + Style(color=colour)), Segment(set_cell_size(rest, room), base)], width
        ).crop(0, width)  # fmt: skip

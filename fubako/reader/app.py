"""`Reader`: the list, and what its keys do. What is changed stays here until `$` or leaving says it to the server, as in mutt."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Set
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeVar

from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Input, Static

from fubako.client.connection import ClientError
from fubako.client.mailbox import Entry, Folder, OpenMailbox
from fubako.client.patterns import Pattern, PatternFault, parse
from fubako.client.roads import Roads
from fubako.client.settings import Account
from fubako.clock import Env
from fubako.message.display import clean, line, view
from fubako.protocol.imap import utf7
from fubako.reader.keys import HELP, KEYS, QUESTIONS
from fubako.reader.letters import (
    DELETED,
    SEEN,
    LetterList,
    sorted_by_date,
    threaded,
)  # fmt: skip
from fubako.reader.opening import Opener
from fubako.reader.road import Asked, FolderRenewed, Road
from fubako.reader.screens import Certificate, Choice, Page, Prompt, Question
from fubako.reader.text import Text
from fubako.reader.writing import FAULTS, Writer
from fubako.trust.judge import NotBelieved
from fubako.trust.known import CertificateChanged, Downgraded

T = TypeVar("T")
LOOK_SECONDS = 30.0
SHOW_SECONDS = 1.0  # how often a large folder that is being read is put in order


class Reader(App[int]):
    ENABLE_COMMAND_PALETTE = False
    TITLE = "Fubako"
    CSS = """
    #title { background: $primary; } #road { background: $panel; }
    #title, #road, #message { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    """
    # before anything else has a key: who types ahead reaches the prompt that a key before opened
    BINDINGS: ClassVar = [Binding(key, action, priority=True) for key, action in KEYS]

    def __init__(
        self, account: Account, roads: Roads, asked: Asked, *, senders: Iterable[Account] = (), folder: str = "", home: Path,
        editor: str = "vi", sender: str = "", read_only: bool = False, sent: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        self.account = account
        self.road = Road(account, roads, self._road_changed)
        self._asked = asked
        self._wire = utf7.encode(folder or account.folders[0])
        self.read_only = read_only
        self.entries: list[Entry] = []
        self._limit: Pattern | None = None
        self._limit_words = self._search_words = ""
        self._threads = False
        self._for_tagged = False
        self._generation = 0
        self._folders: list[Folder] = []
        self._writer = Writer(self, roads, list(senders), sender or account.user, home, editor, sent, Env())
        self._opener = Opener(self, self._writer)
        self._left = False
        self.said = ""  # the line that the user sees

    # -- the screen

    def compose(self) -> ComposeResult:
        yield Static(id="title")
        yield LetterList()
        yield Static(id="road")
        yield Static(id="message")

    @property
    def letters(self) -> LetterList:
        return self.screen_stack[0].query_one(LetterList)

    def on_mount(self) -> None:
        self.letters.focus()
        self._road_changed(self.road.state)
        self._titled()
        self.do(self.job_reload)
        self.set_interval(LOOK_SECONDS, self._look_now)

    def _fill(self, name: str, words: str) -> None:
        if self.is_running and self.screen_stack:
            with suppress(Exception):  # the screen is being taken down
                self.screen_stack[0].query_one(f"#{name}", Static).update(
                    Text(words, no_wrap=True, overflow="ellipsis")
                )

    def _road_changed(self, state: str) -> None:
        self._fill("road", f"road: {line(state)}")

    def say(self, words: str) -> None:
        """One line for the user, where it is seen."""
        self.said = line(words)
        self._fill("message", self.said)
        if len(self.screen_stack) > 1:
            self.notify(self.said, markup=False)

    def _titled(self) -> None:
        count = Counter[str]()
        for one in self.entries:
            count["unread"] += not one.has(SEEN)
            count["deleted"] += one.has(DELETED)
            count["tagged"] += one.tagged
        parts = [f"{len(self.entries)} letters", *(f"{number} {name}" for name, number in count.items() if number)]
        limit = f"   limit: {self._limit_words}" if self._limit else ""
        name = utf7.decode(self._wire)
        self._fill("title", f"{line(self.account.name)} {line(name)}: {', '.join(parts)}{limit}   ?:help q:leave")

    def _show(self, keep: int | None = None) -> None:
        entry = self.letters.entry
        keep = keep if keep is not None else entry.uid if entry is not None else None
        chosen = [one for one in self.entries if self._limit is None or self._limit.matches(one)]
        self.letters.show(threaded(chosen) if self._threads else sorted_by_date(chosen), keep)
        self._titled()

    # -- work that waits for the server or the user

    def do(self, work: Callable[[], Awaitable[None]]) -> None:
        self.run_worker(self._guarded(work), group="work")

    def action_work(self, name: str) -> None:
        self.do(getattr(self, f"job_{name}"))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The keys of the list mean something while nothing lies over it."""
        if action in (
            "work",
            "ask",
            "move",
            "page",
            "edge",
            "unread",
            "mark",
            "turn",
            "tag",
            "tagged",
            "again",
        ):
            return len(self.screen_stack) == 1
        return super().check_action(action, parameters)

    async def action_ask(self, name: str) -> None:
        """Work that begins with a question. The prompt is there before the next key: who types ahead, types into it."""
        given: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        prompt = Prompt(QUESTIONS[name], "Archive" if name == "move_to" else "")
        await self.push_screen(prompt, given.set_result)
        prompt.set_focus(prompt.query_one(Input))

        async def work() -> None:
            words = await given
            if words is not None:
                await getattr(self, f"job_{name}")(words)

        self.do(work)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            self._asked.forget()
            try:
                await work()
                return
            except (CertificateChanged, Downgraded) as reason:
                text = Text(clean(str(reason)) + "\n\nNothing was said to this server.\n", "bold red")
                await self.shown(Page("THE SERVER IS NOT WHAT IT WAS", text, "q: back"))
                self.say(str(reason))
                return
            except NotBelieved as reason:
                if self._asked.question is None:
                    self.say(str(reason))
                    return
                facts, why, signer = self._asked.question
                key = await self.shown(Certificate(facts, why, signer))
                if key not in ("o", "a", "s"):
                    self.say("rejected; nothing was said to the server")
                    return
                self._asked.answers[facts.sha256] = {"o": "once", "a": "always", "s": "signer"}[key]
            except FAULTS as error:
                self.say(str(error) or type(error).__name__)
                return

    async def shown(self, screen: Screen[T]) -> T | None:
        """What the user answered."""
        return await self.push_screen_wait(screen)

    # -- folders and the list

    async def job_reload(self) -> None:
        self._generation += 1
        mine = self._generation
        self.say("")
        box = await self.road.folder(self._wire, read_only=self.read_only)
        self.entries, self._limit, self.letters.cursor = [], None, 0
        self._show()
        shown = 0.0
        async for chunk in box.entries():
            if mine != self._generation:
                return
            first = not self.entries
            self.entries += chunk
            if first or len(self.entries) >= box.exists or time.monotonic() > shown + SHOW_SECONDS:
                self._show()
                shown = time.monotonic()
            if first:
                self._to_first()
            if len(self.entries) < box.exists:
                self.say(f"{len(self.entries)} of {box.exists} letters")
        self._show()
        self.say("" if self.entries else "there is no letter here")
        await self.known_folders()

    def _to_first(self) -> None:
        """The first unread letter, else the newest."""
        unread = next(
            (at for at, (one, _) in enumerate(self.letters.rows) if not one.has(SEEN)), len(self.letters.rows) - 1
        )
        self.letters.move(unread)

    async def known_folders(self) -> list[Folder]:
        if not self._folders:
            self._folders = await self.road.use(lambda box: box.folders())
        return self._folders

    def _look_now(self) -> None:
        if self.road.state.startswith("no connection") or not self._left:
            self.do(self._look)

    async def _look(self) -> None:
        """What is new there: letters that came or went, flags that others changed."""
        try:
            if not await self.road.use(lambda box: box.look()):
                return
            newest = max((one.uid for one in self.entries), default=0)
            there = await self.road.use(lambda box: box.flags())
            fresh = await self.road.use(lambda box: box.after(newest))
        except FolderRenewed:
            await self.job_reload()
            return
        self.entries = [one for one in self.entries if one.uid in there]
        for one in self.entries:
            one.flags = there[one.uid]
        known = {one.uid for one in self.entries}
        self.entries += [one for one in fresh if one.uid not in known]
        self._show()
        if fresh:
            self.bell()
            self.say(f"{len(fresh)} new: {fresh[0].sender}: {fresh[0].subject}")

    async def job_folders(self) -> None:
        folders = [one for one in await self.known_folders() if one.selectable]
        at = next((number for number, one in enumerate(folders) if one.wire == self._wire), 0)
        rows = [
            line(one.name) + (f"   ({one.role})" if one.role and one.role != one.name.lower() else "")
            for one in folders
        ]
        chosen = await self.shown(Choice("Folders   Enter: open   q: back", rows, at))
        if chosen is not None:
            await self._go(folders[chosen].wire)

    async def job_change(self, name: str) -> None:
        if name:
            await self._go(utf7.encode(name))

    async def _go(self, wire: str) -> None:
        await self.job_sync()
        before, self._wire = self._wire, wire
        try:
            await self.job_reload()
        except ClientError:
            self._wire = before
            with suppress(ClientError):
                await self.job_reload()
            raise

    # -- moving

    def action_move(self, way: int) -> None:
        self.letters.move(self.letters.cursor + way)

    def action_page(self, way: int) -> None:
        self.letters.move(self.letters.cursor + way * max(1, self.letters.size.height - 1))

    def action_edge(self, end: int) -> None:
        self.letters.move(len(self.letters.rows) - 1 if end else 0)

    def action_unread(self) -> None:
        rows = self.letters.rows
        order = [*range(self.letters.cursor + 1, len(rows)), *range(self.letters.cursor + 1)]
        at = next((number for number in order if not rows[number][0].has(SEEN)), None)
        if at is None:
            self.say("there is no unread letter")
        else:
            self.letters.move(at)

    # -- marks

    def _chosen(self) -> list[Entry]:
        """The letter under the cursor, or all that are tagged."""
        tagged, self._for_tagged = self._for_tagged, False
        if tagged:
            return [one for one, _ in self.letters.rows if one.tagged]
        return [self.letters.entry] if self.letters.entry is not None else []

    def action_tagged(self) -> None:
        self._for_tagged = True
        self.say("for all that are tagged: ")

    def mark(self, entries: Iterable[Entry], flag: str, on: bool) -> None:
        if self.read_only:
            self.say("the folder is open for reading only")
            return
        for one in entries:
            one.changes[flag.lower()] = on
        self.letters.refresh()
        self._titled()

    def action_mark(self, flag: str, on: int, onward: int) -> None:
        chosen = self._chosen()
        self.mark(chosen, flag, bool(on))
        if onward and len(chosen) == 1:
            self.letters.move(self.letters.cursor + 1)

    def action_turn(self, flag: str) -> None:
        for one in self._chosen():
            self.mark([one], flag, not one.has(flag))

    def action_tag(self) -> None:
        chosen = self._chosen()
        for one in chosen:
            one.tagged = not one.tagged
        self.letters.move(self.letters.cursor + 1)
        self.letters.refresh()
        self._titled()

    async def job_limit(self, words: str) -> None:
        if words.strip() in ("", "~A", "all"):
            self._limit, self._limit_words = None, ""
            self._show()
            return
        found = await self._parsed(words)
        if found is not None:
            self._limit, self._limit_words = found, words
            self._show()
            if not self.letters.rows:
                self.say("nothing matches")

    async def _parsed(self, words: str) -> Pattern | None:
        try:
            pattern = parse(words)
        except PatternFault as fault:
            self.say(str(fault))
            return None
        for key, wanted in pattern.questions:
            pattern.answers[key, wanted] = await self.road.use(partial(_searched, key=key, words=wanted))
        return pattern

    async def job_search(self, words: str) -> None:
        if words:
            self._search_words = words
            await self._find()

    def action_again(self) -> None:
        if self._search_words:
            self.do(self._find)

    async def _find(self) -> None:
        pattern = await self._parsed(self._search_words)
        if pattern is None:
            return
        rows = self.letters.rows
        order = [*range(self.letters.cursor + 1, len(rows)), *range(self.letters.cursor + 1)]
        at = next((number for number in order if pattern.matches(rows[number][0])), None)
        if at is None:
            self.say("not found")
        else:
            self.letters.move(at)

    async def _by_pattern(self, words: str) -> list[Entry]:
        pattern = await self._parsed(words)
        return [one for one, _ in self.letters.rows if pattern.matches(one)] if pattern is not None else []

    async def job_tag_pattern(self, words: str) -> None:
        chosen = await self._by_pattern(words)
        for one in chosen:
            one.tagged = True
        self.letters.refresh()
        self._titled()

    async def job_delete_pattern(self, words: str) -> None:
        self.mark(await self._by_pattern(words), DELETED, True)

    async def job_undelete_pattern(self, words: str) -> None:
        self.mark(await self._by_pattern(words), DELETED, False)

    async def job_order(self) -> None:
        self._threads = not self._threads
        self.say("threads" if self._threads else "by date")
        self._show()
        known = {one.message_id for one in self.entries}
        asked = [one for one in self.entries if one.references is None and _orphan(one, known)] if self._threads else []
        if asked:
            found = await self.road.use(lambda box: box.references([one.uid for one in asked]))
            for one in asked:
                one.references = found.get(one.uid, ())
            self._show()

    # -- what is told to the server

    async def job_sync(self) -> None:
        """Flags first, then what is deleted goes."""
        groups: dict[tuple[str, bool], list[int]] = {}
        for one in self.entries:
            for flag, on in one.changes.items():
                if (flag in {name.lower() for name in one.flags}) != on:
                    groups.setdefault((flag, on), []).append(one.uid)
        deleted = [one.uid for one in self.entries if one.has(DELETED)]

        async def told(box: OpenMailbox) -> None:
            for (flag, on), uids in groups.items():
                await box.store(uids, flag, on)
            if deleted:
                await box.expunge(deleted)

        if not groups and not deleted:
            return
        await self.road.use(told)
        gone = set(deleted)
        for one in self.entries:
            for flag, on in one.changes.items():
                one.flags = {name for name in one.flags if name.lower() != flag} | ({flag} if on else set())
            one.changes.clear()
        self.entries = [one for one in self.entries if one.uid not in gone]
        self._show()
        changed = len({uid for uids in groups.values() for uid in uids} - gone)
        self.say(f"{len(gone)} deleted, {changed} changed")

    async def job_leave(self) -> None:
        count = sum(one.has(DELETED) for one in self.entries)
        if count and await self.shown(Question(f"Delete {count} for good? (y/[n]) ", "ny")) == "n":
            for one in self.entries:
                one.changes.pop(DELETED.lower(), None)
                if one.has(DELETED):
                    one.changes[DELETED.lower()] = False
        try:
            await self.job_sync()
        except (*FAULTS, NotBelieved) as error:
            words = f"The server was not told of the changes ({line(str(error))}). Leave all the same? (y/[n]) "
            if await self.shown(Question(words, "ny")) == "n":
                return
        await self.job_exit()

    async def job_exit(self) -> None:
        self._left = True
        await self.road.close()
        self.exit(0)

    async def _into(self, name: str, *, moved: bool) -> None:
        chosen = self._chosen()
        if not chosen or not name:
            return
        uids, wire = [one.uid for one in chosen], utf7.encode(name)
        await self.road.use(lambda box: box.copy(uids, wire), again=False)
        if moved:
            self.mark(chosen, DELETED, True)
        self.say(f"{len(uids)} {'moved' if moved else 'copied'} to {name}")

    async def job_move_to(self, name: str) -> None:
        await self._into(name, moved=True)

    async def job_copy_to(self, name: str) -> None:
        await self._into(name, moved=False)

    # -- reading

    async def job_read(self) -> None:
        await self._opener.read()

    async def job_journey(self) -> None:
        if (entry := self.letters.entry) is not None:
            await self._opener.journey(entry, await self._opener.content(entry))

    async def job_attachments(self) -> None:
        if (entry := self.letters.entry) is not None:
            content = await self._opener.content(entry)
            await self._opener.attachments(content, view(content))

    async def job_help(self) -> None:
        await self.shown(Page("Keys", Text(HELP), "q: back"))

    # -- writing

    async def job_new(self, to: str) -> None:
        await self._writer.blank(to)

    async def job_reply(self) -> None:
        if (entry := self.letters.entry) is not None:
            await self._writer.reply(entry, await self._opener.content(entry))

    async def job_group(self) -> None:
        if (entry := self.letters.entry) is not None:
            await self._writer.reply(entry, await self._opener.content(entry), everybody=True)

    async def job_forward(self) -> None:
        if (entry := self.letters.entry) is not None:
            await self._writer.forward(await self._opener.content(entry))


def _orphan(one: Entry, known: Set[str]) -> bool:
    """An answer to a letter that is not here: older ones of its thread may be."""
    if one.in_reply_to:
        return one.in_reply_to not in known
    return one.subject[:4].lower() in ("re: ", "aw: ", "sv: ")


async def _searched(box: OpenMailbox, key: str, words: str) -> set[int]:
    return await box.search(key, words)

"""`Opener`: one letter on the screen: its text, the way it took, what is attached."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from textual.screen import Screen

from fubako import modes
from fubako.client.mailbox import Entry
from fubako.message.display import Attachment, View, clean, legs, line, view
from fubako.reader.letters import DELETED, SEALS, SEEN, LetterList, size_words
from fubako.reader.screens import Choice, Page, Prompt, Reading
from fubako.reader.text import Text
from fubako.reader.writing import Desk, Writer


class ReadingDesk(Desk, Protocol):
    """What an opener needs of the reader around it besides."""

    @property
    def letters(self) -> LetterList: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def is_running(self) -> bool: ...

    def mark(self, entries: Iterable[Entry], flag: str, on: bool) -> None:
        """Change a flag here, until the server is told."""

    def push_screen(self, screen: Screen[Any]) -> Any: ...


class Opener:
    """One a reader."""

    def __init__(self, desk: ReadingDesk, writer: Writer) -> None:
        self._desk, self._writer = desk, writer

    async def content(self, entry: Entry) -> bytes:
        return await self._desk.road.use(lambda box: box.letter(entry.uid))

    async def read(self) -> None:
        page: Reading | None = None
        every = False
        try:
            while (entry := self._desk.letters.entry) is not None:
                content = await self.content(entry)
                if not entry.has(SEEN) and not self._desk.read_only:
                    self._desk.mark([entry], SEEN, True)
                shown = view(content, every_field=every)
                title = f"{self._desk.letters.cursor + 1}/{len(self._desk.letters.rows)}: {line(entry.subject) or '(no subject)'}"
                whole = (title, _page(entry, shown), f"road: {line(self._desk.road.state)}")
                if page is None:
                    page = Reading(*whole, "qijkdJvrgfhu")
                    await self._desk.push_screen(page)
                else:
                    page.show(*whole)
                key = "J"
                while key in "Jvrgfu":
                    key = await page.keys.get()
                    await self._read_key(key, entry, content, shown)
                if key == "h":
                    every = not every
                elif key in "qi" or not self._desk.letters.move(self._desk.letters.cursor + (-1 if key == "k" else 1)):
                    return
        finally:
            if page is not None and self._desk.is_running and page.is_current:
                page.dismiss("q")

    async def _read_key(self, key: str, entry: Entry, content: bytes, shown: View) -> None:
        """What is done with the letter that is being read."""
        match key:
            case "d" | "u":
                self._desk.mark([entry], DELETED, key == "d")
            case "J":
                await self.journey(entry, content)
            case "v":
                await self.attachments(content, shown)
            case "r" | "g":
                await self._writer.reply(entry, content, everybody=key == "g")
            case "f":
                await self._writer.forward(content)

    async def journey(self, entry: Entry, content: bytes) -> None:
        sign, colour = SEALS[entry.seal]
        text = Text()
        said = (
            f"{entry.seal.value}, says your server, which knows each leg up to itself"
            if entry.seal
            else "not known: this server does not say"
        )
        text.append(f"{sign} ", colour)
        text.append(f"seal: {said}\n\n", "bold")
        text.append(
            "How it was carried, as each server on the way wrote it. Whoever wrote one can have made up all before it.\n\n"
        )
        for number, leg in enumerate(legs(content), 1):
            text.append(f"{number}. ", "bold")
            text.append(
                f"{'encrypted' if leg.protected else 'NOT ENCRYPTED, or not said'}",
                "green" if leg.protected else "bold red",
            )
            text.append(f"  to {clean(leg.by)}\n   {leg.text}\n\n")
        text.append("And from there to here, now:\n", "bold")
        text.append(f"   {line(self._desk.road.state)}\n")
        for name, value in view(content, every_field=True).headers:
            if name.lower() == "authentication-results":
                text.append(f"\n{name}: {value}\n")
                break
        await self._desk.shown(Page(f"The way of: {line(entry.subject)}", text, "q: back"))

    async def attachments(self, content: bytes, shown: View) -> None:
        if not shown.attachments:
            self._desk.say("nothing is attached")
            return
        rows = [
            f"{one.number}  {one.kind:<28} {size_words(one.octets):>6}  {one.name or 'without a name'}"
            for one in shown.attachments
        ]
        chosen = await self._desk.shown(Choice("Attached   Enter: save   q: back", rows))
        if chosen is not None:
            await self._save(shown.attachments[chosen], content)

    async def _save(self, one: Attachment, letter: bytes) -> None:
        given = await self._desk.shown(Prompt("Save as: ", one.name or f"part-{one.number}"))
        if not given:
            return
        self._desk.say(await asyncio.to_thread(_saved, given, one.content(letter)))


def _saved(given: str, content: bytes) -> str:
    """What became of it, in words. What is there already stays."""
    path = Path(given).expanduser()
    try:
        with open(path, "xb", opener=modes.opener) as file:
            file.write(content)
    except FileExistsError:
        return f"{path} is there already, and stays as it is"
    except OSError as error:
        return f"{path}: {error.strerror}"
    return f"saved as {path}"


def _page(entry: Entry, shown: View) -> Text:
    text = Text()
    for name, value in shown.headers:
        text.append(f"{name}: ", "bold")
        text.append(value + "\n")
    sign, colour = SEALS[entry.seal]
    text.append("Seal: ", "bold")
    text.append(f"{sign} {entry.seal.value if entry.seal else 'not known'}\n\n", colour)
    for row in shown.text.split("\n"):
        style = "cyan" if row.startswith(">") else "bright_black" if row.startswith("[-- ") else ""
        text.append(row + "\n", style)
    return text

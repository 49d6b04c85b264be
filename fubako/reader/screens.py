"""The screens above the list: questions, a text, a choice, the certificate, and a letter of one's own before it leaves."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.events import Key
from textual.screen import ModalScreen, Screen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from fubako.message.display import clean, line
from fubako.message.trace import mail_date
from fubako.net.interface import CertificateFacts
from fubako.reader.text import Text, TextView


def _too_late(screen: Screen[Any], event: Key) -> bool:
    """Keys that came in one burst are all given to the screen that the first of them ended: the rest is for the one below it."""
    if screen.is_current:
        return False
    event.stop()
    screen.app.post_message(Key(event.key, event.character))
    return True


class Prompt(ModalScreen[str | None]):
    """One line from the user; None when it was left with Escape."""

    DEFAULT_CSS = "Prompt { align: left bottom; background: transparent; } Prompt Vertical { height: 2; }"
    BINDINGS: ClassVar = [Binding("escape,ctrl+g", "leave", "leave")]

    def __init__(self, question: str, value: str = "", *, password: bool = False) -> None:
        super().__init__()
        self._question, self._value, self._secret = question, value, password

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Text(self._question))
            yield Input(self._value, password=self._secret, compact=True, select_on_focus=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)

    def action_leave(self) -> None:
        self.dismiss(None)


class Question(ModalScreen[str]):
    """One key out of several; the first one is the answer to Enter and Escape."""

    DEFAULT_CSS = (
        "Question { align: left bottom; background: transparent; } Question Static { height: 1; background: $primary; }"
    )

    def __init__(self, question: str, keys: str) -> None:
        super().__init__()
        self._question, self._keys = question, keys

    def compose(self) -> ComposeResult:
        yield Static(Text(self._question))

    def on_key(self, event: Key) -> None:
        if _too_late(self, event):
            return
        event.stop()
        if event.key in ("enter", "escape"):
            self.dismiss(self._keys[0])
        elif event.character and event.character in self._keys:
            self.dismiss(event.character)


class Page(Screen[str]):
    """A text to read. Dismissed with the key that ended it, where that is one of `ends`."""

    DEFAULT_CSS = """
    Page #title { background: $primary; } Page #foot { background: $panel; }
    Page #title, Page #foot { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    """
    BINDINGS: ClassVar = [
        Binding("space,pagedown", "page(1)"), Binding("minus,pageup", "page(-1)"), Binding("enter,down", "line(1)"),
        Binding("backspace,up", "line(-1)"), Binding("home", "top"), Binding("end", "bottom"), Binding("slash", "find"),
    ]  # fmt: skip

    def __init__(self, title: str, text: Text, foot: str, ends: str = "qi") -> None:
        super().__init__()
        self._title, self._text, self._foot, self._ends = title, text, foot, ends
        self._found = -1

    def compose(self) -> ComposeResult:
        yield Static(Text(self._title, no_wrap=True, overflow="ellipsis"), id="title")
        yield TextView(self._text, id="scroll")
        yield Static(Text(self._foot, no_wrap=True, overflow="ellipsis"), id="foot")

    def on_mount(self) -> None:
        self.query_one(TextView).focus()

    def on_key(self, event: Key) -> None:
        if _too_late(self, event):
            return
        if event.character and event.character in self._ends:
            event.stop()
            self.ended(event.character)
        elif event.key == "escape":
            event.stop()
            self.ended("q")

    def ended(self, key: str) -> None:
        self.dismiss(key)

    def action_page(self, way: int) -> None:
        scroll = self.query_one(TextView)
        scroll.scroll_relative(y=way * max(1, scroll.size.height - 1), animate=False)

    def action_line(self, way: int) -> None:
        self.query_one(TextView).scroll_relative(y=way, animate=False)

    def action_top(self) -> None:
        self.query_one(TextView).scroll_home(animate=False)

    def action_bottom(self) -> None:
        self.query_one(TextView).scroll_end(animate=False)

    def action_find(self) -> None:
        self.app.push_screen(Prompt("Find in this text: "), self._find)

    def _find(self, words: str | None) -> None:
        rows = self._text.plain.split("\n")
        wanted = (words or "").lower()
        order = [*range(self._found + 1, len(rows)), *range(self._found + 1)]
        at = next((number for number in order if wanted and wanted in rows[number].lower()), None)
        if at is None:
            self.app.bell()
        else:
            self._found = at
            self.query_one(TextView).scroll_to(y=self.query_one(TextView).row_of(at), animate=False)


class Reading(Page):
    """A letter. Its keys are waited for in `keys` and it stays where it is, so that who types ahead loses none; q ends it."""

    def __init__(self, title: str, text: Text, foot: str, ends: str) -> None:
        super().__init__(title, text, foot, ends)
        self.keys: asyncio.Queue[str] = asyncio.Queue()

    def ended(self, key: str) -> None:
        self.keys.put_nowait(key)
        if key in "qi":
            self.dismiss(key)

    def show(self, title: str, text: Text, foot: str) -> None:
        self._text, self._found = text, -1
        self.query_one("#title", Static).update(Text(title, no_wrap=True, overflow="ellipsis"))
        self.query_one(TextView).show(text)
        self.query_one("#foot", Static).update(Text(foot, no_wrap=True, overflow="ellipsis"))


class Choice(Screen[int | None]):
    """One of several lines; None when none was chosen. `keys`: other keys that end it, told in `pressed`."""

    DEFAULT_CSS = "Choice #title { background: $primary; height: 1; } Choice OptionList { height: 1fr; border: none; }"
    BINDINGS: ClassVar = [Binding("q,i,escape", "leave"), Binding("j", "down"), Binding("k", "up")]

    def __init__(self, title: str, rows: Sequence[str], at: int = 0, keys: str = "") -> None:
        super().__init__()
        self._title, self._rows, self._at, self._keys = title, rows, at, keys
        self.pressed = ""

    def compose(self) -> ComposeResult:
        yield Static(Text(self._title), id="title")
        yield OptionList(*(Option(Text(one)) for one in self._rows))

    def on_mount(self) -> None:
        options = self.query_one(OptionList)
        options.focus()
        options.highlighted = self._at if self._rows else None

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_index)

    def on_key(self, event: Key) -> None:
        if _too_late(self, event):
            return
        if event.character and event.character in self._keys:
            event.stop()
            self.pressed = event.character
            self.dismiss(self.query_one(OptionList).highlighted)

    def action_down(self) -> None:
        self.query_one(OptionList).action_cursor_down()

    def action_up(self) -> None:
        self.query_one(OptionList).action_cursor_up()

    def action_leave(self) -> None:
        self.dismiss(None)


def certificate_text(facts: CertificateFacts, reason: str) -> Text:
    groups = facts.sha256.upper()
    shown = [" ".join(groups[at : at + 4] for at in range(low, low + 32, 4)) for low in (0, 32)]
    rows = (
        ("This certificate belongs to", facts.subject), ("for the names", ", ".join((*facts.dns_names, *facts.ip_names)) or "none"),
        ("It was issued by", facts.issuer), ("It is valid from", mail_date(facts.not_before)), ("to", mail_date(facts.not_after)),
        ("SHA-256 fingerprint", shown[0]), ("", shown[1]),
    )  # fmt: skip
    text = Text()
    for name, value in rows:
        text.append(f"{name:>28}{':' if name else ' '} ", "bold")
        text.append(line(value) + "\n")
    text.append(f"\nWhat is wrong with it: {clean(reason)}\n", "bold red")
    text.append(
        "\nNobody whom you trust vouches for this server. Ask whoever runs it for the fingerprint, on another way than this one,"
        " and compare.\nNothing was said to it yet.\n"
    )
    return text


class Certificate(Page):
    """(r)eject, accept (o)nce, (a)ccept always, accept the (s)igner; whatever else is pressed, nothing is accepted."""

    def __init__(self, facts: CertificateFacts, reason: str, signer: str = "") -> None:
        text = certificate_text(facts, reason)
        more = ""
        if signer:
            text.append(
                f"\nIt was signed by {line(signer)}; with s this signer is believed for the servers around this one.\n"
            )
            more = ", accept the (s)igner"
        super().__init__(
            "The certificate of the server",
            text,
            f"(r)eject, accept (o)nce, (a)ccept always{more}",
            "roaqs" if signer else "roaq",
        )


@dataclass(slots=True)
class Outgoing:
    """A letter of one's own before it leaves."""

    text: str
    attachments: list[tuple[str, bytes]]
    sealed: bool = False
    answers: int | None = None  # the uid that it answers


class Compose(Page):
    """y sends, e edits, a attaches, S seals, q leaves."""

    def __init__(self, outgoing: Outgoing, how: str) -> None:
        text = Text()
        head, _, body = outgoing.text.partition("\n\n")
        for row in head.split("\n"):
            name, _, value = row.partition(":")
            text.append(f"{clean(name):>12}: ", "bold")
            text.append(clean(value.strip()) + "\n")
        text.append(f"{'Leaves by':>12}: ", "bold")
        text.append(clean(how) + "\n")
        text.append(f"{'Sealed':>12}: ", "bold")
        text.append(
            "yes: only if every server on the way promises to keep it encrypted (REQUIRETLS)\n"
            if outgoing.sealed
            else "no\n"
        )
        for name, content in outgoing.attachments:
            text.append(f"{'Attached':>12}: ", "bold")
            text.append(f"{clean(name)}, {len(content)} octets\n")
        text.append("\n" + clean(body))
        super().__init__(
            "A letter, not sent yet", text, "y:send  e:edit  a:attach  S:sealed on/off  p:postpone  q:leave", "yeaSpq"
        )

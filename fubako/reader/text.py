"""`Text`: the only text that the reader puts on the screen; `TextView`: one of any length, of which only the lines in view are
drawn."""

from typing import Any

from rich import text as rich_text
from rich.cells import cell_len
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from fubako.message.display import clean

TAB = 8


class Text(rich_text.Text):
    """Nothing that is put in can steer the terminal, whoever wrote it; and it is never read as markup."""

    def __init__(self, text: str = "", *arguments: Any, **options: Any) -> None:
        super().__init__(clean(text), *arguments, **options)

    def append(self, text: "rich_text.Text | str", *arguments: Any, **options: Any) -> "Text":
        super().append(clean(text) if isinstance(text, str) else text, *arguments, **options)
        return self


class TextView(ScrollView, can_focus=True):
    DEFAULT_CSS = "TextView { height: 1fr; scrollbar-size-horizontal: 0; }"

    def __init__(self, text: rich_text.Text, **more: str) -> None:
        super().__init__(**more)  # type: ignore[arg-type]  # id alone
        self._text = text
        self._rows: list[rich_text.Text] = []
        self._starts: list[int] = []  # of each line of the text its first row
        self._width = 0

    def show(self, text: rich_text.Text) -> None:
        self._text, self._width = text, 0
        self._wrap()
        self.scroll_home(animate=False)

    def row_of(self, line: int) -> int:
        return self._starts[line] if line < len(self._starts) else 0

    def on_resize(self) -> None:
        self._wrap()

    def _wrap(self) -> None:
        """Long lines go on below; each once for a width."""
        width = self.scrollable_content_region.width
        if width <= 0 or width == self._width:
            return
        self._width, self._rows, self._starts = width, [], []
        for line in self._text.split("\n", allow_blank=True):
            self._starts.append(len(self._rows))
            if "\t" in line.plain:
                line.expand_tabs(TAB)
            if cell_len(line.plain) <= width:
                self._rows.append(line)
            else:
                self._rows += line.wrap(self.app.console, width)
        self.virtual_size = Size(width, len(self._rows))
        self.refresh()

    def render_line(self, y: int) -> Strip:
        number = y + self.scroll_offset.y
        width = self.size.width
        if number >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        segments = [one for one in self._rows[number].render(self.app.console, end="") if one.text]
        return Strip(segments).apply_style(self.rich_style).crop_extend(0, width, self.rich_style)

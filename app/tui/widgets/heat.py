"""A heatmap of named rows and numbered columns, with a cursor on one cell; the names stay in sight.

Only the lines on the screen are drawn, each from plain segments: Textual's DataTable makes a table of every cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rich.cells import set_cell_size
from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

WIDTH = 6  # of a column


class Heat(ScrollView, can_focus=True):
    """Cells by row and column, each a short text and the named style of its ground."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key, f"move({down}, {right})", told, show=False)
        for key, down, right, told in (
            ("up", -1, 0, "Up"), ("down", 1, 0, "Down"), ("left", 0, -1, "Left"), ("right", 0, 1, "Right"),
            ("pageup", -10, 0, "Ten up"), ("pagedown", 10, 0, "Ten down"),
            ("home", 0, -9999, "First column"), ("end", 0, 9999, "Last column"),
            ("ctrl+home", -9999, -9999, "First cell"), ("ctrl+end", 9999, 9999, "Last cell"),
        )
    ]  # fmt: skip
    COMPONENT_CLASSES: ClassVar[set[str]] = {"heat--names", "heat--cursor"}
    DEFAULT_CSS = """
    Heat {
        & > .heat--names { background: $panel; color: $foreground; }
        & > .heat--cursor { text-style: reverse bold; }
    }
    """

    class Moved(Message):
        """Another cell is under the cursor."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.names: list[str] = []
        self.columns: list[str] = []
        self._cells: Sequence[Sequence[tuple[str, str]]] = ()
        self._head = 0
        self.row = self.column = 0

    def put(self, names: list[str], columns: list[str], cells: Sequence[Sequence[tuple[str, str]]]) -> None:
        """Show these; the cursor stays in its place as far as there is one. cells: text and style, rows × columns."""
        self.names, self.columns, self._cells = names, columns, cells
        self._head = max((len(n) for n in names), default=0) + 1
        self.row, self.column = self._within(self.row, self.column)
        self.virtual_size = Size(self._head + WIDTH * len(columns), len(names) + 1)
        self.refresh(layout=True)
        self.post_message(self.Moved())

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """As many lines as there are rows, and the columns' numbers."""
        return len(self.names) + 1

    def _within(self, row: int, column: int) -> tuple[int, int]:
        return max(0, min(row, len(self.names) - 1)), max(0, min(column, len(self.columns) - 1))

    def render_line(self, y: int) -> Strip:
        """The columns' numbers, then the rows in view; the names do not scroll sideways."""
        console, base = self.app.console, self.rich_style
        names = base + self.get_component_rich_style("heat--names", partial=True)
        at = y - 1 + self.scroll_offset.y
        if at >= len(self.names):
            return Strip.blank(self.size.width, base)
        if y == 0:
            head, cells = "", [Segment(c.rjust(WIDTH), names) for c in self.columns]
        else:
            head = self.names[at]
            cells = [Segment(text.rjust(WIDTH), base + console.get_style(style)) for text, style in self._cells[at]]
            if at == self.row:
                cursor = self.get_component_rich_style("heat--cursor", partial=True)
                chosen = cells[self.column]
                cells[self.column] = Segment(chosen.text, (chosen.style or base) + cursor)
        x, room = self.scroll_offset.x, max(0, self.size.width - self._head)
        right = Strip(cells).crop_extend(x, x + room, base)
        return Strip([Segment(set_cell_size(head, self._head), names), *right])

    def action_move(self, down: int, right: int) -> None:
        """Move the cursor, and bring it into view."""
        self._point_at(self.row + down, self.column + right)

    def _point_at(self, row: int, column: int) -> None:
        if not self.names:
            return
        self.row, self.column = self._within(row, column)
        lines, room = max(1, self.size.height - 1), max(WIDTH, self.size.width - self._head)
        top, left = self.scroll_offset.y, self.scroll_offset.x
        self.scroll_to(
            x=min(self.column * WIDTH, max(left, (self.column + 1) * WIDTH - room)),
            y=min(self.row, max(top, self.row - lines + 1)), animate=False, force=True,
        )  # fmt: skip
        self.refresh(Region(0, 0, *self.size))
        self.post_message(self.Moved())

    def on_click(self, event: events.Click) -> None:
        """The cell under the mouse."""
        if event.y > 0 and event.x >= self._head and event.widget is self:
            self._point_at(event.y - 1 + self.scroll_offset.y, (event.x - self._head + self.scroll_offset.x) // WIDTH)

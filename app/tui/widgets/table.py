"""A table that follows its data: rows are known by key, so the cursor stays on its row through updates and sorting.

Only the lines on the screen are made, so ten thousand rows cost what forty do (Textual's DataTable measures all of
them). It says what DataTable says: RowHighlighted when another row is under the cursor, RowSelected, HeaderSelected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import DataTable
from textual.widgets.data_table import ColumnKey, RowKey

Cells = Sequence[Any]
PAD = 1  # blanks at both sides of a cell
MEASURED = 200  # rows at most that columns are made wide enough for; others may widen them when they come into view


class KeyedTable(ScrollView, can_focus=True):
    """Rows by key, in the order that they are given in. The cursor is a row, known by its key."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "cursor_up", "Up", show=False),
        Binding("down", "cursor_down", "Down", show=False),
        Binding("pageup", "page_up", "Page up", show=False),
        Binding("pagedown", "page_down", "Page down", show=False),
        Binding("home,ctrl+home", "scroll_top", "First", show=False),
        Binding("end,ctrl+end", "scroll_bottom", "Last", show=False),
        Binding("left", "scroll_left", "Left", show=False),
        Binding("right", "scroll_right", "Right", show=False),
        Binding("enter", "select_cursor", "Select", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "datatable--header", "datatable--cursor", "datatable--even-row", "datatable--odd-row", "datatable--hover",
    }  # fmt: skip
    DEFAULT_CSS = """
    KeyedTable {
        background: $surface; color: $foreground; height: 1fr;
        & > .datatable--header { text-style: bold; background: $panel; color: $foreground; }
        & > .datatable--even-row { background: $surface-lighten-1 50%; }
        & > .datatable--hover { background: $block-hover-background; }
        & > .datatable--cursor {
            background: $block-cursor-blurred-background; color: $block-cursor-blurred-foreground;
            text-style: $block-cursor-blurred-text-style;
        }
        &:dark > .datatable--even-row { background: $surface-darken-1 40%; }
        &:focus { background-tint: $foreground 5%; }
        &:focus > .datatable--header { background-tint: $foreground 5%; }
        &:focus > .datatable--cursor {
            background: $block-cursor-background; color: $block-cursor-foreground;
            text-style: $block-cursor-text-style;
        }
    }
    """

    def __init__(self, columns: Sequence[str], **more: Any) -> None:
        super().__init__(**more)
        self.names = list(columns)
        self.keys: list[str] = []
        self._places: dict[str, int] = {}
        self._cells: Callable[[str], Cells] = lambda _: ()
        self._widths = [len(n) for n in self.names]
        self._drawn: dict[str, tuple[Any, ...]] = {}
        self._current: str | None = None
        self._hovered: str | None = None

    # -- rows ----------------------------------------------------------------------------------

    def put(self, rows: Sequence[tuple[str, Cells]]) -> None:
        """Show these rows, in this order."""
        made = dict(rows)
        self.follow(list(made), made.__getitem__)

    def follow(self, keys: Sequence[str], cells: Callable[[str], Cells]) -> None:
        """Show rows of these keys, in this order. cells: makes a row when it comes into view."""
        before, at, seen = self.keys, self.cursor_row, self._visible()
        self.keys, self._cells = list(keys), cells
        if self.keys == before:
            if self._measure(seen):
                self._fit()
            self._refresh_changed()
            return
        self._places = {key: i for i, key in enumerate(self.keys)}
        self._drawn.clear()
        self._measure(self.keys[:MEASURED])
        self._fit()
        if self._current not in self._places:
            # the row is gone: the nearest one that is left, those below it first
            left = next((k for k in [*before[at:], *before[at::-1]] if k in self._places), None)
            fallback = self.keys[min(at, len(self.keys) - 1)] if self.keys else None
            self._highlight(left or fallback)
        self._hold_still(seen, before)
        self.refresh()

    def _hold_still(self, seen: Sequence[str], before: Sequence[str]) -> None:
        """Keep what the reader looks at in its place while rows come and go above it; the top stays the top."""
        anchor = self._current if self._current in seen else next((k for k in seen if k in self._places), None)
        if self.scroll_offset.y > 0 and anchor is not None:
            line = list(seen).index(anchor)
            self.scroll_to(y=self._places[anchor] - line, animate=False, force=True)
        elif self._current in seen:
            self._bring_into_view()

    def columns_are(self, names: Sequence[str]) -> None:
        """Make these the columns, where they are others; the rows come again with the next `put`."""
        if list(names) != self.names:
            self.names, self._widths = list(names), [len(n) for n in names]
            self.keys, self._places, self._drawn = [], {}, {}
            self.refresh()

    @property
    def current(self) -> str | None:
        """The key of the row under the cursor."""
        return self._current

    @property
    def cursor_row(self) -> int:
        """The place of the row under the cursor, 0 for an empty table."""
        return self._places.get(self._current or "", 0)

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return len(self.keys)

    def get_row(self, key: str) -> list[Any]:
        """The cells of a row. Raises: KeyError."""
        return list(self._cells(self.keys[self._places[key]]))

    def move_cursor(self, row: int) -> None:
        """Put the cursor on the row at this place, or the nearest that there is, and bring it into view."""
        if self.keys:
            self._highlight(self.keys[max(0, min(len(self.keys) - 1, row))])
            self._bring_into_view()

    def _bring_into_view(self) -> None:
        top, lines, row = self.scroll_offset.y, max(1, self.size.height - 1), self.cursor_row
        if row < top:
            self.scroll_to(y=row, animate=False, force=True)
        elif row >= top + lines:
            self.scroll_to(y=row - lines + 1, animate=False, force=True)

    def _highlight(self, key: str | None) -> None:
        before, self._current = self._current, key
        for changed in (before, key):
            self._refresh_row(changed)
        if key is not None and key != before:
            self.post_message(DataTable.RowHighlighted(self._as_table, self.cursor_row, RowKey(key)))

    @property
    def _as_table(self) -> DataTable[Any]:
        return cast("DataTable[Any]", self)  # the messages only carry it as their control

    # -- drawing -------------------------------------------------------------------------------

    def _measure(self, keys: Sequence[str]) -> bool:
        """Widen the columns for these rows; True when one has become wider."""
        before = list(self._widths)
        for key in keys:
            for i, cell in enumerate(self._cells(key)):
                self._widths[i] = max(self._widths[i], cell.cell_len if isinstance(cell, Text) else cell_len(str(cell)))
        return self._widths != before

    def _fit(self) -> None:
        width = sum(self._widths) + 2 * PAD * len(self._widths)
        self.virtual_size = Size(width, len(self.keys) + 1)

    def _visible(self) -> Sequence[str]:
        top = self.scroll_offset.y
        return self.keys[top : top + max(0, self.size.height - 1)]

    def _refresh_changed(self) -> None:
        """Draw again those lines on the screen that look different."""
        for key in self._visible():
            if self._drawn.get(key) != _looks(self._cells(key)):
                self._refresh_row(key)

    def _refresh_row(self, key: str | None) -> None:
        if key in self._places:
            y = self._places[key or ""] - self.scroll_offset.y
            if 0 <= y < self.size.height - 1:
                self.refresh(Region(0, y + 1, self.size.width, 1))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Rows that come into view may need wider columns."""
        super().watch_scroll_y(old_value, new_value)
        if self._measure(self._visible()):
            self._fit()

    def render_line(self, y: int) -> Strip:
        """The header, then the rows in view."""
        x, width = self.scroll_offset.x, self.size.width
        place = y - 1 + self.scroll_offset.y
        if y == 0:
            line = self._line(self.names, self.get_component_rich_style("datatable--header"))
        elif place < len(self.keys):
            key = self.keys[place]
            cells = self._cells(key)
            self._drawn[key] = _looks(cells)
            row = self.get_component_rich_style(f"datatable--{'even' if place % 2 == 0 else 'odd'}-row")
            mark = "cursor" if key == self._current else "hover" if key == self._hovered else None
            over = self.get_component_rich_style(f"datatable--{mark}") if mark else None
            line = self._line(cells, row + over if over else row, over)
        else:
            return Strip.blank(width, self.rich_style)
        return line.crop_extend(x, x + width, self.rich_style)

    def _line(self, cells: Sequence[Any], style: Style, over: Style | None = None) -> Strip:
        """A line of cells. over: a style that wins over a cell's own."""
        segments: list[Segment] = []
        blank = Segment(" " * PAD, style)
        for cell, width in zip(cells, self._widths, strict=False):
            if isinstance(cell, Text):
                base = self.app.console.get_style(cell.style, default="")
                own = [s for s in cell.render(self.app.console) if s.text]
                made = [Segment(s.text, _joined(style, base, s.style, over)) for s in own]
            else:
                made = [Segment(str(cell), style)]
            strip = Strip(made)
            if isinstance(cell, Text) and cell.justify == "right":
                strip = Strip([Segment(" " * max(0, width - strip.cell_length), style), *made])
            segments += [blank, *strip.adjust_cell_length(width, style), blank]
        return Strip(segments)

    # -- keys and mouse ------------------------------------------------------------------------

    def action_cursor_up(self) -> None:
        """A row up."""
        self.move_cursor(self.cursor_row - 1)

    def action_cursor_down(self) -> None:
        """A row down."""
        self.move_cursor(self.cursor_row + 1)

    def action_page_up(self) -> None:
        """A page up."""
        self.move_cursor(self.cursor_row - max(1, self.size.height - 2))

    def action_page_down(self) -> None:
        """A page down."""
        self.move_cursor(self.cursor_row + max(1, self.size.height - 2))

    def action_scroll_top(self) -> None:
        """The first row."""
        self.move_cursor(0)

    def action_scroll_bottom(self) -> None:
        """The last row."""
        self.move_cursor(len(self.keys) - 1)

    def action_select_cursor(self) -> None:
        """Choose the row under the cursor."""
        if self._current is not None:
            self.post_message(DataTable.RowSelected(self._as_table, self.cursor_row, RowKey(self._current)))

    def _at(self, event: events.MouseEvent) -> str | None:
        place = event.y - 1 + self.scroll_offset.y
        return self.keys[place] if event.y > 0 and place < len(self.keys) else None

    def on_click(self, event: events.Click) -> None:
        """The row, or the header, under the mouse."""
        if event.y == 0 and event.widget is self:
            x = event.x + self.scroll_offset.x
            for i, width in enumerate(self._widths):
                x -= width + 2 * PAD
                if x < 0:
                    name = self.names[i]
                    self.post_message(DataTable.HeaderSelected(self._as_table, ColumnKey(name), i, Text(name)))
                    return
        elif event.widget is self and (key := self._at(event)):
            chosen = key == self._current
            self._highlight(key)
            if chosen or event.chain > 1:
                self.action_select_cursor()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """The row under the mouse is marked."""
        before, self._hovered = self._hovered, self._at(event)
        if before != self._hovered:
            self._refresh_row(before)
            self._refresh_row(self._hovered)

    def on_leave(self, _: events.Leave) -> None:
        """No row is marked any more."""
        before, self._hovered = self._hovered, None
        self._refresh_row(before)


def _looks(cells: Cells) -> tuple[Any, ...]:
    """What a row's look depends on; Rich's texts compare equal whatever their colour."""
    return tuple((c.plain, c.style, c.spans) if isinstance(c, Text) else c for c in cells)


def _joined(*styles: Style | None) -> Style:
    return Style.combine([s for s in styles if s is not None])

"""A table that follows its data: rows are known by key, so the cursor stays on its row through updates and sorting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text
from textual.widgets import DataTable

Cells = Sequence[Any]


class KeyedTable(DataTable[Any]):
    """Rows by key, updated in place. Order: as given by the data, or by a column that was clicked or chosen."""

    def __init__(self, columns: Sequence[str], **more: Any) -> None:
        super().__init__(cursor_type="row", zebra_stripes=True, **more)
        self.names = list(columns)
        self._cells: dict[str, tuple[Any, ...]] = {}

    def on_mount(self) -> None:
        """Columns are keyed by name."""
        for name in self.names:
            self.add_column(name, key=name)

    def columns_are(self, names: Sequence[str]) -> None:
        """Make these the columns, where they are others; the rows come again with the next `put`."""
        if list(names) != self.names:
            self.names, self._cells = list(names), {}
            self.clear(columns=True)
            self.on_mount()

    @property
    def current(self) -> str | None:
        """The key of the row under the cursor."""
        if not self.row_count or not self.is_valid_row_index(self.cursor_row):
            return None
        return str(self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value)

    def put(self, rows: Sequence[tuple[str, Cells]]) -> None:
        """Show these rows, in this order; what has not changed is not touched."""
        wanted = {key: tuple(map(_shown, cells)) for key, cells in rows}
        if not self.columns or (wanted == self._cells and list(wanted) == list(self._cells)):
            return
        at, offset = self.current, self.scroll_offset
        same = list(wanted) == list(self._cells)
        with self.app.batch_update():
            if same:
                for key, cells in wanted.items():
                    before = self._cells[key]
                    for name, old, new in zip(self.names, before, cells, strict=True):
                        if old != new:
                            self.update_cell(key, name, new)
            else:
                self.clear()
                for key, cells in wanted.items():
                    self.add_row(*cells, key=key)
                if at in wanted:
                    self.move_cursor(row=list(wanted).index(at), animate=False, scroll=False)
                self.scroll_to(y=offset.y, x=offset.x, animate=False)
        self._cells = wanted


def _shown(cell: Any) -> Any:
    """A text is shown as it is: a table would take brackets in it for markup."""
    return Text(cell) if isinstance(cell, str) and "[" in cell else cell

"""The table's cursor stays on its row whatever happens to the others, and only lines in view are made."""

from __future__ import annotations

import pytest
from rich.text import Text
from textual.app import App, ComposeResult
from textual.widgets import DataTable

from app.tui.widgets.table import KeyedTable


class Tables(App[None]):
    """One table."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def compose(self) -> ComposeResult:
        yield KeyedTable(["name", "number"], id="table")

    @property
    def table(self) -> KeyedTable:
        return self.query_one(KeyedTable)

    def put(self, keys: str) -> None:
        """A row for each letter."""
        self.table.put([(k, (k, i)) for i, k in enumerate(keys)])

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        self.heard.append(str(event.row_key.value))

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        self.heard.append(f"selected {event.row_key.value}")

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        self.heard.append(f"header {event.column_key.value}")


@pytest.mark.parametrize(
    ("after", "current"),
    [
        ("abcdef", "c"),
        ("xyzabcdef", "c"),  # inserted above
        ("cdef", "c"),  # removed above
        ("fedcba", "c"),  # another order
        ("abdef", "d"),  # its own row gone: the next one
        ("ab", "b"),  # and all below it: the one above
        ("xyz", "z"),  # nothing is left of before
        ("", None),
    ],
)
async def test_the_cursor_stays_on_its_row(after: str, current: str | None) -> None:
    app = Tables()
    async with app.run_test(size=(40, 12)) as pilot:
        app.put("abcdef")
        await pilot.press("down", "down")
        assert app.table.current == "c"
        app.put(after)
        await pilot.pause()
        assert app.table.current == current
        assert app.heard == ["a", "b", "c", *([current] if current not in ("c", None) else [])]
        if current:
            assert app.table.keys[app.table.cursor_row] == current


async def test_what_is_looked_at_stays_in_place_while_rows_come_above() -> None:
    app = Tables()
    async with app.run_test(size=(40, 12)) as pilot:
        rows = [(str(i), (str(i), i)) for i in range(200)]
        app.table.put(rows)
        await pilot.press("end")
        await pilot.pause()
        line = app.table.cursor_row - app.table.scroll_offset.y
        app.table.put([(f"new {i}", ("new", i)) for i in range(50)] + rows)
        await pilot.pause()
        assert (app.table.current, app.table.cursor_row) == ("199", 249)
        assert app.table.cursor_row - app.table.scroll_offset.y == line


async def test_ten_thousand_rows_cost_what_a_screen_does() -> None:
    app = Tables()
    made: list[str] = []

    def cells(key: str) -> tuple[str, str]:
        made.append(key)
        return key, Text(key, "green")  # type: ignore[return-value]

    async with app.run_test(size=(40, 12)) as pilot:
        keys = [f"row {i}" for i in range(10_000)]
        app.table.follow(keys, cells)
        await pilot.press("end")
        await pilot.pause()
        assert app.table.current == "row 9999"
        assert len(made) < 1_000
        assert "row 9999" in "".join(app.table.render_line(y).text for y in range(12))


async def test_a_row_that_only_changes_its_colour_is_drawn_again() -> None:
    app = Tables()
    async with app.run_test(size=(40, 12)) as pilot:
        for colour in ("red", "green"):
            app.table.put([("a", ("a", 0)), ("b", (Text("b", colour), 1))])
            await pilot.pause()
            line = app.screen._compositor.render_strips()[2]
            app.heard += [str(s.style.color) for s in line if s.text.strip() == "b" and s.style]
    assert len(set(app.heard[-2:])) == 2


async def test_mouse_and_keys() -> None:
    app = Tables()
    async with app.run_test(size=(40, 12)) as pilot:
        app.put("abcdefghijklmnopqrstuvwxyz")
        await pilot.pause()
        await pilot.click("#table", offset=(3, 3))
        assert app.table.current == "c"
        await pilot.press("enter")
        await pilot.click("#table", offset=(10, 0))
        await pilot.press("pagedown")
        assert app.table.cursor_row == 2 + app.table.size.height - 2
        await pilot.press("home", "up")
        await pilot.pause()
        assert app.table.current == "a"
        assert app.heard[1:4] == ["c", "selected c", "header number"]


async def test_other_columns_take_other_rows() -> None:
    app = Tables()
    async with app.run_test(size=(40, 12)) as pilot:
        app.put("abc")
        app.table.columns_are(["name", "low", "high"])
        assert app.table.row_count == 0
        app.table.put([("a", ("a", 1, 2))])
        await pilot.pause()
        assert app.table.get_row("a") == ["a", 1, 2]

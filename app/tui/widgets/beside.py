"""A window with two studies' leaderboards side by side."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Label, Static

from app.text.printable import one_line
from app.text.studies import MATCHES, side_text
from app.tui.widgets.marks import cut, style_of
from app.tui.widgets.table import KeyedTable
from engine.journal.store import Row

WIDE = 110  # columns of a terminal
COLUMNS = ["pool", "A %", "bound", "A", "B %", "bound ", "B", "bounds are"]


class Beside(ModalScreen[None]):
    """Pools as rows, both studies as columns; what differs, and why changes are not to be compared, above them."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "dismiss(None)", "Leave")]

    def __init__(self, found: Row) -> None:
        super().__init__()
        self.compared = found

    def compose(self) -> ComposeResult:
        """What is to be minded, and the table."""
        with Vertical(classes="dialog full"):
            names = f"A {one_line(self.compared['a'])}  ·  B {one_line(self.compared['b'])}"
            yield Label(names, classes="title", markup=False)
            yield Static(self._told(), id="beside-told")
            yield KeyedTable(COLUMNS, id="beside")

    def _told(self) -> Text:
        text = Text()
        for line in self.compared["warnings"]:
            text.append(f"✗ not comparable: {one_line(line)}\n", "bad")
        for line in self.compared["cautions"]:
            text.append(f"! {one_line(line)}\n", "warn")
        differs = "; ".join(one_line(line) for line in self.compared["differs"])
        text.append(f"A → B: {differs}" if differs else "their settings are the same", "faint")
        return text

    @property
    def wide(self) -> bool:
        """Whether verdicts have room as words."""
        return self.app.size.width >= WIDE

    def on_mount(self) -> None:
        """Fill the table."""
        room = max(18, self.app.size.width - (96 if self.wide else 70))
        table = self.query_one("#beside", KeyedTable)
        table.put([(str(n), self._cells(pair, room)) for n, pair in enumerate(self.compared["pairs"])])
        table.focus()

    def _cells(self, pair: Row, room: int) -> list[Text]:
        cells = [Text(cut(one_line(pair["label"]), room))]
        for side in (pair["a"], pair["b"]):
            change, bound, verdict = side_text(side)
            style = style_of(side["verdict"]) if side else "faint"
            cells += [
                Text(change, style, justify="right"),
                Text(bound),
                Text(verdict if self.wide else verdict[:1], style),
            ]
        return [*cells, Text(MATCHES[pair["match"]].removesuffix(" bounds"), "faint")]

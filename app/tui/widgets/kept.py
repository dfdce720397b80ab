"""A window: what is known of a pool, what it keeps of the data and what it drops."""

from __future__ import annotations

from typing import Any, ClassVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Label, Static

from app.text.contents import changed, contents_lines
from app.text.evidence import evidence_lines
from app.text.printable import one_line, printable
from app.tui.reading.snapshot import Snapshot
from app.tui.reading.thumbnails import SIDE
from app.tui.shell import shell
from app.tui.widgets.marks import cut, half_blocks, percent
from engine.base.errors import DjsbError
from engine.journal.store import Row
from engine.records.leaderboard import bound_text


class Kept(ModalScreen[None]):
    """Evidence, shares, warnings, what differs most, rows that are kept and dropped. Escape leaves."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "dismiss(None)", "Leave")]

    def __init__(self, pool: str, snapshot: Snapshot | None) -> None:
        super().__init__()
        self.entry = next((r for r in (snapshot.board if snapshot else None) or () if r["pool"] == pool), None)
        self.recipe = recipe_of(snapshot, pool)
        self.pool, self.label = pool, (self.entry or self.recipe or {"label": pool})["label"]
        self._wanted = -1

    def compose(self) -> ComposeResult:
        """Title and text."""
        with Vertical(classes="dialog full"):
            yield Label(f"{printable(self.label)}: reading the data …", classes="title", id="kept-title", markup=False)
            with VerticalScroll(classes="log-text"):
                yield Static(self._known(), id="kept-known")
                yield Static(id="kept-text")

    def _known(self) -> Text:
        """What is known of it, at once."""
        lines = list(evidence_lines(self.entry)) if self.entry else []
        if r := self.recipe:
            least = "" if r.get("bound") is None else f", {bound_text(r['verdict'], r['bound'])}"
            lines.insert(0, f"confirmed on {r['seeds']} fresh seeds: {percent(r['change'])} %{least}; in the search:")
        said = (Text(f"{one_line(line)}\n", "warn" if line.startswith("!") else "") for line in lines)
        return Text.assemble(*said, end="")

    def on_mount(self) -> None:
        """Ask for it."""
        self.query_one(VerticalScroll).focus()
        if feed := shell(self).feed:
            self._wanted = feed.ask("contents", self.pool)

    def answered(self, number: int, content: Any) -> None:
        """It has come."""
        if number != self._wanted:
            return
        if isinstance(content, DjsbError):
            self.query_one("#kept-title", Label).update(printable(str(content)))
            return
        self.query_one("#kept-title", Label).update(f"{printable(self.label)}: what it keeps and drops")
        self.query_one("#kept-text", Static).update(kept_and_dropped(content))


def recipe_of(snapshot: Snapshot | None, pool: str) -> Row | None:
    """The recipe that a cycle has confirmed, where this pool is it."""
    found: Row | None = None
    for cycle in (snapshot.results.get("lineage") if snapshot else None) or ():
        if cycle["recipe"] and cycle["recipe"]["pool"] == pool:
            found = cycle["recipe"]
    return found


def kept_and_dropped(found: Row) -> RenderableType:
    """All of it, one below the other."""
    parts: list[RenderableType] = [
        Text(one_line(line), "warn" if line.startswith("!") else "") for line in contents_lines(found)
    ]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="title")
    for name in ("of", "name", "kept", "all", "difference"):
        table.add_column(name, justify="left" if name in ("of", "name") else "right")
    for row in changed(found):
        table.add_row(*(Text(one_line(cell)) for cell in row))
    parts += [Text(f"\nwhat differs most, over {found['looked']:,} rows", "title"), table]
    for what, rows in (("kept", found["stays"]), ("dropped", found["goes"])):
        parts += [Text(f"\nsome rows that are {what}", "title"), _rows(rows)]
    return Group(*parts)


def _rows(rows: list[Row]) -> Table:
    grid = Table.grid(padding=(0, 1))
    pictured = any(r["picture"] for r in rows)
    if pictured:
        grid.add_column(width=SIDE)
    grid.add_column(ratio=1)
    for r in rows:
        said = Text.assemble((f"row {r['row']}\n", "faint"), cut(one_line(r["text"]), 200))
        drawn = r["picture"]
        first = half_blocks(drawn) if isinstance(drawn, list) else Text(one_line(drawn or ""), "faint")
        grid.add_row(first, said) if pictured else grid.add_row(said)
    return grid

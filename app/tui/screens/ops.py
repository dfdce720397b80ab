"""OPs: statistic × bucket as a coloured matrix; the histogram of the row's statistic, and rows of each bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import DataTable, Static

from app.text.printable import printable
from app.tui.reading.snapshot import Snapshot
from app.tui.reading.thumbnails import SIDE
from app.tui.screens.base import Pane
from app.tui.widgets.marks import BLOCKS, VERDICTS, cut, half_blocks, percent, reach_of, shade
from app.tui.widgets.table import KeyedTable
from engine.base.errors import DjsbError

if TYPE_CHECKING:
    from engine.journal.store import Row


class Ops(Pane):
    """What each operator's buckets did."""

    title_text = "OPs"
    help_text = """\
One row a statistic, one column a bucket: the change against the control in percent, with its
interval. The ground is the stronger the larger the change: blue above zero, amber below; the sign
says the same. ▲ helps, ▼ hurts, · unclear, × left out. "Best beside" is the best of the pools beside
the buckets: without a rare end, of one value, without a rare value or bucket.

Below stand the histogram of the row's statistic over the dataset, with the bounds between its
buckets (┆), and example rows of each bucket: the value, the text (quoted and cut) and the image.
"""

    def __init__(self) -> None:
        super().__init__()
        self._wanted = -1
        self._asked: tuple[object, ...] = ()
        self._shown: tuple[object, ...] = ()

    def content(self) -> ComposeResult:
        """The matrix; histogram and examples below."""
        yield KeyedTable(["statistic", "OP"], id="matrix")
        with Horizontal(id="op-below"):
            yield Static(id="histogram")
            with VerticalScroll(id="examples"):
                yield Static(id="rows")

    def on_mount(self) -> None:
        """The table has the keys first."""
        self.query_one("#matrix").focus()

    def show(self, s: Snapshot) -> None:
        """All statistics, the best first."""
        names, wide = s.buckets, self.wide
        roomy = self.app.size.width >= 140
        table = self.query_one("#matrix", KeyedTable)
        cells: dict[str, dict[str, Row]] = {}
        beside: dict[str, Row] = {}  # the best of the other pools of a statistic
        for r in s.board or ():
            if r["statistic"] and r["kind"] == "single" and (r["bucket"] in names or r["change"] is not None):
                cells.setdefault(r["statistic"], {}).setdefault(r["bucket"], r)
                if r["bucket"] not in names:
                    beside.setdefault(r["statistic"], r)
        last = ["best beside %"] if beside else []
        table.columns_are(["statistic", *(["OP"] if roomy else []), *(f"{n} %" for n in names), *last])
        reach = reach_of([r for found in cells.values() for r in found.values()])
        rows = []
        for name, found in cells.items():
            op = (next(iter(found.values()))["op"] or "").removesuffix("_filter")
            head = [Text(cut(printable(name), 30 if wide else 18)), *([Text(cut(op, 30))] if roomy else [])]
            other = beside.get(name)
            named = Text(f" {other['bucket']}", "faint") if other else Text("")
            final = [_cell(other, reach, wide) + named] if beside else []
            rows.append((name, (*head, *(_cell(found.get(b), reach, wide) for b in names), *final)))
        table.put(rows)
        if self._shown != self._to_show():
            self._ask()

    def _to_show(self) -> tuple[object, ...]:
        """What the parts below hang on: the statistic under the cursor, the study's data, the room there is."""
        s = self.ui.snapshot
        current = self.query_one("#matrix", KeyedTable).current
        return current, s and (s.setup, s.buckets), self.app.size, self.app.theme

    @on(DataTable.RowHighlighted)
    def _ask(self) -> None:
        """Ask for the statistic under the cursor."""
        key = self.query_one("#matrix", KeyedTable).current
        if key and self.ui.feed:
            self._wanted, self._asked = self.ui.feed.ask("statistic", key), self._to_show()

    def answered(self, number: int, content: Any) -> None:
        """The statistic has come."""
        if number != self._wanted:
            return
        histogram, rows = self.query_one("#histogram", Static), self.query_one("#rows", Static)
        if isinstance(content, DjsbError) or not content:
            histogram.update(Text(printable(str(content or "no such statistic")), "faint"))
            rows.update("")
            self._shown = ()  # it is asked for again with the next snapshot
            return
        height = max(2, self.query_one("#op-below").size.height - 5)
        histogram.update(_histogram(content, min(9, height), 48 if self.wide else 32))
        rows.update(_examples(content))
        self._shown = self._asked


def _cell(r: Row | None, reach: float, wide: bool) -> Text:
    if r is None:
        return Text("")
    if r["change"] is None:
        return Text(f"{VERDICTS[r['verdict']]} left out", "faint")
    if not wide:
        interval = "" if r["ci_low"] is None else f"[{r['ci_low']:+.0f},{r['ci_high']:+.0f}]"
        text = f"{VERDICTS[r['verdict']]}{r['change']:+.0f} {interval}".ljust(16)
    else:
        interval = "" if r["ci_low"] is None else f" [{r['ci_low']:+.1f}, {r['ci_high']:+.1f}]"
        text = f" {VERDICTS[r['verdict']]} {percent(r['change']):>6}{interval} ".ljust(26)
    return Text(text, shade(r["change"] / reach))


def _histogram(found: Row, height: int, width: int) -> Text:
    """Columns of blocks, with the bounds between buckets marked below."""
    edges, step = found["edges"], -(-len(found["counts"]) // width)
    counts = [sum(found["counts"][i : i + step]) for i in range(0, len(found["counts"]), step)]
    top = max(counts) or 1
    text = Text(f"{printable(found['name'])}, {sum(found['counts'])} rows\n", "title", no_wrap=True)
    for level in range(height, 0, -1):
        line = ""
        for n in counts:
            filled = n / top * height - (level - 1)
            line += " " if filled <= 0 else "█" if filled >= 1 else BLOCKS[int(filled * 8)]
        text.append(line + "\n", "note")
    marks = ["─"] * len(counts)
    span = (edges[-1] - edges[0]) or 1.0
    for b in found["bounds"]:
        marks[max(0, min(len(marks) - 1, int((b - edges[0]) / span * len(counts))))] = "┆"
    text.append("".join(marks) + "\n")
    text.append(f"{edges[0]:.4g}".ljust(len(counts) - 8) + f"{edges[-1]:.4g}".rjust(8) + "\n")
    text.append("┆ bounds: " + ", ".join(f"{b:.4g}" for b in found["bounds"]), "faint")
    return text


def _examples(found: Row) -> RenderableType:
    parts: list[RenderableType] = []
    for bucket, rows in found["examples"].items():
        parts.append(Text(printable(bucket), "title"))
        pictured = any(r["picture"] is not None for r in rows)
        grid = Table.grid(padding=(0, 1))
        if pictured:
            grid.add_column(width=SIDE)
        grid.add_column(ratio=1)
        for r in rows:
            said = Text.assemble(
                (f"{r['value']:.4g}", "note"), (f"  row {r['row']}\n", "faint"),
                cut(printable(" ".join(r["text"].split())), 200),
            )  # fmt: skip
            drawn = r["picture"]
            first = half_blocks(drawn) if isinstance(drawn, list) else Text(printable(drawn or ""), "faint")
            grid.add_row(first, said) if pictured else grid.add_row(said)
        parts.append(grid)
    return Group(*parts) if parts else Text("no bucket of this statistic was trained on", "faint")

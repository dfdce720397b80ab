"""OPs: statistic × bucket as a matrix; the histogram of the row's statistic, and rows of each bucket."""

from __future__ import annotations

from typing import Any

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import DataTable, Static

from app.printable import printable
from app.tui.base import Pane
from app.tui.marks import BLOCKS, VERDICTS, percent, style_of
from app.tui.snapshot import Snapshot
from app.tui.table import KeyedTable
from engine.errors import DjsbError
from engine.store import Row


class Ops(Pane):
    """What each operator's buckets did."""

    title_text = "OPs"
    help_text = """\
One row a statistic, one column a bucket: the change against the control with its interval. ▲ helps,
▼ hurts, · unclear, × left out. Below stand the statistic's histogram over the dataset with the
bounds between the buckets (┆), and example rows of each bucket, quoted and cut.
"""

    def __init__(self) -> None:
        super().__init__()
        self._wanted = -1

    def content(self) -> ComposeResult:
        """The matrix; histogram and examples below."""
        yield KeyedTable(["statistic", "OP"], id="matrix")
        with Horizontal(id="op-below"):
            yield Static(id="histogram")
            with VerticalScroll(id="examples"):
                yield Static(id="rows")

    def show(self, s: Snapshot) -> None:
        """All statistics, the best first."""
        names = s.buckets
        self.query_one("#matrix", KeyedTable).columns_are(["statistic", "OP", *names])
        cells: dict[str, dict[str, Row]] = {}
        ops: dict[str, str] = {}
        for r in s.board or ():
            if r["statistic"] and r["bucket"] in names and r["kind"] == "single":
                cells.setdefault(r["statistic"], {}).setdefault(r["bucket"], r)
                ops[r["statistic"]] = r["op"] or ""
        rows = [
            (name, (name, ops[name].removesuffix("_filter"), *(_cell(found.get(b)) for b in names)))
            for name, found in cells.items()
        ]
        self.query_one("#matrix", KeyedTable).put(rows)
        self._ask()

    @on(DataTable.RowHighlighted)
    def _ask(self) -> None:
        """Ask for the statistic under the cursor."""
        key = self.query_one("#matrix", KeyedTable).current
        if key and self.ui.feed:
            self._wanted = self.ui.feed.ask("statistic", key)

    def answered(self, number: int, content: Any) -> None:
        """The statistic has come."""
        if number != self._wanted:
            return
        if isinstance(content, DjsbError) or not content:
            self.query_one("#histogram", Static).update(Text(printable(str(content or "no such statistic")), "dim"))
            return
        self.query_one("#histogram", Static).update(_histogram(content))
        self.query_one("#rows", Static).update(_examples(content))


def _cell(r: Row | None) -> Text:
    if r is None:
        return Text("")
    if r["change"] is None:
        return Text(VERDICTS[r["verdict"]], "dim")
    interval = "" if r["ci_low"] is None else f" [{r['ci_low']:+.0f}, {r['ci_high']:+.0f}]"
    return Text(f"{VERDICTS[r['verdict']]} {percent(r['change'])}{interval}", style_of(r["verdict"]))


def _histogram(found: Row, height: int = 6) -> Text:
    """Columns of blocks, with the bounds between buckets marked below."""
    counts, edges, bounds = found["counts"], found["edges"], found["bounds"]
    top = max(counts) or 1
    text = Text(f"{found['name']}\n", "bold", no_wrap=True)
    for level in range(height, 0, -1):
        line = ""
        for n in counts:
            filled = n / top * height - (level - 1)
            line += " " if filled <= 0 else "█" if filled >= 1 else BLOCKS[int(filled * 8)]
        text.append(line + "\n")
    marks = [" "] * len(counts)
    for b in bounds:
        place = sum(e <= b for e in edges) - 1
        marks[max(0, min(len(marks) - 1, place))] = "┆"
    text.append("".join(marks) + "\n")
    text.append(f"{edges[0]:.4g}".ljust(len(counts) - 8) + f"{edges[-1]:.4g}".rjust(8) + "\n")
    text.append("bounds: " + ", ".join(f"{b:.4g}" for b in bounds), "dim")
    return text


def _examples(found: Row) -> Text:
    text = Text()
    for bucket, rows in found["examples"].items():
        text.append(f"{bucket}\n", "bold")
        for r in rows:
            text.append(f"  {r['value']:.4g}  ", "dim")
            text.append(f"{printable(' '.join(r['text'].split()))[:160]}\n")
    return text

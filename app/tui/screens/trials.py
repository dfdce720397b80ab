"""Trials: a sortable, filterable table; curves of any number of them overlaid; one in detail."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import DataTable, Input, Static

from app.printable import printable
from app.tui.base import Pane
from app.tui.snapshot import Snapshot
from app.tui.table import KeyedTable
from engine.errors import DjsbError
from engine.store import Row

COLUMNS = ["✓", "id", "pool", "stage", "seed", "steps", "state", "seconds", "device"]
COLOURS = ["cyan", "magenta", "yellow", "green", "red", "blue", "white"]


class Trials(Pane):
    """Every trial of the study."""

    title_text = "Trials"
    help_text = """\
Space marks trials; the curves of all marked ones, or of the one under the cursor, are drawn over
each other. o orders the table by the next column (and back), / filters by words in any column, c
changes the curve that is drawn, k cancels the trial for good: it is ended if it runs, and never run
again.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "mark", "Mark", id="trials.mark"),
        Binding("slash", "search", "Filter", id="trials.filter"),
        Binding("o", "order", "Order", id="trials.order"),
        Binding("c", "curve", "Curve", id="trials.curve"),
        Binding("k", "cancel", "Cancel trial", id="trials.cancel"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.marked: list[str] = []
        self.order: int | None = None
        self.curve = 0
        self.details: Row = {}
        self._texts: dict[str, tuple[Row, str]] = {}
        self._wanted = -1
        self._drawn = -1
        self._curve_name = "loss"

    @classmethod
    def prepare(cls) -> None:
        """Plots, and with them NumPy."""
        import textual_plot  # noqa: F401

    def content(self) -> ComposeResult:
        """Filter and table; curves and details below."""
        from textual_plot import PlotWidget

        yield Input(placeholder="/ filter: words that must all be there", id="filter")
        yield KeyedTable(COLUMNS, id="trials")
        with Horizontal(id="below"):
            yield PlotWidget(id="plot")
            with Vertical(id="detail-box"):
                yield Static(id="detail")

    def on_mount(self) -> None:
        """The table has the keys first."""
        self.query_one("#trials").focus()

    def show(self, s: Snapshot) -> None:
        """The trials that fit the filter, in the chosen order."""
        words = self.query_one("#filter", Input).value.lower().split()
        rows = {t["id"]: t for t in s.trials}
        keys = list(rows)
        if words:
            keys = [k for k in keys if all(w in self._text(rows[k]) for w in words)]
        if self.order is not None:
            column = self.order
            keys.sort(key=lambda k: _orderable(self._cells(rows[k])[column]))
        self.query_one("#trials", KeyedTable).follow(keys, lambda key: self._cells(rows[key]))
        self._ask()

    def _text(self, t: Row) -> str:
        """What the filter searches; made once for each row as it is."""
        known = self._texts.get(t["id"])
        if known is None or known[0] is not t:
            known = self._texts[t["id"]] = t, " ".join(map(str, self._cells(t)[1:])).lower()
        return known[1]

    def _cells(self, t: Row) -> tuple[Any, ...]:
        seconds = "" if t["seconds"] is None else f"{t['seconds']:.1f}"
        mark = "●" if t["id"] in self.marked else ""
        return (
            mark, t["id"], printable(t["label"]), t["stage"], t["seed"], f"{100 * t['samples'] / t['horizon']:.0f} %",
            t["state"], seconds, t["device"] or "",
        )  # fmt: skip

    def action_mark(self) -> None:
        """Mark the trial under the cursor, or unmark it."""
        if key := self.query_one("#trials", KeyedTable).current:
            self.marked = [m for m in self.marked if m != key] if key in self.marked else [*self.marked, key]
            self.refresh_data(force=True)

    def action_search(self) -> None:
        """Go to the filter."""
        self.query_one("#filter").focus()

    def action_order(self) -> None:
        """Order by the next column; after the last by time again."""
        self.order = 0 if self.order is None else None if self.order + 1 >= len(COLUMNS) else self.order + 1
        name = "time" if self.order is None else COLUMNS[self.order]
        self.notify(f"ordered by {name}", timeout=2)
        self.refresh_data(force=True)

    def action_curve(self) -> None:
        """Draw the next of the trial's curves."""
        self.curve += 1
        self._ask()

    def action_cancel(self) -> None:
        """Ask the engine to take the trial out."""
        if key := self.query_one("#trials", KeyedTable).current:
            self.ui.request("cancel", key)

    @on(Input.Changed, "#filter")
    def _filter(self) -> None:
        self.refresh_data(force=True)

    @on(Input.Submitted, "#filter")
    def key_escape(self) -> None:
        """Back to the table."""
        self.query_one("#trials").focus()

    @on(DataTable.RowHighlighted)
    def _ask(self) -> None:
        """Ask for the details of the trial under the cursor, and then its curves."""
        key = self.query_one("#trials", KeyedTable).current
        if key and self.ui.feed:
            self._wanted = self.ui.feed.ask("trial", key)

    def answered(self, number: int, content: Any) -> None:
        """Details or curves have come."""
        if isinstance(content, DjsbError):
            return
        if number == self._wanted and content:
            self.details = content
            self.query_one("#detail", Static).update(_detail(content))
            names = sorted(content["curves"] or ["loss"], key=lambda n: n != "loss")
            shown = self.marked or [content["id"]]
            self._curve_name = names[self.curve % len(names)]
            if self.ui.feed:
                self._drawn = self.ui.feed.ask("curves", shown, self._curve_name)
        elif number == self._drawn:
            self._draw(content)

    def _draw(self, found: dict[str, list[tuple[int, float]]]) -> None:
        from textual_plot import HiResMode, PlotWidget

        plot = self.query_one("#plot", PlotWidget)
        plot.clear()
        for i, (trial, points) in enumerate(found.items()):
            if points:
                x, y = zip(*points, strict=True)
                plot.plot(x, y, line_style=COLOURS[i % len(COLOURS)], hires_mode=HiResMode.BRAILLE, label=trial[:6])
        plot.set_xlabel("step")
        plot.set_ylabel(self._curve_name)


def _orderable(cell: Any) -> tuple[int, float, str]:
    """Numbers by size, before texts."""
    try:
        return 0, float(str(cell).removesuffix(" %")), ""
    except ValueError:
        return 1, 0.0, str(cell)


def _detail(row: Row) -> Text:
    """Metrics, then the configuration."""
    text = Text(f"{row['id']} {printable(row['label'])}\n", "bold")
    text = Text.assemble(text, f"{row['state']}, seed {row['seed']}, {row['samples']} of {row['horizon']} samples\n")
    if row["error"]:
        text.append(f"{printable(row['error'])}\n", "bold red")
    for name, value in row["metrics"].items():
        text.append(f"{name:20} {'–' if value is None else f'{value:.4g}'}\n")
    for layer in row["content"]["layers"]:
        for part in layer["slices"]:
            text.append(f"{part['statistic']} in {part['low']} … {part['high']}\n", "dim")
    text.append(printable(json.dumps({k: row["content"][k] for k in ("size", "repetition", "seed")})), "dim")
    return text

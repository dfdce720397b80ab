"""Trials: a sortable, filterable table; curves of any number of them overlaid; one in detail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import DataTable, Input, Static

from app.text.numbers import measured
from app.text.printable import printable
from app.tui.proposal.text import bounds
from app.tui.reading.snapshot import Snapshot
from app.tui.screens.base import Pane
from app.tui.widgets.marks import cut
from app.tui.widgets.table import KeyedTable
from app.tui.widgets.windows import Compare, LogTail
from engine.base.errors import DjsbError
from engine.journal.store import Row

COLUMNS = ["✓", "id", "pool", "stage", "seed", "steps %", "state", "seconds", "device"]
NARROW = ["✓", "pool", "stage", "seed", "steps %", "state", "seconds"]
STATES = {"COMPLETE": ("● done", ""), "RUNNING": ("▶ running", "note"), "WAITING": ("○ waiting", "faint"),
          "FAIL": ("✗ failed", "bad"), "PRUNED": ("◌ pruned", "faint")}  # fmt: skip
NUMBERS = ("seed", "steps %", "seconds")


class Trials(Pane):
    """Every trial of the study."""

    title_text = "Trials"
    help_text = """\
Space marks trials; the curves of all marked ones, or of the one under the cursor, are drawn over
each other; the line above the picture says which is which. v compares the marked trials side by
side, with their configurations and metrics. c changes the curve that is drawn.

A click on a column's head orders by it, a second click turns the order round, a third goes back to
the order of time; o does the same for one column after the other. / filters by words in any column.
g shows the end of the workers' logs. k cancels the trial for good: it is ended if it runs, and
never run again.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "mark", "Mark", id="trials.mark"),
        Binding("slash", "search", "Filter", id="trials.filter"),
        Binding("o", "order", "Order", show=False, id="trials.order"),
        Binding("c", "curve", "Curve", id="trials.curve"),
        Binding("v", "compare", "Compare", id="trials.compare"),
        Binding("g", "worker_log", "Logs", id="trials.log"),
        Binding("k", "cancel", "Cancel", id="trials.cancel"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.marked: list[str] = []
        self.order: tuple[str, bool] | None = None  # column, downward
        self.curve = 0
        self.details: Row = {}
        self._rows: dict[str, Row] = {}
        self._asked: list[Any] = []
        self._shown: list[Any] = []
        self._texts: dict[str, tuple[Row, str]] = {}
        self._wanted = -1
        self._drawn = -1
        self._compared: dict[int, Row | None] = {}
        self._curve_name = "loss"

    @classmethod
    def prepare(cls) -> None:
        """Plots, and with them NumPy."""
        import textual_plot  # noqa: F401

    def content(self) -> ComposeResult:
        """Filter and table; curves and details below."""
        from app.tui.widgets.plot import Plot

        yield Input(placeholder="/ filter: words that must all be there", id="filter")
        yield KeyedTable(COLUMNS, id="trials")
        with Horizontal(id="below"):
            with Vertical(id="plot-box"):
                yield Static(id="legend-line")
                yield Plot(id="plot")
            with VerticalScroll(id="detail-box"):
                yield Static(id="detail")

    def on_mount(self) -> None:
        """The table has the keys first."""
        self.query_one("#trials").focus()

    def show(self, s: Snapshot) -> None:
        """The trials that fit the filter, in the chosen order."""
        words = self.query_one("#filter", Input).value.lower().split()
        rows = self._rows = {t["id"]: t for t in s.trials}
        keys = [k for k, t in rows.items() if all(w in self._text(t) for w in words)] if words else list(rows)
        names = COLUMNS if self.wide else NARROW
        if self.order is not None and self.order[0] in names:
            column, down = self.order
            keys.sort(key=lambda k: _orderable(rows[k], column, k in self.marked), reverse=down)
        arrow = {self.order[0]: " ▼" if self.order[1] else " ▲"} if self.order else {}
        table = self.query_one("#trials", KeyedTable)
        table.columns_are([n + arrow.get(n, "") for n in names])
        room = max(14, self.app.size.width - (92 if self.wide else 60))
        table.follow(keys, lambda key: self._cells(rows[key], names, room))
        _, *trials = wanted = self._to_show()
        if wanted != self._shown or any(t["state"] == "RUNNING" for t in trials if t):
            self._ask()

    def _to_show(self) -> list[Any]:
        """What the parts below hang on: the theme, the trial under the cursor and the marked ones as they stand."""
        current = self.query_one("#trials", KeyedTable).current or ""
        return [self.app.theme, *map(self._rows.get, (current, *self.marked))]

    def _text(self, t: Row) -> str:
        """What the filter searches; made once for each row as it is."""
        known = self._texts.get(t["id"])
        if known is None or known[0] is not t:
            known = self._texts[t["id"]] = t, _text(t)
        return known[1]

    def _cells(self, t: Row, names: Sequence[str], room: int) -> tuple[Text, ...]:
        said, style = STATES.get(t["state"], (t["state"], ""))
        cells = {
            "✓": Text("●" if t["id"] in self.marked else "", "note"), "id": Text(t["id"][:8]),
            "pool": Text(cut(printable(t["label"]), room)), "stage": Text(t["stage"]), "seed": Text(str(t["seed"])),
            "steps %": Text(f"{100 * t['samples'] / t['horizon']:.0f}"), "state": Text(said, style),
            "seconds": Text("" if t["seconds"] is None else f"{t['seconds']:.1f}"), "device": Text(t["device"] or ""),
        }  # fmt: skip
        for name in NUMBERS:
            cells[name].justify = "right"
        return tuple(cells[n] for n in names)

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
        names = COLUMNS if self.wide else NARROW
        at = names.index(self.order[0]) + 1 if self.order and self.order[0] in names else 0
        self.order = (names[at], False) if at < len(names) else None
        self.refresh_data(force=True)

    @on(DataTable.HeaderSelected, "#trials")
    def _order_by(self, event: DataTable.HeaderSelected) -> None:
        """Upward, downward, by time again."""
        name = str(event.column_key.value).rstrip(" ▲▼")
        if self.order is None or self.order[0] != name:
            self.order = (name, False)
        else:
            self.order = None if self.order[1] else (name, True)
        self.refresh_data(force=True)

    def action_compare(self) -> None:
        """Ask for all marked trials; they are shown side by side when the last has come."""
        if len(self.marked) < 2:
            self.notify("mark two or more trials with space first", severity="warning")
        elif self.ui.feed:
            self._compared = {self.ui.feed.ask("trial", m): None for m in self.marked}

    def action_worker_log(self) -> None:
        """The log of the worker of the trial under the cursor, or of the last that wrote."""
        device = self.details.get("device")
        self.app.push_screen(LogTail(f"worker-{device}.log" if device else ""))

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
            self._wanted, self._asked = self.ui.feed.ask("trial", key), self._to_show()

    def answered(self, number: int, content: Any) -> None:
        """Details or curves have come."""
        if isinstance(content, DjsbError):
            if number in (self._wanted, self._drawn, *self._compared):
                self.query_one("#detail", Static).update(Text(printable(str(content)), "faint"))
                self._shown, self._compared = [], {}  # it is asked for again with the next snapshot
            return
        if number in self._compared:
            self._compared[number] = content
            found = [c for c in self._compared.values() if c]
            if len(found) == len(self._compared):
                self._compared = {}
                self.app.push_screen(Compare(found))
        elif number == self._wanted and content:
            self.details = content
            self.query_one("#detail", Static).update(_detail(content))
            names = sorted(content["curves"] or ["loss"], key=lambda n: n != "loss")
            shown = self.marked or [content["id"]]
            self._curve_name = names[self.curve % len(names)]
            if self.ui.feed:
                self._drawn = self.ui.feed.ask("curves", shown, self._curve_name)
        elif number == self._drawn:
            self._draw(content)
            self._shown = self._asked

    def _draw(self, found: dict[str, list[tuple[int, float]]]) -> None:
        from app.tui.widgets.plot import Plot

        plot = self.query_one("#plot", Plot)
        plot.clear()
        labels = {t["id"]: t for t in (self.ui.snapshot.trials if self.ui.snapshot else ())}
        legend = Text(f"{printable(self._curve_name)} over steps: ", "title")
        for i, (trial, points) in enumerate(found.items()):
            sign, style = plot.line(points, i)
            row = labels.get(trial)
            said = f"{cut(printable(row['label']), 24)} seed {row['seed']}" if row else trial[:8]
            legend.append(f"{sign} ", style).append(said if points else f"{said} (none)").append("  ")
        every = [p for points in found.values() for p in points]
        plot.fit([x for x, _ in every], [y for _, y in every])
        self.query_one("#legend-line", Static).update(legend)


def _text(t: Row) -> str:
    """What the filter looks in."""
    said = STATES.get(t["state"], (t["state"], ""))[0]
    return f"{t['id']} {t['label']} {t['stage']} seed {t['seed']} {said} {t['state']} {t['device'] or ''}".lower()


def _orderable(t: Row, column: str, marked: bool) -> tuple[float, str]:
    """Numbers by size, the rest by its text; what is not there yet comes first."""
    numbers = {
        "✓": 0.0 if marked else 1.0, "seed": t["seed"], "steps %": t["samples"] / t["horizon"],
        "seconds": -1.0 if t["seconds"] is None else t["seconds"],
    }  # fmt: skip
    texts = {"id": t["id"], "pool": t["label"], "stage": t["stage"], "state": t["state"], "device": t["device"] or ""}
    return numbers.get(column, 0.0), texts.get(column, "")


def _detail(row: Row) -> Text:
    """Metrics, then the configuration."""
    text = Text.assemble((f"{printable(row['label'])}\n", "title"))
    text.append(
        f"trial {row['id']}\n{row['state']}, seed {row['seed']}, {row['samples']} of {row['horizon']} samples\n"
    )
    if row["error"]:
        text.append(f"✗ {printable(row['error'])}\n", "bad")
    for name, value in row["metrics"].items():
        text.append(f"{printable(name):20} {'–' if value is None else f'{value:.4g}'}\n")
    for name, one in row.get("usage", {}).items():
        text.append(f"{name:20} {measured(name, one, True)}\n", "faint")
    for layer in row["content"]["layers"]:
        if layer.get("weight") is not None:
            text.append(f"{printable(layer.get('source') or 'weight')} {100 * layer['weight']:.3g} %\n", "faint")
        for part in layer["slices"]:
            text.append(f"{printable(part['statistic'])} {bounds(part)}\n", "faint")
    content = row["content"]
    text.append(f"{content['size']} rows × {content['repetition']}, pool seed {content['seed']}", "faint")
    return text

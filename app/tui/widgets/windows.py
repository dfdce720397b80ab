"""Windows over a screen that show more: trials side by side, and the end of a worker's log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Label, Static

from app.text.printable import printable
from app.tui.shell import shell
from app.tui.widgets.marks import cut
from engine.base.errors import DjsbError
from engine.journal.store import Row


class Compare(ModalScreen[None]):
    """Trials as columns: configuration, then metrics; ≠ marks the lines that differ. d: only those."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss(None)", "Leave"),
        Binding("d", "differences", "Only differences"),
    ]

    def __init__(self, trials: Sequence[Row]) -> None:
        super().__init__()
        self.trials = list(trials)
        self.only = False

    def compose(self) -> ComposeResult:
        """The title and the table."""
        with Vertical(classes="dialog full"):
            yield Label("", classes="title", id="compare-title", markup=False)
            yield DataTable(id="compare", fixed_columns=2, cursor_type="row", zebra_stripes=True)

    def on_mount(self) -> None:
        """Fill it."""
        table: DataTable[Text] = self.query_one("#compare", DataTable)
        for name in ("≠", "", *(t["id"][:8] for t in self.trials)):
            table.add_column(name)
        self._fill()

    def action_differences(self) -> None:
        """All lines, or those that differ."""
        self.only = not self.only
        self._fill()

    def _fill(self) -> None:
        table: DataTable[Text] = self.query_one("#compare", DataTable)
        table.clear()
        lines = compared(self.trials)
        for name, values in lines:
            differs = len(set(values)) > 1
            if differs or not self.only:
                style = "warn" if differs else ""
                table.add_row(Text("≠" if differs else "", "warn"), Text(name), *(Text(v, style) for v in values))
        n = sum(len(set(v)) > 1 for _, v in lines)
        shown = "differences only" if self.only else "all"
        said = f"{len(self.trials)} trials, {n} of {len(lines)} lines differ ({shown}; d changes that, Escape leaves)"
        self.query_one("#compare-title", Label).update(said)


def compared(trials: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """Lines (name, one value a trial): the configuration, then the metrics."""
    columns = [_facts(t) for t in trials]
    names = list(dict.fromkeys(n for c in columns for n in c))
    return [(n, [c.get(n, "–") for c in columns]) for n in names]


def _facts(t: Row) -> dict[str, str]:
    content = t["content"]
    facts = {
        "pool": printable(t["label"]), "state": t["state"], "stage": t["stage"], "seed": str(t["seed"]),
        "samples": str(t["samples"]), "horizon": str(t["horizon"]), "initial checkpoint": printable(t["init"] or "–"),
        "seconds": "–" if t["seconds"] is None else f"{t['seconds']:.1f}", "device": t["device"] or "–",
        "attempts": str(t["attempts"]), "pool size": str(content["size"]), "repetition": str(content["repetition"]),
    }  # fmt: skip
    for i, layer in enumerate(content["layers"], 1):
        if layer.get("weight") is not None:
            facts[f"layer {i}: {printable(layer.get('source') or 'weight')}"] = f"{100 * layer['weight']:.3g} %"
        for part in layer["slices"]:
            ends = f"{'−∞' if part['low'] is None else part['low']} … {'∞' if part['high'] is None else part['high']}"
            facts[f"layer {i}: {printable(part['statistic'])}"] = ends if not part.get("outside") else f"not {ends}"
    for name, value in t["metrics"].items():
        facts[f"metric {printable(name)}"] = "–" if value is None else f"{value:.4g}"
    if t["error"]:
        facts["error"] = cut(printable(" ".join(t["error"].split())), 120)
    return facts


class LogTail(ModalScreen[None]):
    """The end of a log of a worker or of the engine, followed; the arrows go to the next log."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss(None)", "Leave"),
        Binding("left", "other(-1)", "Previous log"),
        Binding("right", "other(1)", "Next log"),
    ]

    def __init__(self, name: str = "") -> None:
        super().__init__()
        self.shown: Row = {"names": [], "name": name, "text": ""}
        self._wanted = -1

    def compose(self) -> ComposeResult:
        """The log's name and its end."""
        with Vertical(classes="dialog full"):
            yield Label("reading …", classes="title", id="log-title", markup=False)
            with VerticalScroll(classes="log-text"):
                yield Static(id="log-text")

    def on_mount(self) -> None:
        """Follow it."""
        self.query_one(VerticalScroll).focus()
        self._ask()
        self.set_interval(1.0, self._ask)

    def _ask(self) -> None:
        if feed := shell(self).feed:
            self._wanted = feed.ask("log", self.shown["name"])

    def action_other(self, step: int) -> None:
        """The next log."""
        if names := self.shown["names"]:
            at = names.index(self.shown["name"]) if self.shown["name"] in names else 0
            self.shown["name"] = names[(at + step) % len(names)]
            self._ask()

    def answered(self, number: int, content: Any) -> None:
        """The end of the log has come; it is followed unless one has scrolled up."""
        if number != self._wanted:
            return
        if isinstance(content, DjsbError):
            self.query_one("#log-title", Label).update(printable(str(content)))
            return
        if content == self.shown:
            return
        box = self.query_one(VerticalScroll)
        follows = box.scroll_offset.y >= box.max_scroll_y
        self.shown = content
        names = content["names"]
        place = f" ({names.index(content['name']) + 1} of {len(names)}, ← → for others)" if len(names) > 1 else ""
        self.query_one("#log-title", Label).update(f"{printable(content['name'])}{place}")
        self.query_one("#log-text", Static).update(Text(printable(content["text"].replace("\r\n", "\n"))))
        if follows:
            self.call_after_refresh(box.scroll_end, animate=False)

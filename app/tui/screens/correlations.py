"""Correlations: heatmaps of statistics and metrics in the order of their clusters, which are named."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from app.text.printable import printable
from app.tui.reading.snapshot import Snapshot
from app.tui.screens.base import Pane
from app.tui.widgets.heat import Heat
from app.tui.widgets.marks import cut, shade
from engine.journal.store import Row


class Correlations(Pane):
    """What statistics and metrics have in common."""

    title_text = "Correlations"
    help_text = """\
Pearson's r of each two statistics over all good rows (m: of each two metrics over the probing
trials), in the order of Ward's dendrogram. Letters name the clusters, which are listed below by
their most typical member; ▏ stands where a cluster begins. The sign says which way, the ground how
strong: blue together, amber against each other. Arrows move; the names stay in sight; the line
above the picture says the two names and r under the cursor in full.

Statistics of one cluster say much the same of a row, so combining across clusters adds more.
"""
    BINDINGS: ClassVar[list[BindingType]] = [Binding("m", "other", "Statistics/metrics", id="correlations.other")]

    def __init__(self) -> None:
        super().__init__()
        self.name_shown = "statistics"
        self._drawn: object = None
        self._found: Row | None = None

    def content(self) -> ComposeResult:
        """Legend, picture, clusters."""
        yield Static(id="legend")
        yield Heat(id="heat")
        with VerticalScroll(id="clusters"):
            yield Static(id="cluster-names")

    def on_mount(self) -> None:
        """The picture has the keys."""
        self.query_one("#heat").focus()

    def show(self, s: Snapshot) -> None:
        """The heatmap that was chosen, drawn anew when it has changed."""
        found = s.results.get(self.name_shown)
        drawn = (self.name_shown, found, self.wide)
        if drawn == self._drawn:
            return
        self._drawn, self._found = drawn, found
        heat = self.query_one("#heat", Heat)
        if not found:
            heat.put([], [], [])
            text = f"no correlations of {self.name_shown} yet: they are computed when the probe ends"
            self.query_one("#legend", Static).update(Text(text, "faint"))
            self.query_one("#cluster-names", Static).update("")
            return
        _fill(heat, found, 30 if self.wide else 22)
        self.query_one("#cluster-names", Static).update(_clusters(found))

    @on(Heat.Moved)
    def _tell(self) -> None:
        """The legend, and the pair under the cursor in full."""
        if not self._found:
            return
        legend = Text.assemble(f"r of {self.name_shown}: ")
        for r in (-1.0, -0.5, 0.0, 0.5, 1.0):
            legend.append(f" {r:+.1f} " if r else "  0  ", shade(r))
        heat, order = self.query_one("#heat", Heat), self._found["order"]
        if order:
            one, other = order[heat.row], order[heat.column]
            legend.append(f"   {printable(one)} × {printable(other)}: {_number(_r(self._found, one, other))}")
        self.query_one("#legend", Static).update(legend)

    def action_other(self) -> None:
        """Statistics or metrics."""
        self.name_shown = "metrics" if self.name_shown == "statistics" else "statistics"
        self.refresh_data(force=True)


def _r(found: Row, one: str, other: str) -> float | None:
    value: float | None = found["r"][found["names"].index(one)][found["names"].index(other)]
    return value


def _number(r: float | None) -> str:
    return "–" if r is None else f"{r:+.2f}"


def groups(found: Row) -> list[tuple[str, list[str]]]:
    """Clusters in the order of the picture: a letter, and the members, the most typical first."""
    members: dict[int, list[str]] = {}
    for name in found["order"]:
        members.setdefault(found["clusters"][name], []).append(name)

    def typical(name: str, among: list[str]) -> float:
        return sum(abs(_r(found, name, other) or 0.0) for other in among)

    return [
        (chr(ord("A") + i % 26), sorted(names, key=lambda n: -typical(n, names)))
        for i, names in enumerate(members.values())
    ]


def _fill(heat: Heat, found: Row, width: int) -> None:
    """Rows and columns in cluster order; columns are numbered, rows carry number, cluster and name."""
    order, place = found["order"], {name: i for i, name in enumerate(found["names"])}
    letter = {name: key for key, names in groups(found) for name in names}
    firsts = {names[0] for names in _runs(order, letter)}
    longest = min(width, max(len(n) for n in order))
    names = [f"{i:>2}{letter[one]} {cut(printable(one), longest)}" for i, one in enumerate(order, 1)]
    cells = []
    for one in order:
        values = [found["r"][place[one]][place[other]] for other in order]
        cells.append([
            (("▏" if other in firsts else " ") + _number(r).rjust(5), "faint" if r is None else shade(r))
            for other, r in zip(order, values, strict=True)
        ])  # fmt: skip
    heat.put(names, [f"{i}{letter[name]}" for i, name in enumerate(order, 1)], cells)


def _runs(order: list[str], letter: dict[str, str]) -> list[list[str]]:
    """The order, parted where the cluster changes."""
    runs: list[list[str]] = []
    for name in order:
        if not runs or letter[runs[-1][-1]] != letter[name]:
            runs.append([])
        runs[-1].append(name)
    return runs


def _clusters(found: Row) -> Text:
    text = Text()
    for key, names in groups(found):
        text.append(f"{key} · {printable(names[0])}", "title")
        text.append(f" ({len(names)}): " if len(names) > 1 else "")
        text.append(", ".join(printable(n) for n in names[1:]) + "\n")
    text.rstrip()
    return text

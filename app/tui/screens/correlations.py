"""Correlations: heatmaps of statistics and metrics in the order of their clusters, which are named."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import ScrollableContainer
from textual.widgets import Static

from app.tui.base import Pane
from app.tui.snapshot import Snapshot
from engine.store import Row

SHADES = " ░▒▓█"


class Correlations(Pane):
    """What statistics and metrics have in common."""

    title_text = "Correlations"
    help_text = """\
Pearson's r of each two statistics over all good rows (m: of each two metrics over the probing
trials), in the order of Ward's dendrogram; a line parts the clusters, which are named below. The
shade says how strong, the sign which way. Statistics of one cluster say much the same of a row, so
combining across clusters adds more.
"""
    BINDINGS: ClassVar[list[BindingType]] = [Binding("m", "other", "Statistics/metrics", id="correlations.other")]
    name_shown = "statistics"
    _drawn: Row | None = None

    def content(self) -> ComposeResult:
        """One scrolling picture."""
        with ScrollableContainer():
            yield Static(id="heat")

    def show(self, s: Snapshot) -> None:
        """The heatmap that was chosen."""
        found = s.results.get(self.name_shown)
        if found is not None and found is self._drawn:
            return
        self._drawn = found
        if not found:
            text = Text(f"no correlations of {self.name_shown} yet: they are computed when the probe ends", "dim")
        else:
            text = heatmap(found)
        self.query_one("#heat", Static).update(text)

    def action_other(self) -> None:
        """Statistics or metrics."""
        self.name_shown = "metrics" if self.name_shown == "statistics" else "statistics"
        self.refresh_data(force=True)


def heatmap(found: Row) -> Text:
    """Rows and columns in cluster order: `+.93` on a ground as strong as the correlation."""
    order, clusters = found["order"], found["clusters"]
    place = {n: i for i, n in enumerate(found["names"])}
    width = max(len(n) for n in order)
    text = Text(" " * (width + 2) + "".join(f"{i:>6}" for i in range(1, len(order) + 1)) + "\n", no_wrap=True)
    last = None
    for number, name in enumerate(order, 1):
        if last is not None and clusters[name] != last:
            text.append(" " * (width + 2) + "─" * (6 * len(order)) + "\n", "dim")
        last = clusters[name]
        text.append(f"{name:{width}} {number:<2}")
        for other in order:
            text.append_text(_cell(found["r"][place[name]][place[other]]))
        text.append("\n")
    groups: dict[int, list[str]] = {}
    for name in order:
        groups.setdefault(clusters[name], []).append(name)
    for number, names in groups.items():
        text.append(f"\ncluster {number}: ", "bold")
        text.append(", ".join(names))
    return text


def _cell(r: float | None) -> Text:
    if r is None:
        return Text("     –", "dim")
    shade = SHADES[min(4, int(abs(r) * 5))]
    colour = "blue" if r > 0 else "red"
    number = f"{r:+.2f}".replace("0.", ".", 1)[:4].rjust(4)
    return Text.assemble((f" {shade}", colour), (number, colour if abs(r) >= 0.5 else ""))

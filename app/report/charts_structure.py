"""Charts of what belongs together: correlations in cluster order, the lattice of combinations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from app.report.figures import (
    GRID,
    HELPS_FILL,
    HURTS_FILL,
    INK,
    MUTED,
    PAPER,
    SMALL,
    SYMBOLS,
    TEXT,
    TONES,
    WIDTH,
    bare,
    inches,
    panel,
    percent,
    sheet,
    tint,
    wrapped,
)
from engine.journal.store import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from app.report.data import Node


def correlation(found: Row) -> Figure:
    """Pearson's r in cluster order under the dendrogram. found: `Correlation.to_json`."""
    names, order = list(found["names"]), list(found["order"])
    places = [names.index(n) for n in order]
    labels = [wrapped(f"{n} · {found['clusters'][n]}", 40, 1) for n in order]
    n = len(order)
    cell = 0.5 if n <= 14 else 0.42 if n <= 20 else 0.3
    left, side, tree = inches(labels) + 0.2, cell * n, 0.9
    below = inches(labels) * 0.72 + 0.35
    figure = sheet(left + side + 0.6, below + side + tree + 0.05)
    _dendrogram(panel(figure, left, below + side + 0.04, side, tree - 0.04), found["linkage"], n)
    axes = panel(figure, left, below, side, side)
    axes.set_xlim(0, n)
    axes.set_ylim(n, 0)
    for y, i in enumerate(places):
        for x, j in enumerate(places):
            r = found["r"][i][j]
            if r is not None and abs(r) >= 0.01:
                tint(axes, x + 0.02, y + 0.02, 0.96, 0.96, r)
            if n <= 20 or (r is not None and abs(r) >= 0.3):
                text = "–" if r is None else f"{r + 0.0:.2f}".replace("-0.00", "0.00").replace("-", "\u2212")
                axes.text(
                    x + 0.5,
                    y + 0.5,
                    text,
                    ha="center",
                    va="center",
                    fontsize=SMALL if n <= 14 else 7.5 if n <= 20 else 6,
                )
    edges = [k for k in range(1, n) if found["clusters"][order[k]] != found["clusters"][order[k - 1]]]
    for edge in edges:
        axes.axhline(edge, color=INK, linewidth=1.2)
        axes.axvline(edge, color=INK, linewidth=1.2)
    ticks = np.arange(n) + 0.5
    axes.set_yticks(ticks, labels, color=INK)
    axes.set_xticks(ticks, labels, color=INK, rotation=45, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _dendrogram(axes: Axes, linkage: Sequence[Sequence[float]], n: int) -> None:
    from scipy.cluster.hierarchy import dendrogram

    tree = dendrogram(np.array(linkage, np.float64), no_plot=True)
    for xs, heights in zip(tree["icoord"], tree["dcoord"], strict=True):
        axes.plot(np.array(xs) / 10, heights, color=MUTED, linewidth=1.1)  # SciPy puts leaf k at 10 k + 5
    axes.set_xlim(0, n)
    axes.set_ylim(0, max(max(h) for h in tree["dcoord"]) * 1.04 or 1.0)
    bare(axes)


def lattice(levels: Sequence[Sequence[Node]], letters: Mapping[str, str]) -> Figure:
    """Combinations by number of slices, left to right. letters: letter → label of a slice."""
    tallest = max(len(level) for level in levels)
    names = [[_node_name(node, letters) for node in level] for level in levels]
    widths = [max(inches([*texts, f"{i + 1} slices"], TEXT) + 0.2, 1.25) for i, texts in enumerate(names)]
    gap = max(0.55, (WIDTH - sum(widths)) / max(1, len(levels) - 1) if len(levels) > 1 else 0.55)
    gap = min(gap, 1.6)
    row, box = 0.56, 0.44
    figure = sheet(sum(widths) + gap * (len(levels) - 1), row * tallest + 0.35)
    axes = panel(figure, 0, 0, sum(widths) + gap * (len(levels) - 1), row * tallest + 0.35)
    axes.set_xlim(0, sum(widths) + gap * (len(levels) - 1))
    axes.set_ylim(row * tallest, -0.35)
    bare(axes)
    lefts = [sum(widths[:i]) + gap * i for i in range(len(levels))]
    places = {
        node.letters: (lefts[i], row * (tallest - len(level)) / 2 + row * (k + 0.5))
        for i, level in enumerate(levels)
        for k, node in enumerate(level)
    }
    for i, level in enumerate(levels[1:], 1):
        for node in level:
            for parent in levels[i - 1]:
                if set(parent.letters) < set(node.letters):
                    (x, y), (px, py) = places[node.letters], places[parent.letters]
                    axes.plot([px + widths[i - 1], x], [py, y], color=GRID, linewidth=1.1, zorder=1)
    most = max((abs(n.change) for level in levels for n in level if n.change is not None), default=1.0) or 1.0
    for i, level in enumerate(levels):
        axes.text(lefts[i], -0.14, f"{i + 1} slice{'s' * (i > 0)}", color=MUTED, va="bottom")
        for k, node in enumerate(level):
            _node(axes, places[node.letters], (widths[i], box), node, names[i][k], most)
    return figure


def _node_name(node: Node, letters: Mapping[str, str]) -> str:
    if len(node.letters) > 1:
        return " + ".join(node.letters)
    return f"{node.letters[0]}: {wrapped(letters[node.letters[0]], 34, 1)}"


def _node(axes: Axes, at: tuple[float, float], size: tuple[float, float], node: Node, name: str, most: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    (x, y), (width, height) = at, size
    sure = node.verdict in TONES

    def box(**style: Any) -> None:
        corner = (x, y - height / 2)
        axes.add_patch(
            FancyBboxPatch(corner, width, height, boxstyle="round,pad=0,rounding_size=0.06", clip_on=False, **style)
        )

    box(facecolor=PAPER, edgecolor="none", zorder=2)
    if node.change:
        fill = HELPS_FILL if node.change > 0 else HURTS_FILL
        box(facecolor=fill, edgecolor="none", alpha=0.75 * abs(node.change) / most, zorder=3)
    dash: Any = "-" if node.change is not None else (0, (3, 2))
    edge = TONES.get(node.verdict, MUTED)
    box(facecolor="none", edgecolor=edge, linewidth=1.8 if sure else 0.7, linestyle=dash, zorder=4)
    value = "not tried" if node.change is None else f"{percent(node.change)} {SYMBOLS[node.verdict] if sure else ''}"
    axes.text(x + 0.1, y - 0.035, name, va="bottom", fontsize=TEXT, zorder=5)
    axes.text(x + 0.1, y + 0.035, value, va="top", fontsize=TEXT, fontweight="bold", zorder=5)

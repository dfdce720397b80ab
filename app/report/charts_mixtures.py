"""The chart of mixtures: what is expected along each source's weight and over two, and how far that can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from app.report.figures import (
    DOT,
    HELPS,
    INK,
    MUTED,
    SMALL,
    STAGES,
    WIDTH,
    panel,
    percent,
    sheet,
    tint,
    wrapped,
    zero_line,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from engine.records.mixture import Surface

DASHES = ("-", "--", ":", "-.")


def response(found: Surface) -> Figure:
    """Three panels: change along each weight, change over two weights, expected against measured."""
    width, height = (WIDTH - 2.4) / 3, 2.7
    figure = sheet(WIDTH, height + 1.6)
    _along(panel(figure, 0.65, 0.6, width, height), found)
    _across(panel(figure, 0.65 + width + 0.8, 0.6, width, height), found)
    _expected(panel(figure, 0.65 + 2 * (width + 0.8), 0.6, width, height), found)
    return figure


def _along(axes: Axes, found: Surface) -> None:
    zero_line(axes, vertical=False)
    for place, (name, line) in enumerate(zip(found.names, found.along, strict=True)):
        tone, dash = STAGES[place % len(STAGES)], DASHES[place // len(STAGES) % len(DASHES)]
        weights, changes = np.array(line).T
        axes.plot(weights, changes, dash, color=tone, label=wrapped(name, 18, 1))
        axes.plot([found.base[place]], [np.interp(found.base[place], weights, changes)], "o", color=tone)
    axes.set_xlabel("weight, the others in proportion")
    axes.set_ylabel("expected change, %")
    axes.grid(axis="y")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0.1)


def _across(axes: Axes, found: Surface) -> None:
    """The grid in the colours of the sign, with the mixtures that ran."""
    first, second = found.across
    values = [v for row in found.grid for v in row if v is not None]
    most, step = max((abs(v) for v in values), default=0.0) or 1.0, found.steps[1] - found.steps[0]
    for b, row in zip(found.steps, found.grid, strict=True):
        for a, value in zip(found.steps, row, strict=True):
            if value is not None:
                tint(axes, a - step / 2, b - step / 2, step, step, value / most)
    axes.plot(
        [t.weights[first] for t in found.tried], [t.weights[second] for t in found.tried], "o", color=INK,
        markersize=DOT - 2,
    )  # fmt: skip
    axes.plot([found.base[first]], [found.base[second]], "x", color=INK)
    axes.set_xlim(-step / 2, 1 + step / 2)
    axes.set_ylim(-step / 2, 1 + step / 2)
    axes.set_xlabel(f"weight of {wrapped(found.names[first], 22, 1)}")
    axes.set_ylabel(f"weight of {wrapped(found.names[second], 22, 1)}")
    axes.set_title(f"from {percent(min(values, default=0.0))} to {percent(max(values, default=0.0))}", fontsize=SMALL)


def _expected(axes: Axes, found: Surface) -> None:
    ends = [value for t in found.tried for value in (t.expected, t.change)]
    axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color=MUTED, linewidth=1.0)
    axes.plot([t.expected for t in found.tried], [t.change for t in found.tried], "o", color=HELPS, markersize=DOT - 1)
    axes.set_xlabel("expected from the others, %")
    axes.set_ylabel("measured, %")
    rank = "–" if found.rank is None else f"{found.rank:.2f}".replace("-", "\u2212")
    axes.set_title(f"rank correlation out of fold: {rank}", fontsize=SMALL)

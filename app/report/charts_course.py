"""Charts over samples, time and steps: repetition, spending, training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from app.report.figures import (
    BY_ROW,
    DOT,
    HELPS,
    HURTS,
    INK,
    MUTED,
    SMALL,
    STAGES,
    TEXT,
    WIDTH,
    clean,
    inches,
    panel,
    percent,
    share,
    sheet,
    spread,
    wrapped,
    write,
    zero_line,
)
from engine.base.amounts import format_seconds
from engine.journal.store import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from app.report.data import Curve, Spent

ARMS = {"repetition": ("repeat the recipe", "o", "-", HELPS), "layers": ("add lower layers", "s", "--", HURTS)}


def repetition(groups: Mapping[str, Sequence[Row]]) -> Figure:
    """Change over trained samples, one panel a recipe. groups: recipe → rows of the stored result `scale`."""
    height, left = 2.7, 0.75
    figure = sheet(WIDTH, (height + 1.05) * len(groups))
    for k, (recipe, rows) in enumerate(groups.items()):
        axes = panel(figure, left, (height + 1.05) * (len(groups) - 1 - k) + 0.6, WIDTH - left - 0.2, height)
        samples = sorted({r["samples"] for r in rows})
        zero_line(axes, vertical=False)
        for side, (kind, (label, marker, dash, tone)) in zip((-1, 1), ARMS.items(), strict=True):
            own = sorted((r for r in rows if r["kind"] == kind and r["change"] is not None), key=lambda r: r["samples"])
            xs = [samples.index(r["samples"]) + 0.06 * side for r in own]
            axes.plot(xs, [r["change"] for r in own], dash, marker=marker, color=tone, markersize=DOT, label=label)
            for x, r in zip(xs, own, strict=True):
                # the numbers of one arm stand below its intervals and of the other above, clear of both lines
                low, high = (r["change"], r["change"]) if r["ci_low"] is None else (r["ci_low"], r["ci_high"])
                axes.plot([x, x], [low, high], color=tone, linewidth=1.2)
                place = {"va": "top" if side < 0 else "bottom", "ha": "center", "fontsize": SMALL, "color": tone}
                write(axes, percent(r["change"]), (x, low if side < 0 else high), (0, 5 * side), "data", **place)
        axes.margins(y=0.16)
        axes.set_title(wrapped(recipe, 90, 1), pad=20)
        axes.set_xlim(-0.55, len(samples) - 0.45)
        axes.set_xticks(range(len(samples)), [f"{s:,}\n{_rates(rows, s)}" for s in samples])
        axes.set_xlabel("trained samples")
        axes.set_ylabel("change, %")
        axes.grid(axis="y")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=2, borderaxespad=0.1)
    return figure


def _rates(rows: Sequence[Row], samples: int) -> str:
    return ", ".join(
        f"×{r}"
        for r in sorted({r["repetition"] for r in rows if r["samples"] == samples and r["kind"] == "repetition"})
    )


def spending(found: Spent) -> Figure:
    """Cumulative device-seconds by stage over wall-clock time, with the limit."""
    unit, size = next((u, s) for u, s, most in UNITS if found.total < most)
    wall_unit, wall = next((u, s) for u, s, most in UNITS if found.hours[-1] * 3600 < most)
    names = list(found.stages)
    labels = [f"{n}  {format_seconds(found.stages[n][-1])}" for n in names]
    right = inches(labels, TEXT) + 0.3
    figure = sheet(WIDTH, 3.1)
    axes = panel(figure, 0.75, 0.55, WIDTH - 0.75 - right, 2.3)
    xs = np.array(found.hours) * 3600 / wall
    below, middles = np.zeros(len(xs)), []
    for name, colour in zip(names, _stage_colours(names), strict=True):
        above = below + np.array(found.stages[name]) / size
        axes.fill_between(xs, below, above, step="post", color=colour, linewidth=0, alpha=0.85)
        middles.append(float(below[-1] + above[-1]) / 2)
        below = above
    axes.plot(xs, below, color=INK, linewidth=1.1, drawstyle="steps-post")
    top = _limit_line(axes, found, size)
    axes.set_ylim(0, top)
    axes.set_xlim(0, float(xs[-1]) or 1.0)
    for middle, at, label, colour in zip(
        middles, spread(middles, top * 0.075), labels, _stage_colours(names), strict=True
    ):
        axes.annotate(
            label, (1, middle), xycoords=("axes fraction", "data"), xytext=(1.0 + 0.16 / 6, at),
            textcoords=("axes fraction", "data"), va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 1.5, "shrinkA": 2, "shrinkB": 0},
        )  # fmt: skip
    axes.set_xlabel(f"time since the start, {wall_unit}")
    axes.set_ylabel(f"device time, {unit}")
    axes.grid(axis="y")
    return figure


UNITS = (("seconds", 1, 180), ("minutes", 60, 10_800), ("hours", 3600, 259_200), ("days", 86_400, float("inf")))


def _stage_colours(names: Sequence[str]) -> list[str]:
    known = dict(zip(("calibration", "probe", "combine", "scale", "screen", "confirm"), STAGES, strict=True))
    return [known.get(n, STAGES[i % len(STAGES)]) for i, n in enumerate(names)]


def _limit_line(axes: Axes, found: Spent, size: float) -> float:
    """Draw the limit, or say that it lies far above; the top of the axis."""
    spent, limit = found.total / size, (found.limit or 0) / size
    text = f"limit: {format_seconds(found.limit)}" if found.limit else "no limit recorded"
    if found.limit and limit <= 4 * spent:
        axes.axhline(limit, color=INK, linewidth=1.1, linestyle=(0, (5, 3)))
        write(axes, text, (0, limit), (6, 3), BY_ROW, va="bottom", fontsize=SMALL)
        return max(limit, spent) * 1.14
    part = f", {share(found.total / found.limit, 1)} of it spent; it lies above this plot" if found.limit else ""
    write(axes, text + part, (0, 1), (6, -4), "axes fraction", va="top", fontsize=SMALL)
    return spent * 1.25 or 1.0


def curves(found: Sequence[Curve], name: str) -> Figure:
    """Mean over seeds, with the range of the seeds as a band."""
    figure = sheet(WIDTH, 3.1)
    axes = panel(figure, 0.75, 0.55, WIDTH - 0.95, 2.3)
    for curve, (tone, dash) in zip(found, ((MUTED, (0, (4, 2))), (HELPS, "-")), strict=False):
        mean, low, high = (np.array(v) for v in (curve.mean, curve.low, curve.high))
        axes.fill_between(curve.steps, low, high, color=tone, alpha=0.18, linewidth=0)
        seeds = f"{curve.seeds} seed{'s' * (curve.seeds != 1)}"
        axes.plot(
            curve.steps,
            mean,
            color=tone,
            linestyle=dash,
            linewidth=1.6,
            label=f"{wrapped(curve.label, 70, 1)} ({seeds})",
        )
    axes.legend(loc="upper right")
    axes.set_xlabel("step")
    axes.set_ylabel(clean(name))
    axes.set_xlim(left=0)
    axes.grid(axis="y")
    return figure

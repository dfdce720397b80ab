"""Charts of the evidence: forest plot, buckets, confirmation. Drawn inside `figures.picture`.

Heights follow the number of rows and margins the width of the labels, so that nothing overlaps or is cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from app.report.data import BESIDE
from app.report.figures import (
    BY_ROW,
    DOT,
    INK,
    MARKERS,
    MUTED,
    PAPER,
    SEED_DOT,
    SMALL,
    SYMBOLS,
    TEXT,
    TONES,
    WIDTH,
    bare,
    clean,
    inches,
    interval,
    panel,
    percent,
    share,
    sheet,
    tint,
    wrapped,
    write,
    zero_line,
)
from engine.evidence.effects import Effect
from engine.journal.store import Row
from engine.records.leaderboard import bound_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from app.report.data import Candidate


HEAD = 1.3  # height of a group's heading in lines


def forest(rows: Sequence[Row], confidence: float) -> Figure:
    """Changes with their intervals, best first; pools of one size and length below each other.

    rows: entries of the leaderboard that have a change.
    """
    alike = list(dict.fromkeys((r["size"], r["share"]) for r in rows))
    rows = sorted(rows, key=lambda r: alike.index((r["size"], r["share"])))
    begins = [not i or alike.index((r["size"], r["share"])) > alike.index((rows[i - 1]["size"], rows[i - 1]["share"]))
              for i, r in enumerate(rows)]  # fmt: skip
    labels = [wrapped(r["label"], 46) for r in rows]
    heights = [max(1.0, 0.75 * (1 + label.count("\n"))) for label in labels]
    heads = [HEAD * (begin and len(alike) > 1) for begin in begins]
    ends = np.cumsum(np.add(heights, heads))
    ys = [float(end - height / 2) for end, height in zip(ends, heights, strict=True)]
    columns = [
        ("verdict", [f"{SYMBOLS[r['verdict']]} {r['verdict']}" for r in rows]),
        ("change", [percent(r["change"]) for r in rows]),
        ("interval", [interval(r["ci_low"], r["ci_high"]) for r in rows]),
        ("seeds", [str(r["seeds"]) for r in rows]),
    ]
    left = inches(labels) + 0.15
    widths = [inches([head, *texts], SMALL) + 0.16 for head, texts in columns]
    plot = max(2.6, WIDTH - left - sum(widths))
    height = 0.235 * float(ends[-1])
    axes = panel(sheet(left + plot + sum(widths), height + 0.85), left, 0.55, plot, height)
    _forest_marks(axes, rows, ys)
    _frame(
        axes,
        f"line: {share(confidence)} simultaneous interval · band: ± one standard deviation of a seed's change",
    )
    axes.set_ylim(float(ends[-1]) + 0.1, -0.1)
    axes.set_yticks(ys, labels, color=INK, fontsize=TEXT)
    for r, y, height, space in zip(rows, ys, heights, heads, strict=True):
        if space:
            said = f"{r['size']:,} rows, {100 * r['share']:g} % of the steps"
            style = {"fontweight": "bold", "fontsize": SMALL, "color": MUTED}
            write(axes, said, (0, y - height / 2 - 0.45), (-6, 0), BY_ROW, ha="right", va="center", **style)
    at = 8.0
    for (head, texts), width in zip(columns, widths, strict=True):
        for text, y, row in zip(texts, ys, rows, strict=True):
            colour = TONES.get(row["verdict"], INK) if head == "verdict" else INK
            write(axes, text, (1, y), (at, 0), BY_ROW, va="center", fontsize=SMALL, color=colour)
        write(axes, head, (1, 1), (at, 5), "axes fraction", color=MUTED, fontsize=SMALL)
        at += width * 72
    return _figure(axes)


def _figure(axes: Axes) -> Figure:
    found = axes.get_figure(root=True)
    assert found is not None
    return found


def _frame(axes: Axes, key: str) -> None:
    """What the two charts of changes share: the control's line, the axis, the key below."""
    zero_line(axes, vertical=True)
    axes.tick_params(axis="y", length=0, pad=6)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel("change against the control of equal samples, %")
    write(axes, key, (0, 0), (0, -38), "axes fraction", fontsize=SMALL, color=MUTED, va="top")


def _reach(rows: Sequence[Row]) -> float:
    """How far the axis goes; a very wide interval is cut with an arrow rather than flattening the others."""
    span = max((abs(r["change"]) + (r["std"] or 0.0) for r in rows), default=1.0)
    ends = [max(abs(r["ci_low"]), abs(r["ci_high"])) for r in rows if r["ci_low"] is not None] or [span]
    usual = min(2 * float(np.median(ends)), 5 * span, max(ends))
    return 1.06 * float(max(span, usual, 0.1))


def _forest_marks(axes: Axes, rows: Sequence[Row], ys: Sequence[float]) -> None:
    reach = _reach(rows)
    axes.set_xlim(-reach, reach)
    for row, y in zip(rows, ys, strict=True):
        tone = TONES.get(row["verdict"], MUTED)
        if row["std"] is not None:
            low, high = row["change"] - row["std"], row["change"] + row["std"]
            axes.plot([low, high], [y, y], color=tone, linewidth=6, alpha=0.28, solid_capstyle="butt")
        if row["ci_low"] is not None:
            low, high = max(row["ci_low"], -reach), min(row["ci_high"], reach)
            axes.plot([low, high], [y, y], color=tone, linewidth=1.3, solid_capstyle="butt")
            for end, inside, arrow in ((low, row["ci_low"] >= -reach, "<"), (high, row["ci_high"] <= reach, ">")):
                axes.plot(
                    [end], [y], "|" if inside else arrow, color=tone, markersize=6 if inside else 4, clip_on=False
                )
        hollow = row["ci_low"] is None
        axes.plot(
            [row["change"]], [y], MARKERS.get(row["verdict"], "o"), color=tone, markersize=DOT, clip_on=False,
            markerfacecolor=PAPER if hollow else tone,
        )  # fmt: skip


def buckets(cells: Mapping[tuple[str, str], Row], statistics: Mapping[str, str], names: Sequence[str]) -> Figure:
    """OP statistic × bucket. cells: (statistic, bucket) → entry. statistics: statistic → its OP, top first."""
    labels = [clean(s) for s in statistics]
    ops = [clean(op) for op in statistics.values()]
    left = max(inches(labels, TEXT), inches(ops, SMALL - 1)) + 0.25
    row, column = 0.42, max(1.25, min(1.9, (WIDTH - left) / len(names)))
    figure = sheet(left + column * len(names), row * len(labels) + 0.4)
    axes = panel(figure, left, 0.05, column * len(names), row * len(labels))
    axes.set_xlim(0, len(names))
    axes.set_ylim(len(labels), 0)
    bare(axes)
    most = max((abs(c["change"]) for c in cells.values() if c["change"] is not None), default=1.0) or 1.0
    for x, name in enumerate(names):
        write(axes, name, (x + 0.5, 0), (0, 6), "data", ha="center", color=MUTED)
    for y, statistic in enumerate(statistics):
        write(axes, labels[y], (0, y + 0.5), (-9, 1), "data", ha="right", va="bottom")
        write(axes, ops[y], (0, y + 0.5), (-9, -1), "data", ha="right", va="top", color=MUTED, fontsize=SMALL - 1)
        for x, name in enumerate(names):
            cell = cells.get((statistic, name))
            change = cell["change"] if cell else None
            if change is not None:
                tint(axes, x + 0.015, y + 0.05, 0.97, 0.9, change / most)
            weight = "bold" if cell and cell["verdict"] in TONES else "normal"
            tone = INK if change is not None else MUTED
            text = _cell_text(cell) + (f"\n{cell['bucket']}" if cell and name == BESIDE else "")
            size = SMALL - 1 if name == BESIDE else TEXT
            axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", color=tone, fontweight=weight, fontsize=size)
    return figure


def _cell_text(cell: Row | None) -> str:
    if cell is None:
        return "–"
    if cell["verdict"] == "degenerate":
        return "× left out"
    if cell["change"] is None:
        return "not run"
    symbol = f" {SYMBOLS[cell['verdict']]}" if cell["verdict"] in TONES else ""
    return percent(cell["change"]) + symbol


def confirmation(candidates: Sequence[Candidate], confidence: float) -> Figure:
    """Every candidate on fresh seeds: the ranking's change with its interval, then each metric with its seeds."""
    rows: list[tuple[str, Candidate, str | None]] = []
    several = len({c.rows for c in candidates}) > 1
    for c in candidates:
        rows.append((wrapped(c.label + (f" · {c.rows:,} rows" if several else ""), 46), c, None))
        rows += [(f"{wrapped(m, 40, 1)}", c, m) for m in c.metrics]
    ys: list[float] = []
    y = 0.0
    for label, _, metric in rows:
        y += (0.5 if metric is None and ys else 0.0) + max(1.0, 0.75 * (1 + label.count("\n")))
        ys.append(y - 0.5)
    left = inches([r[0] for r in rows]) + 0.2
    texts = [_overall(c.effect) if metric is None else percent(c.metrics[metric].mean) for _, c, metric in rows]
    right = inches(texts, SMALL) * 1.12 + 0.25
    plot, height = max(2.6, WIDTH - left - right), 0.25 * y
    axes = panel(sheet(left + plot + right, height + 0.8), left, 0.55, plot, height)
    for (_, c, metric), at, text in zip(rows, ys, texts, strict=True):
        _confirmation_row(axes, c, metric, at)
        style = {"color": INK, "fontweight": "bold"} if metric is None else {"color": MUTED}
        write(axes, text, (1, at), (10, 0), BY_ROW, va="center", fontsize=SMALL, **style)
    axes.set_ylim(y + 0.2, -0.2)
    axes.set_yticks(ys, [r[0] for r in rows])
    for tick, (_, _, metric) in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(INK if metric is None else MUTED)
        tick.set_fontweight("bold" if metric is None else "normal")
        tick.set_fontsize(TEXT)
    key = f"bold: all ranked metrics; thin: {share(confidence)} interval, thick: from the one-sided bound of the claim"
    _frame(axes, f"{key} · below: a metric, ◆ mean, ○ a fresh seed")
    return _figure(axes)


def _overall(effect: Effect) -> str:
    bounds = interval(effect.ci_low, effect.ci_high)
    if effect.bound is not None:
        bounds = bound_text(effect.verdict, effect.bound).replace("-", "\u2212")
    return f"{percent(effect.change)}  {bounds}  {SYMBOLS[effect.verdict]} {effect.verdict}"


def _confirmation_row(axes: Axes, c: Candidate, metric: str | None, y: float) -> None:
    if metric is not None:
        seeds = c.metrics[metric].seeds
        axes.plot(
            seeds, [y] * len(seeds), "o", color=MUTED, markersize=SEED_DOT, markerfacecolor="none", markeredgewidth=0.8
        )
        axes.plot([c.metrics[metric].mean], [y], "D", color=INK, markersize=SEED_DOT)
        return
    tone = TONES.get(c.effect.verdict, MUTED)
    if c.effect.ci_low is not None and c.effect.ci_high is not None:
        claimed = c.effect.bound is not None
        axes.plot(
            [c.effect.ci_low, c.effect.ci_high], [y, y], "|-", color=MUTED if claimed else tone,
            linewidth=1 if claimed else 2, markersize=8,
        )  # fmt: skip
        if c.effect.bound is not None:
            far = c.effect.ci_high if c.effect.verdict == "helps" else c.effect.ci_low
            axes.plot([c.effect.bound, far], [y, y], "-", color=tone, linewidth=3, solid_capstyle="butt")
    if c.effect.change is not None:
        axes.plot([c.effect.change], [y], MARKERS.get(c.effect.verdict, "o"), color=tone, markersize=DOT + 2)

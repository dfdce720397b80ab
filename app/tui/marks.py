"""Small drawings in text: interval bars, sparklines, meters. Each says by shape what it says by colour."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.text import Text

from engine.store import Row

VERDICTS = {"helps": "▲", "hurts": "▼", "unclear": "·", "degenerate": "×"}
STATUSES = {
    "queued": "○", "held": "◐", "approved": "●", "rejected": "✗", "edited": "✎", "refused": "⊘",
}  # fmt: skip
BLOCKS = "▁▂▃▄▅▆▇█"


def percent(value: float | None) -> str:
    """`+12.3`, or a dash."""
    return "–" if value is None else f"{value:+.1f}"


def interval_bar(row: Row, reach: float, width: int = 21) -> Text:
    """An interval around zero on a scale of ± reach percent: `   ├──●┤  │`; arrows where it goes beyond."""
    change, low, high = row["change"], row["ci_low"], row["ci_high"]
    cells = [" "] * width
    middle = width // 2
    cells[middle] = "│"
    if change is None:
        return Text("".join(cells), "dim")

    def place(value: float) -> int:
        return max(0, min(width - 1, middle + round(value / reach * middle)))

    if low is not None and high is not None:
        a, b = place(low), place(high)
        for i in range(a, b + 1):
            cells[i] = "┼" if i == middle else "─"
        cells[a] = "◄" if low < -reach else "├"
        cells[b] = "►" if high > reach else "┤"
    cells[place(change)] = "●" if low is not None else "○"
    return Text("".join(cells), style_of(row["verdict"]))


def reach_of(rows: Sequence[Row]) -> float:
    """A scale that shows most intervals whole: the 80th percentile of their ends, at least 5 %."""
    ends = sorted(
        abs(v) for r in rows for v in (r["ci_low"], r["ci_high"], r["change"]) if v is not None and math.isfinite(v)
    )
    return max(5.0, ends[int(0.8 * (len(ends) - 1))]) if ends else 5.0


def style_of(verdict: str) -> str:
    """A verdict's colour, which never stands alone: the glyph says the same."""
    return {"helps": "bold green", "hurts": "bold red", "degenerate": "dim"}.get(verdict, "")


def sparkline(values: Sequence[float], width: int = 16) -> str:
    """The course of values, the latest at the right."""
    if not values:
        return ""
    shown = list(values)[-width:]
    low, high = min(shown), max(shown)
    span = high - low or 1.0
    return "".join(BLOCKS[min(7, int((v - low) / span * 8))] for v in shown)


def meter(share: float, width: int = 20) -> str:
    """`████████░░░░` for a share of 0 … 1."""
    full = round(max(0.0, min(1.0, share)) * width)
    return "█" * full + "░" * (width - full)

"""Small drawings in text: interval bars, sparklines, meters. Each says by shape what it says by colour."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.color import Color
from rich.style import Style
from rich.text import Text

from app.tui.preferences.themes import STEPS
from engine.journal.store import Row

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
        return Text("".join(cells), "faint")

    def place(value: float) -> int:
        return max(0, min(width - 1, middle + round(value / reach * middle)))

    if low is not None and high is not None:
        a, b = place(low), place(high)
        for i in range(a, b + 1):
            cells[i] = "┼" if i == middle else "─"
        cells[a] = "◄" if low < -reach else "├"
        cells[b] = "►" if high > reach else "┤"
    at = place(change)
    if low is not None and high is not None:  # beside an arrow, not on it
        at = min(max(at, int(low < -reach)), width - 1 - int(high > reach))
    cells[at] = "●" if low is not None else "○"
    return Text("".join(cells), style_of(row["verdict"]))


def reach_of(rows: Sequence[Row]) -> float:
    """A scale that shows most intervals whole: the 80th percentile of their ends, at least 5 %."""
    ends = sorted(
        abs(v) for r in rows for v in (r["ci_low"], r["ci_high"], r["change"]) if v is not None and math.isfinite(v)
    )
    return max(5.0, ends[int(0.8 * (len(ends) - 1))]) if ends else 5.0


def style_of(verdict: str) -> str:
    """A verdict's named style (themes.py), which never stands alone: the glyph says the same."""
    return {"helps": "good", "hurts": "bad", "degenerate": "faint"}.get(verdict, "")


def shade(strength: float) -> str:
    """The named style of a cell's ground: as strong as −1 … 1 is far from 0, none near it."""
    step = round(min(1.0, abs(strength)) * STEPS)
    return f"{'plus' if strength > 0 else 'minus'}{step}" if step else ""


def cut(text: str, width: int) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def cut_inside(text: str, width: int) -> str:
    """A pool's name, or its beginning, an ellipsis and its last word, which says which part of a statistic it is."""
    last = text.rpartition(" ")[2]
    if len(text) <= width or len(last) + 6 > width:
        return cut(text, width)
    return f"{text[: width - len(last) - 2]}… {last}"


def sparkline(values: Sequence[float], width: int = 16) -> str:
    """The course of values, the latest at the right."""
    if not values:
        return ""
    shown = list(values)[-width:]
    low, high = min(shown), max(shown)
    span = high - low or 1.0
    return "".join(BLOCKS[min(7, int((v - low) / span * 8))] for v in shown)


def half_blocks(pixels: Sequence[Sequence[Sequence[int]]]) -> Text:
    """A picture, two rows of pixels a line: the upper as the colour of ▀, the lower as its ground. pixels: RGB rows."""
    text = Text(no_wrap=True)
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=False):
        for a, b in zip(upper, lower, strict=True):
            text.append("▀", Style(color=Color.from_rgb(*a), bgcolor=Color.from_rgb(*b)))
        text.append("\n")
    return text


def meter(share: float, width: int = 20) -> str:
    """`████████░░░░` for a share of 0 … 1."""
    full = round(max(0.0, min(1.0, share)) * width)
    return "█" * full + "░" * (width - full)

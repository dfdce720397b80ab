"""Numbers as people read them: percentages, changes with their intervals, marks of verdicts."""

from __future__ import annotations

VERDICTS = {"helps": "▲", "hurts": "▼", "unclear": "·", "degenerate": "×"}


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}"

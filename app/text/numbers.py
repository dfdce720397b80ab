"""Numbers as people read them: percentages, chances, values as measured, marks of verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.base.amounts import format_bytes
from engine.journal.store import Row

VERDICTS = {"helps": "▲", "hurts": "▼", "unclear": "·", "degenerate": "×"}


def percent(value: float | None) -> str:
    """`+12.3`, or a dash."""
    return "–" if value is None else f"{value:+.1f}"


def chance(value: float | None) -> str:
    """`0.034`, `<0.001`, or a dash."""
    return "–" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def values_text(values: Mapping[str, Sequence[float]]) -> str:
    """`accuracy 0.412 / 0.305, …`: means of the pool and of the control, as measured."""
    return ", ".join(f"{name} {pool:.3g} / {control:.3g}" for name, (pool, control) in values.items()) or "–"


def common_notes(rows: Sequence[Row]) -> list[str]:
    """Notes of all pools of a table alike, to be said once."""
    return [line for line in rows[0]["skipped"] if len(rows) > 1 and all(line in r["skipped"] for r in rows)]


def folded(r: Row) -> bool:
    """What tables fold away: left out, or dropped before anything could be said of it."""
    return r["verdict"] == "degenerate" or (bool(r.get("dropped")) and r["verdict"] not in ("helps", "hurts"))


def measured(measure: str, value: Any, kept: bool) -> str:
    """`812 MB`, or `900 MB / 812 MB` of the highest and the mean; what is written is a sum."""
    if isinstance(value, Mapping):
        if kept and measure != "written":
            return f"{_number(measure, value['peak'])} / {_number(measure, value['mean'])}"
        value = value["peak" if kept else "latest"]
    return "–" if value is None else _number(measure, value)


def _number(measure: str, value: float) -> str:
    if measure in ("memory", "written", "gpu_memory"):
        return format_bytes(value)
    return f"{value:.0f} W" if measure == "gpu_power" else f"{value:.0f}"

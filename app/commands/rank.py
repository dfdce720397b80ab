"""What the looking commands print: each question is answered once, as JSON, and shown as text from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from app.text.numbers import VERDICTS, percent
from app.text.printable import say_table
from engine.base.errors import StudyError
from engine.journal.store import Row


def rank(folder: Path, cycle: int | None, tell: Callable[[str], None]) -> list[Row]:
    """The leaderboard of a cycle; None: of the one that the engine was in last. tell: of the metrics' directions."""
    from engine.evidence.ranking import leaderboard
    from engine.study.view import view_study

    opened = view_study(folder, cycle)
    found = [e.to_json() for e in leaderboard(opened)]
    if not found:
        raise StudyError(f"no pool was cut yet in {folder}; start with: djsb auto {folder}")
    tell(f"metrics: {', '.join(m.direction for m in opened.main_metrics)}")
    return found


def show_rank(found: list[Row]) -> None:
    """As people read it."""
    rows = [
        [
            str(i) if r["change"] is not None else "–", VERDICTS[r["verdict"]] + " " + r["verdict"],
            r.get("label", r["pool"]), str(r.get("size", "–")), f"{100 * r.get('share', 1):.0f}", percent(r["change"]),
            "–" if r["std"] is None else f"{r['std']:.1f}",
            "–" if r["ci_low"] is None else f"[{r['ci_low']:+.1f}, {r['ci_high']:+.1f}]",
            "–" if r["p_best"] is None else f"{r['p_best']:.2f}", str(r["seeds"]), r["pool"],
            "; ".join([*r["skipped"], *([f"dropped: {r['dropped']}"] if r.get("dropped") else [])]),
        ]
        for i, r in enumerate(found, 1)
    ]  # fmt: skip
    say_table(
        rows,
        ["rank", "verdict", "pool", "rows", "steps %", "change %", "std", "interval", "P(best)", "seeds", "id", "note"],
    )

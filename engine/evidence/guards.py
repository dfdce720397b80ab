"""Guards: metrics that a recipe must not buy its mean with, judged on the fresh seeds.

A guard vetoes where the metric's change lies below its bound, by the point estimate: to let a collapse pass because few
seeds leave its interval wide would make the guard weaker the less is known. Where the change lies above and the
interval reaches below, the guard does not veto, and says that it is unsure. What was not measured is vetoed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from engine.evidence.ranking import RECIPES, Ranked, rank
from engine.records.leaderboard import Change, Guarded, in_percent
from engine.study.view import StudyView


def judged(view: StudyView) -> dict[str, tuple[Guarded, ...]]:
    """Pool → what each guard of the study says of it, on the fresh seeds against the control."""
    found: dict[str, tuple[Guarded, ...]] = {}
    for metric, worst in view.guards:
        for r in rank(view, (*RECIPES, "mapper"), fresh=True, against_control=True, counted=[metric]):
            e = r.effect
            change = Change(e.change, e.ci_low, e.ci_high, e.seeds, e.verdict)
            found[r.pool.id] = (*found.get(r.pool.id, ()), guarded(metric.name, worst, change))
    return found


def guarded(metric: str, worst: float, change: Change) -> Guarded:
    """What a guard says of a change."""
    says: Literal["vetoes", "holds", "unsure", "unknown"] = "unknown"
    if change.change is not None:
        clear = change.ci_low is not None and change.ci_low >= worst
        says = "vetoes" if change.change < worst else "holds" if clear else "unsure"
    return Guarded(metric, worst, says, change.change, change.ci_low, change.ci_high)


def told(guard: Guarded) -> str:
    """`accuracy -12.0 % [-15.1, -8.9], below its bound of -5 %`."""
    seen = in_percent(guard.change, guard.ci_low, guard.ci_high)
    how = {
        "vetoes": "below its bound of",
        "holds": "not below its bound of",
        "unsure": "not below its bound by the estimate, but its interval does not exclude that:",
        "unknown": "so that it cannot be held against its bound of",
    }[guard.says]
    return f"{guard.metric} {seen}, {how} {guard.worst:g} %"


def vetoed(entries: Sequence[Ranked], by_pool: dict[str, tuple[Guarded, ...]]) -> list[tuple[Ranked, Guarded]]:
    """Candidates that would be recipes, each with the guard that vetoes it."""
    return [
        (r, veto)
        for r in entries
        if r.effect.verdict == "helps"
        if (veto := next((g for g in by_pool.get(r.pool.id, ()) if g.vetoes), None))
    ]

"""Which recipe is best: confirmed pools, and repetition against lower layers."""

from __future__ import annotations

from typing import Any

from engine.evidence.ranking import Ranked, rank
from engine.records.pool import Slice
from engine.study.opened import OpenStudy


def scaling(opened: OpenStudy) -> list[dict[str, Any]]:
    """Repetition against lower layers: (kind, label, samples, change against the control of equal samples)."""
    return [
        {**r.to_json(), "samples": r.samples, "repetition": r.pool.repetition}
        for r in sorted(rank(opened, ("repetition", "layers"), ("scale",)), key=lambda r: (r.samples, r.kind))
    ]


def _repetition(opened: OpenStudy, slices: tuple[Slice, ...]) -> int:
    """The highest rate at which repeating the recipe did, on average, as well as adding lower layers; 1 if none."""
    best = 1
    arms = rank(opened, ("repetition", "layers"), ("scale",))
    for arm in arms:
        if arm.kind != "repetition" or arm.pool.slices != slices:
            continue
        rival = next((r for r in arms if r.kind == "layers" and r.samples == arm.samples), None)
        own = arm.effect.change
        if own is not None and own > 0 and (rival is None or rival.effect.change is None or own >= rival.effect.change):
            best = max(best, arm.pool.repetition)
    return best


def confirmed(opened: OpenStudy) -> list[Ranked]:
    """The candidates on fresh seeds against the control, best first."""
    return rank(opened, ("single", "combination", "mapper"), fresh=True, against_control=True)


def best_recipe(opened: OpenStudy) -> dict[str, Any] | None:
    """The best candidate whose interval on fresh seeds lies above zero, as a stored result; None if none does.

    One with mappers must also beat the same rows as they are, or its slices alone are the recipe.
    """
    rewritten = {r.pool.id for r in rank(opened, ("mapper",), fresh=True) if r.effect.verdict == "helps"}
    winners = [
        r for r in confirmed(opened)
        if r.effect.verdict == "helps" and (not r.pool.mappers or r.pool.id in rewritten)
    ]  # fmt: skip
    if not winners:
        return None
    best = winners[0]
    return {**best.to_json(), "samples": best.samples, "repetition": _repetition(opened, best.pool.slices),
            "kept": opened.kept(best.pool), "rows": len(opened.data)}  # fmt: skip

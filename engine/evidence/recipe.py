"""Which recipe is best: confirmed pools, and repetition against lower layers."""

from __future__ import annotations

from dataclasses import asdict

from engine.evidence.guards import judged
from engine.evidence.ranking import RECIPES, Ranked, rank
from engine.journal import cycles, results
from engine.records.leaderboard import CycleRecipe, Recipe, ScaleArm
from engine.records.pool import Slice
from engine.study.opened import OpenStudy
from engine.study.view import StudyView


def standing_recipe(view: StudyView) -> CycleRecipe | None:
    """The confirmed recipe of this cycle or, where it has none, of the latest before it."""
    recipes = (
        CycleRecipe(**{**asdict(recipe), "guards": recipe.guards}, cycle=cycle.cycle)
        for cycle in reversed(cycles.chain(view.store, view.setup))
        if (recipe := results.RECIPE.get(view.store, cycle.setup))
    )
    return next(recipes, None)


def _arms(view: StudyView) -> list[Ranked]:
    return rank(view, ("repetition", "layers"), ("scale",))


def repetitions(view: StudyView) -> list[ScaleArm]:
    """Repetition against lower layers, each against the control of equal samples."""
    return [
        ScaleArm(**asdict(r.entry()), samples=r.samples, repetition=r.pool.repetition)
        for r in sorted(_arms(view), key=lambda r: (r.samples, r.kind))
    ]


def _repetition(view: StudyView, slices: tuple[Slice, ...]) -> int:
    """The highest rate at which repeating the recipe did, on average, as well as adding lower layers; 1 if none."""
    best, arms = 1, _arms(view)
    for arm in arms:
        if arm.kind != "repetition" or arm.pool.slices != slices:
            continue
        rival = next((r for r in arms if r.kind == "layers" and r.samples == arm.samples), None)
        own = arm.effect.change
        if own is not None and own > 0 and (rival is None or rival.effect.change is None or own >= rival.effect.change):
            best = max(best, arm.pool.repetition)
    return best


def confirmed(view: StudyView) -> list[Ranked]:
    """The candidates on fresh seeds against the control, best first."""
    return rank(view, (*RECIPES, "mapper"), fresh=True, against_control=True)


def best_recipe(opened: OpenStudy) -> Recipe | None:
    """The best candidate whose interval on fresh seeds lies above zero and that no guard vetoes; None if none does.

    One with mappers must also beat the same rows as they are, or its slices alone are the recipe.
    """
    mapped = {r.pool.id for r in rank(opened, ("mapper",), fresh=True) if r.effect.verdict == "helps"}
    guards = judged(opened)
    winners = [
        r for r in confirmed(opened) if r.effect.verdict == "helps" and (not r.pool.mappers or r.pool.id in mapped)
        and not any(guard.vetoes for guard in guards.get(r.pool.id, ()))
    ]  # fmt: skip
    if not winners:
        return None
    best = winners[0]
    return Recipe(
        **asdict(best.entry()), samples=best.samples, repetition=_repetition(opened, best.pool.slices),
        kept=opened.kept(best.pool), rows=len(opened.data), guards=guards.get(best.pool.id, ()),
    )  # fmt: skip

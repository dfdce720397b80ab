"""Cycles compared: where each started, what it confirmed, how the ranking moved (Table 14)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from engine.evidence.comparison import Aggregate, Runs, paired_changes
from engine.evidence.effects import effects
from engine.evidence.ranking import rank
from engine.journal import checkpoints, costs, cycles, metrics, results, trials
from engine.records.cycle import CycleEnd, CycleStart, Moves, Place
from engine.records.leaderboard import Change, Recipe
from engine.records.metric import Metric
from engine.study.view import StudyView

TOP = 10  # places that Table 14 compares


def best_checkpoint(view: StudyView) -> str | None:
    """The trial of the confirmed recipe that scored best in the main metrics; None while no recipe is confirmed."""
    recipe = results.RECIPE.get(view.store, view.setup)
    if recipe is None:
        return None
    seed = best_seed(_confirming(view, view.setup, recipe), view.main_metrics, view.study.evaluation.aggregate)
    return trials.whole(view.store, view.setup, recipe.pool, recipe.samples, seed)


def best_seed(runs: Runs, metrics: Sequence[Metric], aggregate: Aggregate) -> int:
    """The seed whose run is best by its relative change against the mean of all."""
    scores = {m.name: [v for r in runs.values() if (v := r.get(m.name)) is not None] for m in metrics}
    mean = {n: float(np.mean(v)) if v else None for n, v in scores.items()}
    changes, _, _ = paired_changes(runs, dict.fromkeys(runs, mean), metrics, aggregate)
    return max(sorted(runs), key=lambda s: changes.get(s, -np.inf))


def moves(first: Sequence[str], second: Sequence[str], top: int = TOP) -> Moves:
    """Compare two rankings, best first, by their `top` first places."""
    place = {name: i for i, name in enumerate(first)}
    early, late = first[:top], second[:top]
    shifts = [(name, place[name] - i) for i, name in enumerate(late) if name in place]
    return Moves(
        top,
        both=tuple(n for n in late if n in early),
        new=tuple(n for n in late if n not in early),
        gone=tuple(n for n in early if n not in late),
        up=tuple((n, k) for n, k in shifts if k > 0),
        down=tuple((n, -k) for n, k in shifts if k < 0),
    )


def standing(view: StudyView) -> tuple[Place, ...]:
    """Statistics in the order of their best bucket in the probe, each with it and its change."""
    best: dict[str, Place] = {}
    for r in rank(view, ("single",), ("probe",)):
        if r.statistic is not None and r.effect.change is not None:
            best.setdefault(r.statistic, Place(r.statistic, r.label, r.effect.change))
    return tuple(best.values())


def _confirming(view: StudyView, setup: str, recipe: Recipe) -> Runs:
    """Seed → metric → value of a recipe on its fresh seeds."""
    table = metrics.by_pool(view.store, setup, True, ("confirm",))
    return table.get((recipe.pool, recipe.samples, recipe.samples), {})


def mean_scores(view: StudyView, recipe: Recipe | None) -> dict[str, float]:
    """Metric → mean of the recipe's checkpoints over its fresh seeds."""
    runs = _confirming(view, view.setup, recipe) if recipe else {}
    names = dict.fromkeys(n for r in runs.values() for n in r)
    values = {n: [v for r in runs.values() if (v := r.get(n)) is not None] for n in names}
    return {n: float(np.mean(v)) for n, v in values.items() if v}


def against_first(view: StudyView, chain: Sequence[str], recipe: Recipe | None) -> Change | None:
    """The recipe's checkpoints against those of the first cycle's recipe, at the same fresh seeds; None in the first.

    The interval is corrected for the cycles that are compared so far, and holds for the checkpoints that the cycles
    started from. It includes what the longer training does by itself: what the recipe does is its change against the
    control of its own cycle, which trained as long.
    """
    first = results.RECIPE.get(view.store, chain[0])
    if first is None or recipe is None or len(chain) < 2:
        return None
    table = {"this": _confirming(view, view.setup, recipe), "first": _confirming(view, chain[0], first)}
    (effect,) = effects(
        table, {"this": "first"}, view.main_metrics, aggregate=view.study.evaluation.aggregate,
        confidence=view.study.search.confidence, arms=len(chain) - 1,
    )  # fmt: skip
    return Change(effect.change, effect.ci_low, effect.ci_high, effect.seeds, effect.verdict, effect.bound)


def conclusion(view: StudyView, pinned: bool) -> CycleEnd:
    """The result of a cycle. pinned: a further cycle may start from its checkpoint."""
    store, chain = view.store, [c.setup for c in cycles.chain(view.store, view.setup)]
    order, best = standing(view), best_checkpoint(view)
    before = results.CYCLE.get(store, chain[-2]) if len(chain) > 1 else None
    recipe = results.RECIPE.get(store, view.setup)
    return CycleEnd(
        checkpoint=best,
        pinned=best if pinned else None,
        standing=order,
        moves=moves([p.statistic for p in before.standing or ()], [p.statistic for p in order]) if before else None,
        scores=mean_scores(view, recipe),
        against_first=against_first(view, chain, recipe),
    )


@dataclass(frozen=True)
class CycleSummary:
    """A cycle from start to result; fields that only its end shows are None before.

    path: of its checkpoint, where that is kept. trials: that were charged. seconds: device-seconds of those.
    """

    cycle: int
    setup: str
    init: str | None
    proposal: str | None
    recipe: Recipe | None
    unconfirmed: str | None
    checkpoint: str | None
    standing: tuple[Place, ...] | None
    moves: Moves | None
    scores: dict[str, float] | None
    against_first: Change | None
    path: str | None
    trials: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As `djsb show lineage --json` prints it."""
        return {**asdict(self), "moves": self.moves and self.moves.to_json()}


def lineage(view: StudyView) -> list[CycleSummary]:
    """Every cycle from the first to this one."""
    return [_summary(view, start) for start in cycles.chain(view.store, view.setup)]


def _summary(view: StudyView, start: CycleStart) -> CycleSummary:
    store, setup = view.store, start.setup
    end = results.CYCLE.get(store, setup) or CycleEnd(None, None, None, None, None, None)
    kept = checkpoints.kept(store, end.checkpoint) if end.checkpoint else None
    charged = costs.of_cycle(store, setup)
    return CycleSummary(
        start.cycle, setup, start.init, start.proposal,
        results.RECIPE.get(store, setup), results.UNCONFIRMED.get(store, setup),
        end.checkpoint, end.standing, end.moves, end.scores, end.against_first,
        kept.path if kept else None, charged.trials, charged.seconds,
    )  # fmt: skip

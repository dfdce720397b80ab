"""Weights of sources: mixtures at random first, then those that a regression on what ran likes best.

A round decides on the rounds before it only, so that a resumed run asks the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.base.errors import StudyError
from engine.evidence.effects import effects
from engine.evidence.mixtures import Floats, best_mixtures, caps_of, metric_changes, random_mixtures, regress
from engine.journal import metrics
from engine.proposals.arms import control, has_run, request
from engine.proposals.kinds.mixture import mixed, parts
from engine.records.proposal import Arm, Origin, Proposal
from engine.search.control import with_control
from engine.search.race import CONTROL_SEEDS
from engine.study.opened import OpenStudy

BATCH = 4  # mixtures of a round


def first(parts: int) -> int:
    """Mixtures at random before the regression has a say."""
    return 2 * parts + 2


@dataclass(frozen=True)
class Mixtures:
    """Asks for mixtures in the probe; there is nothing to combine or to scale."""

    stage: str
    origin: Origin = "mixtures"

    def propose(self, study: OpenStudy, n: int | None = None) -> Sequence[Proposal]:
        """The next round's mixtures, and the control at some more seeds in the first; none when it is over."""
        return _next_round(study)[:n] if self.stage == "probe" else []


def _next_round(opened: OpenStudy) -> list[Proposal]:
    """Go through the rounds as far as results are there; what the first unfinished one asks for."""
    names, base, caps = _space(opened)
    section, done = opened.study.mixtures, 0
    tried = _start(opened, base, caps)
    reference = request(opened, control(opened, opened.pool_size), "control", "control")
    why = f"{len(tried)} mixtures at random around the proportional one"
    while True:
        arms = [_arm(opened, names, weights) for weights in tried]
        asked = _proposals(opened, reference, arms[done:], why, first=done == 0)
        if not all(has_run(opened, p) for p in asked):
            return asked
        known, changes = _results(opened, reference, arms)
        most = min(BATCH, section.max - len(tried))
        if most <= 0 or not len(known):
            return []
        rng = np.random.default_rng([opened.study.seed, len(tried)])
        fit = regress(base, tried[known], changes, not section.over)
        new = best_mixtures(fit, caps, tried, most, rng) if fit else random_mixtures(base, caps, most, rng)
        if not len(new):
            return []
        rank = None if fit is None else fit.rank
        told = "" if rank is None else f", whose rank correlation out of fold is {rank:.2f}"
        why = f"what the regression on {len(known)} mixtures likes best{told}"
        done, tried = len(tried), np.vstack([tried, new])


def _space(opened: OpenStudy) -> tuple[list[str], Floats, Floats]:
    """(names of what is weighted, proportional weights, largest weights that the cap on repeats allows)."""
    rows = parts(opened)
    if empty := [name for name, n in rows.items() if not n]:
        raise StudyError(f"mixtures: {', '.join(empty)} has no good rows; take it out, or mend its rows")
    counts = np.array(list(rows.values()), np.float64)
    repeats = opened.study.mixtures.max_repeats
    caps = caps_of(counts, opened.pool_size, repeats)
    if caps.sum() < 1:
        raise StudyError(
            f"mixtures: {', '.join(rows)} have {int(counts.sum())} good rows, too few for a pool of {opened.pool_size} "
            f"at {repeats} repeats; lower pools.size, or raise mixtures.max_repeats"
        )
    return list(rows), counts / counts.sum(), caps


def _start(opened: OpenStudy, base: Floats, caps: Floats) -> Floats:
    """(mixtures, parts) the first round, at random; with the proportional mixture where the control is another."""
    rng = np.random.default_rng([opened.study.seed, 0])
    found = random_mixtures(base, caps, 10 * first(len(base)), rng)
    if opened.study.mixtures.over:
        found = np.vstack([np.minimum(base, caps), found])
    _, where = np.unique(found, axis=0, return_index=True)
    return np.asarray(found[np.sort(where)][: min(first(len(base)), opened.study.mixtures.max)])


def _arm(opened: OpenStudy, names: Sequence[str], weights: Floats) -> Arm:
    pool, label = mixed(opened, {name: w for name, w in zip(names, weights.tolist(), strict=True) if w > 0})
    return request(opened, pool, label, "mixture")


def _proposals(opened: OpenStudy, reference: Arm, arms: Sequence[Arm], why: str, first: bool) -> list[Proposal]:
    """A round: its mixtures at one seed; in the first also the control, at that seed and at some more."""
    asked = Proposal(
        origin="mixtures", kind="probe", stage="probe", pools=(reference, *arms) if first else tuple(arms), seeds=(0,),
        reason=why, fallback="the mixtures that ran are all that is known",
    )  # fmt: skip
    return with_control(opened, [asked], range(1, CONTROL_SEEDS)) if first else [asked]


def _results(opened: OpenStudy, reference: Arm, arms: Sequence[Arm]) -> tuple[list[int], Floats]:
    """(places of the mixtures that have a result, (mixtures, metrics) their changes in percent)."""
    table = metrics.by_pool(opened.store, opened.setup, False, ("probe",))
    runs = {a.key[0]: {s: v for s, v in table.get(a.key, {}).items() if s == 0} for a in arms}
    runs[reference.key[0]] = {s: v for s, v in table.get(reference.key, {}).items() if s < CONTROL_SEEDS}
    names = [a.key[0] for a in arms]
    found = {
        e.pool: e
        for e in effects(
            runs, dict.fromkeys(names, reference.key[0]), opened.main_metrics,
            aggregate=opened.study.evaluation.aggregate, arms=1,
        )
    }  # fmt: skip
    known = [place for place, name in enumerate(names) if found[name].change is not None]
    return known, metric_changes([found[names[i]] for i in known], opened.study.evaluation.aggregate)

"""The race (successive halving): every pool trains a little; only those that may be among the best go on.

An arm starts at a small rung: the first part of one seed's training. Arms that are unlikely to be among the best
are dropped. The others continue to more steps and more seeds. Compared arms ran with the same seeds to the same step.
A drop is recorded with its reason; a person may undo it. Pools, recipes and replays are judged alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import starmap

import numpy as np

from engine.evidence.chances import chances
from engine.evidence.comparison import Aggregate, Runs, Scores, paired_changes
from engine.evidence.effects import Effect, effects
from engine.journal import decisions, drops, metrics
from engine.journal.metrics import Table
from engine.proposals.arms import control, ended, request
from engine.records.metric import Metric
from engine.records.proposal import Arm, Origin, Proposal
from engine.search import combinations, repetitions
from engine.search.control import with_control
from engine.study.opened import OpenStudy
from engine.study.view import StudyView

CONTROL_SEEDS = 4  # at least: all comparisons share the control, and its spread is used for arms with one seed


def control_seeds(seeds: int, arms: int) -> int:
    """Seeds of the control where arms have so many: √arms times theirs once verdicts can be made, at two or more.

    So the error of a comparison is smallest for what all trials cost.
    """
    return max(seeds, CONTROL_SEEDS, round(seeds * math.sqrt(arms)) if seeds > 1 else 0)


@dataclass(frozen=True)
class Rung:
    """share: part of a training's steps. seeds: seeds of every arm, those of lower rungs of the share counted."""

    share: float
    seeds: int


@dataclass(frozen=True)
class Drop:
    """An arm that can no longer be among the best. chance: that it still is, 0 … 1."""

    arm: str
    chance: float | None
    reason: str


def judge(
    table: Scores,
    arms: Sequence[str],
    reference: str,
    metrics: Sequence[Metric],
    *,
    rung: Rung,
    top: int,
    keep: float,
    least: float,
    aggregate: Aggregate = "mean-of-changes",
) -> list[Drop]:
    """Arms that end at a rung: the chance to be among the `top` best is below `least`, or better arms fill `keep`.

    table: scores of the rung, at matched seeds; the reference may have more. keep: share of the arms that may go on.
    At least `top` arms stay. The remaining steps may change an arm: a chance adds 1 / sqrt(share) - 1 times the
    arms' own spread to the variance.
    """
    changes = standing(table, arms, reference, metrics, aggregate)
    if all(e.own_error is None for e in changes):  # one seed each: use the reference's spread
        spread = _spread(table.get(reference, {}), metrics, aggregate)
        changes = [replace(e, own_error=spread) for e in changes]
    chance = chances(changes, top, doubt=rung.share**-0.5 - 1)
    most = max(top, math.ceil(keep * len(arms)))
    out = []
    for place, e in enumerate(changes, 1):
        if place <= top:
            continue
        mine = chance.get(e.pool)
        so_far = "" if e.change is None else f" ({e.change:+.1f} % after {e.seeds} seed{'s' * (e.seeds != 1)})"
        if e.change is None:
            out.append(Drop(e.pool, None, f"no result to compare: {'; '.join(e.skipped) or 'its trials failed'}"))
        elif mine is not None and mine < least:
            out.append(Drop(e.pool, mine, f"chance to be among the best {top}: {100 * mine:.1f} %{so_far}"))
        elif place > most:
            out.append(Drop(e.pool, mine, f"place {place} of {len(arms)}, and {most} go on{so_far}"))
    return out


def standing(
    table: Scores, arms: Sequence[str], reference: str, metrics: Sequence[Metric], aggregate: Aggregate
) -> list[Effect]:
    """Arms against the reference, best first; intervals are those of one look at one arm."""
    return effects(table, dict.fromkeys(arms, reference), metrics, aggregate=aggregate, arms=1)


def _spread(runs: Runs, metrics: Sequence[Metric], aggregate: Aggregate) -> float | None:
    """Standard deviation of the reference's own seeds, percent; None below two."""
    if len(runs) < 2:
        return None
    seeds, shifted = sorted(runs), {}
    for seed, other in zip(seeds, [*seeds[1:], seeds[0]], strict=True):
        shifted[seed] = runs[other]
    changes, _, _ = paired_changes(shifted, runs, metrics, aggregate)
    # each difference of two seeds has twice the variance of one
    return float(np.sqrt(np.mean(np.square(list(changes.values()))) / 2)) if changes else None


@dataclass(frozen=True)
class Race:
    """Asks for the next rung of a stage."""

    stage: str
    origin: Origin = "race"

    def propose(self, study: OpenStudy, n: int | None = None) -> Sequence[Proposal]:
        """The trials that the race needs next, one proposal a seed; none when it is over. At most n."""
        if self.stage == "scale":
            return repetitions.propose(study)[:n]
        size, arms = _arms(study, self.stage)
        return _next_rung(study, self.stage, size, arms)[:n]


def _arms(opened: OpenStudy, stage: str) -> tuple[int, list[Arm]]:
    """(rows of every pool, what runs against each other) in a stage, at full length."""
    if stage == "combine":
        return combinations.arms(opened)
    cuts = [c for c in opened.cuts if c.reason is None]
    return opened.pool_size, [request(opened, c.pool, c.label, "single") for c in cuts]


def _next_rung(opened: OpenStudy, stage: str, size: int, arms: list[Arm]) -> list[Proposal]:
    """Go through the rungs as far as results are there; what the first unfinished one still needs."""
    search = opened.study.search
    top = max(search.top if stage == "probe" else opened.study.confirm.candidates, search.screen.top)
    reference = request(opened, control(opened, size), "control", "control")
    table = metrics.by_pool(opened.store, opened.setup, False, ("probe", stage))
    alive = {a.to_pool().id: a for a in arms}
    rungs, keeps = opened.course
    for number, (rung, keep) in enumerate(zip(starmap(Rung, rungs), keeps, strict=True)):
        if not alive:
            break
        runners = [a.part(rung.share) for a in [reference, *alive.values()]]
        seeds = range(control_seeds(rung.seeds, len(alive)))
        missing = [
            (seed, r)
            for seed in seeds
            for r in runners
            if (seed < rung.seeds or r.kind == "control") and not ended(opened, [r], [seed])
        ]
        if missing:
            return _proposals(opened, stage, number, rung, missing, len(alive), top)
        results = {r.to_pool().id: _matched(table, r, rung, seeds) for r in runners}
        if len([s for s in results[reference.to_pool().id] if s < rung.seeds]) < rung.seeds:
            break  # a trial of the control has failed: nothing can be judged until it is run again
        out = judge(
            results, list(alive), reference.to_pool().id,
            opened.main_metrics, rung=rung, top=top, keep=keep, least=search.drop,
            aggregate=opened.study.evaluation.aggregate,
        )  # fmt: skip
        if number + 1 < len(rungs):
            dropped = _record(opened, stage, rung, out)
            alive = {k: a for k, a in alive.items() if k not in dropped}
    return []


def bound(rungs: Sequence[tuple[float, int]], keeps: Sequence[float], arms: int, top: int) -> tuple[int, float]:
    """(trials, their length in whole trials) that a race takes at most, when nothing but `keeps` ends arms."""
    trials, length, alive = 0, 0.0, arms
    before, led = (0.0, 0), 0
    for (share, seeds), keep in zip(rungs, keeps, strict=True):
        lead = control_seeds(seeds, alive)
        for count, had, want in ((alive, before[1], seeds), (1, led, lead)):
            new, longer = want - min(had, want), had if share > before[0] else 0
            trials += count * (new + longer)
            length += count * (new * share + longer * (share - before[0]))
        before, led, alive = (share, seeds), max(led, lead), min(alive, max(top, math.ceil(keep * alive)))
    return trials, length


def _matched(table: Table, runner: Arm, rung: Rung, seeds: range) -> Runs:
    """A runner's scores at the rung's seeds; of the control also at those of its head start."""
    runs = table.get(runner.key, {})
    return {s: v for s, v in runs.items() if s < rung.seeds or (runner.kind == "control" and s in seeds)}


def _proposals(
    opened: OpenStudy, stage: str, number: int, rung: Rung, missing: list[tuple[int, Arm]], arms: int, top: int
) -> list[Proposal]:
    """One proposal a seed, so that a budget that ends leaves whole rounds."""
    ahead = f"rung {number + 1} of {len(opened.rungs)}, {100 * rung.share:g} % of the steps: "
    proposals = []
    compared = list(dict.fromkeys(s for s, r in missing if r.kind != "control"))
    rest = [s for s, _ in missing if s not in compared]  # of the control
    for seed in compared or rest:
        pools = tuple(r for s, r in missing if s == seed)
        what = f"{arms} pools may be among the best {top}; seed {seed + 1} of {rung.seeds}"
        if not compared:
            what = f"the control once more at seed {seed + 1}, since all comparisons rest on it"
        proposals.append(
            Proposal(
                origin="race", kind="probe" if stage == "probe" else "combine", stage=stage, pools=pools, seeds=(seed,),
                reason=ahead + what, fallback="the race ends at this rung",
            )
        )  # fmt: skip
    return with_control(opened, proposals, rest) if compared else proposals


def _record(opened: OpenStudy, stage: str, rung: Rung, new: list[Drop]) -> set[str]:
    """Write new drops; all pools of the stage that are dropped and whose drop no person has undone.

    A pool without a result leaves the race for this run only: its failed trials are tried again by the next.
    """
    store, setup = opened.store, opened.setup
    with store.transaction():
        for drop in new:
            record = drops.Drop(stage, drop.arm, rung.share, rung.seeds, drop.chance, drop.reason)
            if drop.chance is not None and drops.add(store, setup, record):
                store.event("dropped", drop.reason, drop.arm)
    failed = {drop.arm for drop in new if drop.chance is None}
    at = (rung.share, rung.seeds)
    return failed | {d.pool for d in drops.standing(store, setup, (stage,)) if (d.share, d.seeds) <= at}


def readmit(opened: StudyView, pool: str, who: str, why: str) -> None:
    """Undo a pool's drop: it stays in the race to the end."""
    with opened.store.transaction():
        drops.undo(opened.store, opened.setup, pool)
        decisions.put(opened.store, pool, "readmit", who, why)
        opened.store.event("decision", f"readmit by {who}: {why}", pool)

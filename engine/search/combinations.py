"""Recipes by search: first the paper's lattice, then combinations that Optuna samples (Section 3.2.2)."""

from __future__ import annotations

from collections.abc import Sequence

from engine.evidence.effects import effects
from engine.evidence.ranking import Ranked
from engine.journal import metrics
from engine.proposals.arms import combined, compatible, control, ended, fewest_rows, label, request
from engine.proposals.best import chosen_slices, lattice
from engine.records.proposal import Arm
from engine.search.sampler import Choice, ask
from engine.study.opened import OpenStudy

BATCH = 4  # combinations that are asked for at once


def arms(opened: OpenStudy) -> tuple[int, list[Arm]]:
    """(rows of every pool, combinations so far). The next batch is added once all earlier ones have results."""
    top, diverse = chosen_slices(opened)
    slices = [*top, *(d for d in diverse if d not in top)]
    rows: dict[str, int] = {}

    def possible(chosen: Sequence[Ranked]) -> bool:
        if not chosen or not compatible(chosen):
            return False
        name = label(chosen)
        if name not in rows:
            rows[name] = opened.kept(combined(opened, chosen, opened.pool_size).to_pool())
        return rows[name] >= fewest_rows(opened)

    start = [c for c in lattice(top, diverse) if possible(c)]
    singles, several = [c for c in start if len(c) == 1], [c for c in start if len(c) > 1][: opened.study.combine.max]
    if not several:
        return opened.pool_size, []
    # the size must fit every combination that may follow
    size = opened.pool_size  # with a target each has its own, at equal samples
    if not opened.probe.matched:
        size = min(size, max(fewest_rows(opened), min(rows[label(c)] for c in start)))
    tried = [*singles, *several[: max(BATCH, opened.study.combine.max // 2)]]
    least = fewest_rows(opened) if opened.probe.matched else size
    space = {s.label: (False, True) for s in slices}
    while len(tried) - len(singles) < opened.study.combine.max:
        requests = [combined(opened, c, size) for c in tried]
        share, seeds = opened.rungs[0]
        if not ended(opened, [r.part(share) for r in requests], range(seeds)):
            break
        values = _values(opened, size, requests)
        values_of: list[tuple[Choice, float | None]] = [
            ({s.label: s in c for s in slices}, v) for c, v in zip(tried, values, strict=True)
        ]
        new = []
        for _ in range(min(BATCH, opened.study.combine.max - len(tried) + len(singles))):
            choice = ask(
                space, values_of, lambda c: possible(subset := _subset(slices, c)) and rows[label(subset)] >= least,
                opened.study.seed,
            )  # fmt: skip
            if choice is None:
                break
            values_of.append((choice, None))
            new.append(_subset(slices, choice))
        if not new:
            break
        tried += new
    return size, [combined(opened, c, size) for c in tried]


def _subset(slices: Sequence[Ranked], choice: Choice) -> tuple[Ranked, ...]:
    return tuple(s for s in slices if choice[s.label])


def _values(opened: OpenStudy, size: int, requests: Sequence[Arm]) -> list[float | None]:
    """Each pool's change on the first rung; None while there is none."""
    share, seeds = opened.rungs[0]
    table = metrics.by_pool(opened.store, opened.setup, False, ("probe", "combine"))
    runners = [r.part(share) for r in [request(opened, control(opened, size), "control", "control"), *requests]]
    runs = {r.key[0]: {s: v for s, v in table.get(r.key, {}).items() if s < seeds} for r in runners}
    names = [r.key[0] for r in runners]
    changes = effects(
        runs, dict.fromkeys(names[1:], names[0]), opened.main_metrics, aggregate=opened.study.evaluation.aggregate
    )
    by_pool = {e.pool: e.change for e in changes}
    return [by_pool[n] for n in names[1:]]

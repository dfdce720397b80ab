"""How many seeds the control gets: all comparisons rest on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.evidence.measured import control_noise
from engine.journal import metrics, pools
from engine.proposals.arms import has_run
from engine.records.proposal import Proposal
from engine.study.opened import OpenStudy

FEWEST = 3  # seeds of a pool from which on the control gets more
NOISIEST = 3.0  # times as noisy as the pools, at most


def control_seeds(seeds: int, arms: int, noise: float = 1.0) -> int:
    """√arms times the arms' seeds, and more where the control is noisier; the error is smallest so for what all cost.

    noise: the control's standard deviation over the arms'.
    """
    if seeds < FEWEST:
        return seeds
    return max(seeds, int(seeds * math.sqrt(max(1, arms)) * min(max(noise, 1.0), NOISIEST)))


def measured_noise(opened: OpenStudy) -> float:
    """The control's standard deviation over the pools', from the search, where most is known; 1 where too little is."""
    table = metrics.by_pool(opened.store, opened.setup, False, ("probe", "combine", "screen"))
    kinds = {p.key: p.kind for p in pools.trained(opened.store, opened.setup)}
    lengths = {key[1:]: key for key, kind in kinds.items() if kind == "control" and key in table}
    found = [
        control_noise(runs, table[reference], opened.main_metrics, opened.study.evaluation.aggregate)
        for length, reference in sorted(lengths.items())
        if (runs := {":".join(map(str, k)): r for k, r in table.items() if k[1:] == length and k != reference})
    ]
    return max(found, key=lambda pair: pair[1], default=(1.0, 0.0))[0]


def with_control(opened: OpenStudy, rounds: Sequence[Proposal], seeds: Sequence[int]) -> list[Proposal]:
    """The rounds with the control's further seeds, so that they are decided on together: a part for each yet to run."""
    ahead = [place for place, asked in enumerate(rounds) if not has_run(opened, asked)] or [len(rounds) - 1]
    parts = {place: tuple(seeds[turn :: len(ahead)]) for turn, place in enumerate(ahead)}
    return [
        asked.model_copy(update={
            "control_seeds": more, "reason": f"{asked.reason}; the control at {len(more)} more, as all rest on it",
        }) if (more := parts.get(place)) else asked
        for place, asked in enumerate(rounds)
    ]  # fmt: skip

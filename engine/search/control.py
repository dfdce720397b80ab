"""How many seeds the control gets: all comparisons rest on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.evidence.measured import control_noise
from engine.journal import metrics, pools
from engine.records.proposal import Arm, Proposal
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


def more_of_it(reference: Sequence[Arm], seeds: range, stage: str, kind: str) -> list[Proposal]:
    """The control alone at further seeds, one proposal a seed, after all that is compared with it."""
    return [
        Proposal(
            origin="paper", kind=kind, stage=stage, pools=tuple(reference), seeds=(seed,),
            reason="the control at one more seed, since all comparisons rest on it", fallback="wider intervals",
        )
        for seed in seeds
    ]  # fmt: skip

"""Effects: a pool's change against its control, with interval and verdict.

The control has the pool's size and samples. At equal seeds the change is the paired mean. Further seeds of the
control count by the measured correlation over seeds. All pools share the control, so its noise counts once for each.
Claims and intervals are corrected for the number of pools and for the looks (claims.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

import numpy as np

from engine.evidence.claims import Looks
from engine.evidence.comparison import Aggregate, Comparison, Scores, compare, lost
from engine.evidence.measured import Measured, measure
from engine.evidence.verdicts import Claim, Claims, Verdict
from engine.records.metric import Metric
from engine.records.trial import FRESH


@dataclass(frozen=True)
class Effect:
    """A pool against its control.

    change: mean over seeds, percent. std: of one seed's change, percent; None below two seeds.
    ci_low, ci_high: simultaneous confidence interval, percent. metrics: metric → relative change, percent.
    skipped: what was left out and why. standard_error: of the change, percent; None below two seeds.
    own_error, own_df: the same without the control's noise, percent, None where unknown; its degrees of freedom.
    p: chance of so large a change of any pool where none is, in this direction. q: false discovery rate among
    pools as clear as this one. Both None below two seeds. bound: of a pool that helps or hurts, what its true change is
    at least, or at most, by the test that says so, percent. values: metric → means as measured of
    the pool and of the control.
    """

    pool: str
    change: float | None
    std: float | None
    ci_low: float | None
    ci_high: float | None
    seeds: int
    verdict: Verdict
    metrics: Mapping[str, float] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    standard_error: float | None = None
    own_error: float | None = None
    own_df: float = math.inf
    p: float | None = None
    q: float | None = None
    bound: float | None = None
    values: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def effects(
    scores: Scores,
    controls: Mapping[str, str],
    metrics: Sequence[Metric],
    *,
    aggregate: Aggregate = "mean-of-changes",
    confidence: float = 0.95,
    arms: int | None = None,
    looks: Looks | Literal["once", "any"] = "once",
    settled: Mapping[str, float] = MappingProxyType({}),
    claim: Literal["both", "helps"] = "both",
) -> list[Effect]:
    """Every pool against its control, best first.

    controls: pool → its control's id. arms: pools that are tested together (all of them when None). looks: when claims
    are made; `once`: all results are there; `any`: intervals and claims hold for whoever reads after every result.
    settled: control → seeds from here on wait or run for some of its pools, so claims do not rest on them.
    claim: `helps` gives it the whole error, on one side; `both` halves it between `helps` and `hurts`.
    """
    comparisons = [
        comparison
        for control in sorted(set(controls.values()))
        for comparison in compare(
            {p: scores.get(p, {}) for p, own in controls.items() if own == control},
            scores.get(control, {}),
            metrics,
            aggregate,
        )
    ]
    if not comparisons:
        return []
    measured = measure(comparisons)
    claims = Claims(1 - confidence, arms, looks, claim)
    families = [controls[c.pools[0]] for c in comparisons]
    if isinstance(looks, Looks):
        pairs = [_at_looks(c, looks, settled.get(f, math.inf)) for c, f in zip(comparisons, families, strict=True)]
        seen, reached = [r for r, _ in pairs], [x for _, found in pairs for x in found]
    else:
        seen, reached = comparisons, [None for c in comparisons for _ in c.pools]
    read = measure(seen, careful=claim == "both")
    judged = claims.judge(measured, read, families, reached)
    found, at = list[Effect](), 0
    none = dict[int, dict[str, float | None]]()
    for c, m in zip(comparisons, measured, strict=True):
        for i, pool in enumerate(c.pools):
            skipped = (*c.skipped, *lost(scores.get(pool, none), scores.get(controls[pool], none)))
            found.append(_effect(c, m, i, judged[at], skipped))
            at += 1
    return sorted(found, key=lambda e: (-math.inf if e.change is None else e.change, e.pool), reverse=True)


def _at_looks(c: Comparison, looks: Looks, settled: float) -> tuple[Comparison, list[int | None]]:
    """What may be read of a comparison: the seeds of each pool's last look; and those looks."""
    known, found = c.known.copy(), list[int | None]()
    begins = FRESH if c.seeds and min(c.seeds) >= FRESH else 0
    places = np.array(c.seeds) - begins
    for row in range(len(known) - 1):
        look = looks.last(places[c.known[row]].tolist(), settled - begins)
        known[row] &= places < (look or 0)
        if row < len(c.pools):
            found.append(look)
    return replace(c, known=known), found


def _effect(c: Comparison, m: Measured, i: int, claim: Claim, skipped: tuple[str, ...]) -> Effect:
    n, change = int(m.seeds[i]), float(m.change[i])
    if not n:
        return Effect(c.pools[i], None, None, None, None, 0, "unclear", {}, skipped)
    half = claim.half
    sound = n > 1 and math.isfinite(half)
    bound = claim.bound
    if bound is not None:  # of the last look; seeds beyond it may have drawn the change towards 0
        bound = min(bound, max(change, 0.0)) if claim.verdict == "helps" else max(bound, min(change, 0.0))
    own, own_df = float(m.own[i]), float(m.own_df[i])
    return Effect(
        c.pools[i], change, float(m.std[i]) if n > 1 else None, change - half if sound else None,
        change + half if sound else None, n, claim.verdict,
        dict(zip(c.metrics, m.metrics[i].tolist(), strict=True)), skipped,
        float(m.error[i]) if sound else None, None if math.isnan(own) else own, own_df, claim.p, claim.q, bound,
        {name: (v, w) for name, v, w in zip(c.metrics, m.values[i].tolist(), m.control.tolist(), strict=True)},
    )  # fmt: skip

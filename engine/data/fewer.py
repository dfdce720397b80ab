"""Which pools are probed where not all can be: first the buckets of statistics that say what no other does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine.data.cuts import Cut, RowMask, StatisticColumn

ROWS = 20_000  # that statistics are compared on
EVEN = ("low", "mid-low", "mid", "mid-high", "high")


def first_cuts(cuts: Sequence[Cut], statistics: Sequence[StatisticColumn], good: RowMask, most: int) -> list[Cut]:
    """The cuts, all but `most` sound ones left out with the reason.

    Statistics are taken in an order in which each is as little correlated with those before it as can be; buckets of
    all come before the pools beside them.
    """
    order = {name: place for place, name in enumerate(_order(statistics, good))}
    sound = [c for c in cuts if c.reason is None]
    ranked = sorted(sound, key=lambda c: (c.bucket not in EVEN, order[c.slice.statistic]))
    kept = {id(c) for c in ranked[:most]}
    why = f"the design probes {most} of {len(sound)} pools; more budget, or pools.most, takes more"
    return [c if c.reason is not None or id(c) in kept else replace(c, reason=why) for c in cuts]


def _order(statistics: Sequence[StatisticColumn], good: RowMask) -> list[str]:
    """Names of the statistics, each the least correlated with those before it; the first correlates most of all."""
    rows = np.flatnonzero(good)[:ROWS]
    ranks = np.array([_ranks(np.asarray(s.column.value, np.float64)[rows]) for s in statistics])
    size = np.sqrt((ranks**2).sum(1))
    size[size == 0] = np.inf
    near = np.abs((ranks / size[:, None]) @ (ranks / size[:, None]).T)
    left, chosen = list(range(len(statistics))), list[int]()
    while left:
        score = near[left].sum(1) if not chosen else -near[np.ix_(left, chosen)].max(1)
        chosen.append(left.pop(int(np.argmax(score))))
    return [statistics[i].statistic for i in chosen]


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks around 0; a row without a value has 0."""
    known = ~np.isnan(values)
    found = np.zeros(len(values))
    _, place = np.unique(values[known], return_inverse=True)
    if known.any():
        found[known] = place - place.mean()
    return found

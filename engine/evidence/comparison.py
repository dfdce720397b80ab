"""Comparisons: pools and their control on the same metrics, in percent of the control's mean."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.evidence.variance import Floats
from engine.records.leaderboard import NEAR_ZERO
from engine.records.metric import Metric

Aggregate = Literal["mean-of-changes", "change-of-means"]

# seed → metric → value
Runs = Mapping[int, Mapping[str, float | None]]

# pool → its runs
Scores = Mapping[str, Runs]


@dataclass(frozen=True)
class Comparison:
    """Pools against their control on the same metrics.

    pools: the first rows. The last row is the control; rows between are pools that are judged on more metrics
    and help to measure the noise. seeds: the columns. metrics: their names, the last axis.
    scores: rows × seeds × metrics, percent of the control's mean, higher is better; 0 where not known.
    known: rows × seeds, where all metrics are numbers, for pools only where they are for the control, too.
    weights: of each metric in the aggregate. gains: by what raw values were multiplied. skipped: what was left out and
    why, and what to be careful with.
    """

    pools: list[str]
    seeds: list[int]
    metrics: list[str]
    scores: Floats
    known: NDArray[np.bool_]
    weights: Floats
    gains: Floats
    skipped: tuple[str, ...]


def compare(pools: Scores, control: Runs, metrics: Sequence[Metric], aggregate: Aggregate) -> Iterator[Comparison]:
    """Every pool in one comparison, together with those that are judged on the same metrics.

    mean-of-changes: mean over metrics of their relative changes. change-of-means: Eq. 1 of the
    paper, the relative change of the metrics' mean. A missing or NaN value leaves that metric out
    for all seeds of the pool, so that every seed is judged on the same metrics. A seed without any
    number is as if there were no run.
    """
    names, seeds = list(pools), sorted(control)
    table, ran = _table([*pools.values(), control], seeds, metrics)
    known = ~np.isnan(table)
    usable = ~((ran & ran[-1])[:, :, None] & ~(known & known[-1])).any(1)
    groups: dict[bytes, list[int]] = {}
    for i in range(len(names)):
        groups.setdefault(usable[i].tobytes(), []).append(i)
    for rows in groups.values():
        used = usable[rows[0]]
        counted = known[-1][:, used].all(1)  # seeds of the control
        own = table[-1, counted]
        base = own.sum(0) / max(1, len(own))
        sound = used & (np.abs(base) > 1e-12 * np.abs(own).max(0, initial=0))
        if aggregate == "change-of-means" and abs(base[sound].sum()) <= 1e-12 * np.abs(base[sound]).sum():
            sound = np.zeros_like(sound)
        size = np.abs(base[sound])
        gain = 100 * np.array([1 if m.higher_is_better else -1 for m in metrics])[sound] / size
        weights = np.full(len(size), 1 / max(1, len(size)))
        if aggregate == "change-of-means":
            weights = size / abs(base[sound].sum())
        inside = set(rows)
        others = [i for i in range(len(names)) if i not in inside and usable[i, used].all()]
        picked = [*rows, *others, len(names)]
        at = ran[picked] & counted & sound.any()
        yield Comparison(
            pools=[names[i] for i in rows],
            seeds=seeds,
            metrics=[m.name for m, s in zip(metrics, sound, strict=True) if s],
            scores=np.where(at[:, :, None], table[picked][:, :, sound] * gain, 0),
            known=at,
            weights=weights,
            gains=gain,
            skipped=tuple(
                f"{m.name}: " + ("the control's mean is 0" if u else "a value is missing or not a number")
                for m, u, s in zip(metrics, used, sound, strict=True)
                if not s
            )
            + _near_zero([m.name for m, s in zip(metrics, sound, strict=True) if s], own[:, sound]),
        )


def _near_zero(metrics: Sequence[str], control: Floats) -> tuple[str, ...]:
    """Of which metrics percent mean little, in words. control: seeds × metrics."""
    n = len(control)
    if n < 2:
        return ()
    near = np.abs(control.mean(0)) < 2 * control.std(0, ddof=1) / math.sqrt(n)
    return tuple(
        f"{m}: {NEAR_ZERO}; see the values, not the percent"
        for m, is_near in zip(metrics, near, strict=True)
        if is_near
    )


def _table(runs: Sequence[Runs], seeds: Sequence[int], metrics: Sequence[Metric]) -> tuple[Floats, NDArray[np.bool_]]:
    """(runs × seeds × metrics, NaN where a value is missing or not finite; runs × seeds, where there is a number)."""
    names, none = [m.name for m in metrics], dict[str, float | None]()
    values = [at.get(name) for run in runs for seed in seeds for at in (run.get(seed, none),) for name in names]
    table = np.array(values, np.float64).reshape(len(runs), len(seeds), len(names))  # None becomes NaN
    table[np.isinf(table)] = np.nan
    return table, np.asarray(np.isfinite(table).any(2))


def numberless(runs: Runs) -> list[int]:
    """The seeds at which all metrics lack a number."""
    return [s for s, at in sorted(runs.items()) if not any(v is not None and math.isfinite(v) for v in at.values())]


def lost(pool: Runs, control: Runs) -> tuple[str, ...]:
    """In words, the seeds that are lost because the pool or its control has no number there."""
    return tuple(
        f"{who}no number at seed {', '.join(map(str, seeds))}"
        for who, runs in (("", pool), ("control: ", control))
        if (seeds := numberless(runs))
    )


def paired_changes(
    pool: Runs, control: Runs, metrics: Sequence[Metric], aggregate: Aggregate
) -> tuple[dict[int, float], dict[str, float], tuple[str, ...]]:
    """(change per seed in percent, mean relative change per metric, what was left out), at the seeds of both."""
    (c,) = compare({"pool": pool}, control, metrics, aggregate)
    at = c.known[0]
    if not at.any():
        return {}, {}, c.skipped
    gains = (c.scores[0] - c.scores[-1])[at]
    seeds = [s for s, k in zip(c.seeds, at, strict=True) if k]
    return (
        dict(zip(seeds, (gains @ c.weights).tolist(), strict=True)),
        dict(zip(c.metrics, gains.mean(0).tolist(), strict=True)),
        c.skipped,
    )

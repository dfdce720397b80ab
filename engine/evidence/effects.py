"""Effects: a pool's change against its control, with interval and verdict.

The control has the pool's size and samples. At equal seeds the change is the paired mean. Further seeds of the
control count by the measured correlation over seeds. All pools share the control, so its noise counts once for each.
Intervals are corrected for the number of pools and for repeated looks (anytime-valid).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.evidence.variance import Floats, SeedFit, moderate, seed_residuals
from engine.records.metric import Metric

DRAWN = 500  # Monte Carlo samples at once: memory stays small with many pools
Verdict = Literal["helps", "hurts", "unclear", "degenerate"]
Aggregate = Literal["mean-of-changes", "change-of-means"]

# seed → metric → value
Runs = Mapping[int, Mapping[str, float | None]]

# pool → its runs
Scores = Mapping[str, Runs]


@dataclass(frozen=True)
class Effect:
    """A pool against its control.

    change: mean over seeds, percent. std: of one seed's change, percent; None below two seeds.
    ci_low, ci_high: simultaneous confidence interval, percent. metrics: metric → relative change, percent.
    skipped: what was left out and why. standard_error: of the change, percent; None below two seeds.
    own_error: the same without the control's noise, percent; None where unknown.
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


@dataclass(frozen=True)
class _Comparison:
    """Pools against their control on the same metrics.

    pools: the first rows. The last row is the control; rows between are pools that are judged on more metrics
    and help to measure the noise. seeds: the columns. metrics: their names, the last axis.
    scores: rows × seeds × metrics, percent of the control's mean, higher is better; 0 where not known.
    known: rows × seeds, where all metrics are numbers, for pools only where they are for the control, too.
    weights: of each metric in the aggregate. skipped: what was left out and why.
    """

    pools: list[str]
    seeds: list[int]
    metrics: list[str]
    scores: Floats
    known: NDArray[np.bool_]
    weights: Floats
    skipped: tuple[str, ...]


def _compare(pools: Scores, control: Runs, metrics: Sequence[Metric], aggregate: Aggregate) -> Iterator[_Comparison]:
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
        yield _Comparison(
            pools=[names[i] for i in rows],
            seeds=seeds,
            metrics=[m.name for m, s in zip(metrics, sound, strict=True) if s],
            scores=np.where(at[:, :, None], table[picked][:, :, sound] * gain, 0),
            known=at,
            weights=weights,
            skipped=tuple(
                f"{m.name}: " + ("the control's mean is 0" if u else "a value is missing or not a number")
                for m, u, s in zip(metrics, used, sound, strict=True)
                if not s
            ),
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


def _lost(pool: Runs, control: Runs) -> tuple[str, ...]:
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
    (c,) = _compare({"pool": pool}, control, metrics, aggregate)
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


def _judge(
    c: _Comparison, fit: SeedFit, variances: Floats, dfs: Floats, alpha: float, anytime: bool
) -> Iterator[Effect]:
    """The effects of a comparison's pools.

    variances, dfs: moderated, of the pools and, last, of the control; percent² of one seed. alpha: error of a pool.
    """
    from scipy import special

    scores, control, beta = c.scores[: len(c.pools)], c.scores[-1], fit.correlation
    at = c.known[: len(c.pools)].astype(np.float64)
    seeds, n_c = at.sum(1).astype(int), max(1, int(c.known[-1].sum()))
    n = np.maximum(seeds, 1)
    share = at / n[:, None]
    everywhere = control.sum(0) / n_c
    metrics = (share[:, None] @ scores)[:, 0] - (everywhere + beta * (share @ control - everywhere))
    change = metrics @ c.weights
    paired = (scores - control) @ c.weights
    std = np.sqrt((at * (paired - (share * paired).sum(1, keepdims=True)) ** 2).sum(1) / np.maximum(n - 1, 1))

    more = 1 / n - 1 / n_c
    own = variances[:-1] / n
    # the control's noise counts in the ratio's denominator too
    shared = (1 + change / 100) ** 2 * variances[-1] * (1 / n_c + beta**2 * more)
    unpaired = (1 - beta) ** 2 * fit.common * more
    noise = np.array([own, shared, unpaired])
    error = np.sqrt(noise.sum(0))
    with np.errstate(divide="ignore", invalid="ignore"):
        # Satterthwaite's degrees of freedom; both may share residuals, so at most the larger
        part = (noise / error**2) ** 2
        df = 1 / (part[0] / dfs[:-1] + part[1] / dfs[-1] + part[2] / max(1, fit.common_df))
        df = np.minimum(df, np.maximum(dfs[:-1], dfs[-1]))
        tail = alpha / (n * (n + 1)) if anytime else np.full(len(n), alpha)
        half = np.where(error > 0, -special.stdtrit(df, tail / 2) * error, error)
    for pool, n_p, mean, by_metric, one, err, own_err, width in zip(
        c.pools, seeds.tolist(), change.tolist(), metrics.tolist(), std.tolist(), error.tolist(),
        np.sqrt(own).tolist(), half.tolist(), strict=True,
    ):  # fmt: skip
        if not n_p:
            yield Effect(pool, None, None, None, None, 0, "unclear", {}, c.skipped)
            continue
        low = high = None
        verdict: Verdict = "unclear"
        if n_p > 1 and math.isfinite(width):
            low, high = mean - width, mean + width
            verdict = "helps" if low > 0 else "hurts" if high < 0 else "unclear"
        yield Effect(
            pool, mean, one if n_p > 1 else None, low, high, n_p, verdict,
            dict(zip(c.metrics, by_metric, strict=True)), c.skipped,
            None if low is None else err, None if math.isnan(own_err) else own_err,
        )  # fmt: skip


def effects(
    scores: Scores,
    controls: Mapping[str, str],
    metrics: Sequence[Metric],
    *,
    aggregate: Aggregate = "mean-of-changes",
    confidence: float = 0.95,
    arms: int | None = None,
    anytime: bool = True,
) -> list[Effect]:
    """Every pool against its control, best first.

    controls: pool → its control's id. arms: pools that are tested together (all of them when None); the error
    is split over them (Bonferroni), so that intervals hold for all together. anytime: they hold for whoever looks
    after every result and stops when they like. n = 2, 3, … seeds of a pool spend 1 / (n (n + 1)) of its error, which
    makes half of it; the other half is for looks between, as the noise and the control become better known.
    Without it they hold for one look, when all results are there.
    """
    comparisons = [
        comparison
        for control in sorted(set(controls.values()))
        for comparison in _compare(
            {p: scores.get(p, {}) for p, own in controls.items() if own == control},
            scores.get(control, {}),
            metrics,
            aggregate,
        )
    ]
    if not comparisons:
        return []
    fits = [seed_residuals(c.scores @ c.weights, c.known) for c in comparisons]
    judged = [[*range(len(c.pools)), -1] for c in comparisons]
    variances, dfs = moderate(
        np.concatenate([f.variances[rows] for f, rows in zip(fits, judged, strict=True)]),
        np.concatenate([f.dfs[rows] for f, rows in zip(fits, judged, strict=True)]),
    )
    alpha = (1 - confidence) / max(1, arms if arms is not None else len(controls))
    found: list[Effect] = []
    end = 0
    for c, fit, rows in zip(comparisons, fits, judged, strict=True):
        start, end = end, end + len(rows)
        found += _judge(c, fit, variances[start:end], dfs[start:end], alpha, anytime)
    none = dict[int, dict[str, float | None]]()
    lost = {e.pool: _lost(scores.get(e.pool, none), scores.get(controls[e.pool], none)) for e in found}
    found = [replace(e, skipped=(*e.skipped, *lost[e.pool])) if lost[e.pool] else e for e in found]
    return sorted(found, key=lambda e: (-math.inf if e.change is None else e.change, e.pool), reverse=True)


def chances(effects: Sequence[Effect], k: int = 1, draws: int = 20_000, doubt: float = 0.0) -> dict[str, float]:
    """Pool → probability that its true change is among the k best, 0 … 1; of pools whose own error is known.

    Empirical Bayes: true changes are normal around a common mean, and their variance is that of the measured changes
    less their errors. The control's noise is common to all and cancels.
    draws: Monte Carlo samples, of a fixed seed. doubt: further variance in units of the pools' own spread, since the
    end of a training may differ from its measured beginning.
    """
    known = sorted((e for e in effects if e.change is not None and e.own_error is not None), key=lambda e: e.pool)
    change = np.array([e.change for e in known], np.float64)
    error = np.array([e.own_error for e in known], np.float64) ** 2
    spread = float(change.var(ddof=1) - error.mean()) if len(known) > 1 else 0.0
    if spread <= 0:
        return {e.pool: min(1.0, k / len(known)) for e in known}
    mean = np.average(change, weights=1 / (spread + error))
    trust = spread / (spread + error)
    expected, noise = mean + trust * (change - mean), np.sqrt(trust * error + doubt * spread)
    k, rng, counts = min(k, len(known)), np.random.default_rng(0), np.zeros(len(known))
    for start in range(0, draws, DRAWN):
        drawn = expected + noise * rng.standard_normal((min(DRAWN, draws - start), len(known)))
        best = drawn.argmax(1) if k == 1 else np.argpartition(drawn, -k, axis=1)[:, -k:]
        counts += np.bincount(best.ravel(), minlength=len(known))
    return {e.pool: float(n / draws) for e, n in zip(known, counts, strict=True)}

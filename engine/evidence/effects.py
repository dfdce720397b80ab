"""Effects: a pool's change against its control, with interval and verdict.

The control has the pool's size and samples. At equal seeds the change is the paired mean. Further seeds of the
control count by the measured correlation over seeds. All pools share the control, so its noise counts once for each.
Claims and intervals are corrected for the number of pools and for the looks (claims.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.evidence.claims import Looks, adjusted, any_time, any_time_reach, discoveries, normal_scores, reach
from engine.evidence.variance import Floats, SeedFit, moderate, seed_residuals, with_lone_seeds
from engine.records.metric import Metric
from engine.records.trial import FRESH

LEAST = 1e-9  # p that is told; smaller ones hang on the last digits
SHARPEST = 5  # seeds at which intervals for any time are narrowest
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
    own_error, own_df: the same without the control's noise, percent, None where unknown; its degrees of freedom.
    p: chance of so large a change of any pool where none is, in this direction. q: false discovery rate among
    pools as clear as this one. Both None below two seeds. values: metric → means as measured of
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
    values: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Comparison:
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
        f"{m}: the control's mean is within two standard errors of 0; see the values, not the percent"
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


@dataclass(frozen=True)
class _Measured:
    """A comparison's pools, each with its numbers in percent.

    metrics: pools × metrics. std: of one seed's change. error, df: of the change. own: error without the control's
    noise. load: share of the control's noise in the error, as a correlation's root. values, control: means as measured,
    pools × metrics and metrics.
    """

    seeds: NDArray[np.int64]
    change: Floats
    metrics: Floats
    std: Floats
    error: Floats
    df: Floats
    own: Floats
    own_df: Floats
    load: Floats
    values: Floats
    control: Floats


def _measure(comparisons: Sequence[_Comparison], careful: bool = False) -> list[_Measured]:
    """All pools of all comparisons, with variances that are moderated together.

    The control's own variance counts where it is the larger one: its noise is in every change, and pools that are
    quieter must not hide it. careful: so does each pool's, since the clearest of many is easily a noisy one.
    """
    fits, variances, dfs = [], [], []
    for c in comparisons:
        fit = seed_residuals(c.scores @ c.weights, c.known)
        variance, df = with_lone_seeds(fit, c.scores @ c.weights, c.known)
        fits.append(fit)
        variances.append([*fit.variances[: len(c.pools)], variance])
        dfs.append([*fit.dfs[: len(c.pools)], df])
    own, own_df = np.concatenate(variances), np.concatenate(dfs)
    drawn, drawn_df = moderate(own, own_df)
    ends = np.cumsum([len(c.pools) + 1 for c in comparisons])
    noisier = np.zeros(len(own), bool)
    noisier[ends - 1] = (own_df[ends - 1] > 0) & (own[ends - 1] > drawn[ends - 1])
    drawn_df = np.where(noisier, own_df, drawn_df)
    drawn = np.where(noisier | (careful & (own_df > 0) & (own > drawn)), own, drawn)
    return [
        _measure_one(c, fit, drawn[end - len(c.pools) - 1 : end], drawn_df[end - len(c.pools) - 1 : end])
        for c, fit, end in zip(comparisons, fits, ends, strict=True)
    ]


def _measure_one(c: _Comparison, fit: SeedFit, variances: Floats, dfs: Floats) -> _Measured:
    """variances, dfs: of the pools and, last, of the control; percent² of one seed."""
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
        load = np.sqrt(np.clip(np.nan_to_num(shared / error**2), 0, 0.999))
    return _Measured(
        seeds,
        change,
        metrics,
        std,
        error,
        df,
        np.sqrt(own),
        dfs[:-1],
        load,
        (share[:, None] @ scores)[:, 0] / c.gains,
        everywhere / c.gains,
    )


def _at_looks(c: _Comparison, looks: Looks, settled: float) -> tuple[_Comparison, list[int | None]]:
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
        for comparison in _compare(
            {p: scores.get(p, {}) for p, own in controls.items() if own == control},
            scores.get(control, {}),
            metrics,
            aggregate,
        )
    ]
    if not comparisons:
        return []
    measured = _measure(comparisons)
    claims = _Claims(1 - confidence, arms, looks, claim)
    families = [controls[c.pools[0]] for c in comparisons]
    if isinstance(looks, Looks):
        pairs = [_at_looks(c, looks, settled.get(f, math.inf)) for c, f in zip(comparisons, families, strict=True)]
        seen, reached = [r for r, _ in pairs], [x for _, found in pairs for x in found]
    else:
        seen, reached = comparisons, [None for c in comparisons for _ in c.pools]
    read = _measure(seen, careful=True)
    halves, verdicts, p, q = claims.judge(measured, read, families, reached)
    found, at = list[Effect](), 0
    none = dict[int, dict[str, float | None]]()
    for c, m in zip(comparisons, measured, strict=True):
        for i, pool in enumerate(c.pools):
            skipped = (*c.skipped, *_lost(scores.get(pool, none), scores.get(controls[pool], none)))
            found.append(_effect(c, m, i, float(halves[at]), verdicts[at], p[at], q[at], skipped))
            at += 1
    return sorted(found, key=lambda e: (-math.inf if e.change is None else e.change, e.pool), reverse=True)


def _effect(
    c: _Comparison, m: _Measured, i: int, half: float, verdict: Verdict, p: float | None, q: float | None,
    skipped: tuple[str, ...],
) -> Effect:  # fmt: skip
    n, change = int(m.seeds[i]), float(m.change[i])
    if not n:
        return Effect(c.pools[i], None, None, None, None, 0, "unclear", {}, skipped)
    sound = n > 1 and math.isfinite(half)
    own, own_df = float(m.own[i]), float(m.own_df[i])
    return Effect(
        c.pools[i], change, float(m.std[i]) if n > 1 else None, change - half if sound else None,
        change + half if sound else None, n, verdict, dict(zip(c.metrics, m.metrics[i].tolist(), strict=True)), skipped,
        float(m.error[i]) if sound else None, None if math.isnan(own) else own, own_df, p, q,
        {name: (v, w) for name, v, w in zip(c.metrics, m.values[i].tolist(), m.control.tolist(), strict=True)},
    )  # fmt: skip


@dataclass(frozen=True)
class _Claims:
    """Verdicts and simultaneous intervals of all pools together; the arguments are those of `effects`."""

    error: float
    arms: int | None
    looks: Looks | Literal["once", "any"]
    claim: Literal["both", "helps"]

    def judge(
        self, now: Sequence[_Measured], read: Sequence[_Measured], controls: Sequence[str],
        reached: Sequence[int | None],
    ) -> tuple[Floats, list[Verdict], list[float | None], list[float | None]]:  # fmt: skip
        """(half intervals, verdicts, corrected p of the pool's direction, q) in the order of the pools.

        now: all results, for the intervals; read: those of the last look, for the claims.
        """
        names = {name: i for i, name in enumerate(dict.fromkeys(controls))}
        families = np.concatenate([
            np.full(len(m.change), names[c]) for m, c in zip(now, controls, strict=True)
        ]).astype(np.int64)  # fmt: skip
        spent = np.array([self._share(look) for look in reached])
        seeds = np.concatenate([m.seeds for m in read])
        t = np.concatenate([_ratio(m.change, m.error) for m in read])
        z = np.where(seeds > 1, normal_scores(t, np.concatenate([m.df for m in read])), -np.inf)
        tested = (seeds > 1) & np.isfinite(z)
        copies = 1.0 if self.arms is None else self.arms / len(seeds)
        loads = np.concatenate([m.load for m in read])
        up = self._p(np.where(tested, z, -np.inf), seeds, loads, families, copies)
        down = self._p(np.where(tested, -z, -np.inf), seeds, loads, families, copies)
        bar = self.error * spent
        half = bar if self.looks == "any" else bar / 2  # a mixture minds both sides at once
        helps, hurts = up <= (bar if self.claim == "helps" else half), down <= half
        verdicts: list[Verdict] = [
            "helps" if h else "hurts" if d else "unclear"
            for h, d in zip(helps & tested, hurts & tested, strict=True)
        ]  # fmt: skip
        p = [max(LEAST, float(min(u, d))) if k else None for u, d, k in zip(up, down, tested, strict=True)]
        return self._halves(now, families, copies, bar), verdicts, p, discoveries(_two_sided(z, tested))

    def _share(self, look: int | None) -> float:
        if not isinstance(self.looks, Looks):
            return 1.0
        return self.looks.share(look or self.looks.planned[0], self.error)

    def _p(
        self, z: Floats, seeds: NDArray[np.int64], loads: Floats, families: NDArray[np.int64], copies: float
    ) -> Floats:
        from scipy import special

        if self.looks == "any":
            return any_time(z, seeds, SHARPEST, copies * len(z))
        if copies * len(z) == 1:
            return np.asarray(special.ndtr(-z))
        return adjusted(z, loads, families, copies)

    def _halves(self, now: Sequence[_Measured], families: NDArray[np.int64], copies: float, bar: Floats) -> Floats:
        """Half of each pool's simultaneous two-sided interval."""
        from scipy import special

        loads, error = np.concatenate([m.load for m in now]), np.concatenate([m.error for m in now])
        df, seeds = np.concatenate([m.df for m in now]), np.concatenate([m.seeds for m in now])
        if self.looks == "any":
            far = any_time_reach(self.error, np.maximum(seeds, 1), SHARPEST, copies * len(seeds))
        elif copies * len(seeds) == 1:
            far = -special.ndtri(bar / 2)
        else:
            at = {b: reach(b, loads, families, copies) for b in set(bar.tolist())}
            far = np.array([at[b] for b in bar.tolist()])
        with np.errstate(invalid="ignore"):
            return np.where(error > 0, -special.stdtrit(df, special.ndtr(-far)) * error, error)


def _ratio(change: Floats, error: Floats) -> Floats:
    """t; endless where there is a change and no noise."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((error == 0) & (change == 0), 0.0, change / error)


def _two_sided(z: Floats, tested: NDArray[np.bool_]) -> list[float | None]:
    from scipy import special

    return [max(LEAST, float(2 * special.ndtr(-abs(x)))) if k else None for x, k in zip(z, tested, strict=True)]


def control_noise(pools: Scores, control: Runs, metrics: Sequence[Metric], aggregate: Aggregate) -> tuple[float, float]:
    """(standard deviation of the control over that of its pools, degrees of freedom of it); (1, 0) where unknown."""
    found = (1.0, 0.0)
    for c in _compare(pools, control, metrics, aggregate):
        fit = seed_residuals(c.scores @ c.weights, c.known)
        variance, df = with_lone_seeds(fit, c.scores @ c.weights, c.known)
        own, dfs = fit.variances[:-1], fit.dfs[:-1]
        common = float(own @ dfs / dfs.sum()) if dfs.sum() > 0 else 0.0
        if common > 0 and variance > 0 and df >= 2 and dfs.sum() >= 6 and df > found[1]:
            found = (math.sqrt(variance / common), df)
    return found

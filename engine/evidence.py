"""Evidence: every number that a decision rests on.

Changes are paired by seed against the control of the same size and samples. What a seed does to
all pools alike is taken out; the variance that remains is moderated, shared across pools as far as
they agree (Smyth 2004), so that two or three seeds mean something. The control's noise counts once
for each pool, since all share it. Intervals are corrected for the number of pools and of looks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from engine.tasks import Metric

Verdict = Literal["helps", "hurts", "unclear", "degenerate"]
Aggregate = Literal["mean-of-changes", "change-of-means"]
# pool → seed → metric → value
Scores = Mapping[str, Mapping[int, Mapping[str, float | None]]]


@dataclass(frozen=True)
class Effect:
    """A pool against its control.

    change: mean over seeds, percent. std: of one seed's change, percent; None below two seeds.
    ci_low, ci_high: simultaneous confidence interval, percent. metrics: metric → relative change, percent.
    skipped: what was left out and why.
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


def relative_change(value: float, control: float, baseline: float, metric: Metric) -> float:
    """Percent by which a score beats the control's at the same seed, in the metric's good direction.

    baseline: the control's mean over seeds, which steadies the ratio.
    """
    sign = 1 if metric.higher_is_better else -1
    return 100 * sign * (value - control) / abs(baseline)


def paired_changes(
    pool: Mapping[int, Mapping[str, float | None]],
    control: Mapping[int, Mapping[str, float | None]],
    metrics: Sequence[Metric],
    aggregate: Aggregate,
) -> tuple[dict[int, float], dict[str, float], tuple[str, ...]]:
    """(change per seed in percent, mean relative change per metric, what was left out).

    mean-of-changes: mean over metrics of their relative changes. change-of-means: Eq. 1 of the
    paper, the relative change of the metrics' mean. A missing or NaN value leaves that metric out
    for all seeds, so that every seed is judged on the same metrics.
    """
    seeds = sorted(set(pool) & set(control))
    usable, skipped = [], []
    for metric in metrics:
        values = [run[s].get(metric.name) for s in seeds for run in (pool, control)]
        if any(v is None or not math.isfinite(v) for v in values):
            skipped.append(f"{metric.name}: a value is missing or not a number")
        elif seeds and not sum(_value(control, s, metric) for s in seeds):
            skipped.append(f"{metric.name}: the control's mean is 0")
        else:
            usable.append(metric)
    if not seeds or not usable:
        return {}, {}, tuple(skipped)
    base = {m.name: float(np.mean([_value(control, s, m) for s in seeds])) for m in usable}
    table = {
        m.name: [relative_change(_value(pool, s, m), _value(control, s, m), base[m.name], m) for s in seeds]
        for m in usable
    }
    if aggregate == "mean-of-changes":
        changes = np.mean(list(table.values()), axis=0)
    else:
        signs = {m.name: 1 if m.higher_is_better else -1 for m in usable}
        gains = [sum(signs[m.name] * (_value(pool, s, m) - _value(control, s, m)) for m in usable) for s in seeds]
        changes = 100 * np.array(gains) / abs(sum(base.values()))
    return (
        {s: float(c) for s, c in zip(seeds, changes, strict=True)},
        {name: float(np.mean(c)) for name, c in table.items()},
        tuple(skipped),
    )


def _value(run: Mapping[int, Mapping[str, float | None]], seed: int, metric: Metric) -> float:
    value = run[seed][metric.name]
    assert value is not None
    return value


@dataclass(frozen=True)
class Prior:
    """What variances have in common: a variance (percent²) and its degrees of freedom."""

    variance: float
    df: float


def fit_prior(variances: Sequence[float], dfs: Sequence[float]) -> Prior | None:
    """Empirical-Bayes prior of variances with `dfs` degrees of freedom each (Smyth 2004, Section 6.2).

    None without any variance above zero. An infinite df says that the variances differ by no more
    than chance.
    """
    from scipy import special

    pairs = [(v, d) for v, d in zip(variances, dfs, strict=True) if d > 0 and v > 0]
    if not pairs:
        return None
    v, d = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    e = np.log(v) - special.digamma(d / 2) + np.log(d / 2)
    spread = float(np.var(e, ddof=1)) - float(np.mean(special.polygamma(1, d / 2))) if len(e) > 1 else 0.0
    if spread <= 0:
        return Prior(float(np.sum(v * d) / np.sum(d)), math.inf)
    df = 2 * _inverse_trigamma(spread)
    return Prior(float(np.exp(np.mean(e) + special.digamma(df / 2) - np.log(df / 2))), df)


def _inverse_trigamma(x: float) -> float:
    """y with trigamma(y) = x, by Newton's method on 1 / trigamma (Smyth 2004, appendix)."""
    from scipy import special

    y = 0.5 + 1 / x
    for _ in range(50):
        t = float(special.polygamma(1, y))
        step = t * (1 - t / x) / float(special.polygamma(2, y))
        y += step
        if -step / y < 1e-10:
            break
    return y


def seed_residuals(series: Mapping[str, Mapping[int, float]]) -> dict[str, tuple[float, float]]:
    """(residual variance, degrees of freedom) of each series once what a seed does to all of them is taken out.

    series: name → seed → value, of pools that share a control, the control among them. The two-way
    fit value = series + seed measures how far seeds move all pools alike; only the rest blurs a comparison.
    With one pool and its control this is the paired t-test.
    """
    names = [n for n, v in series.items() if len(v) > 1]
    seeds = sorted({s for n in names for s in series[n]})
    if len(names) < 2:
        return {}
    table = np.array([[series[n].get(s, np.nan) for s in seeds] for n in names])
    known = ~np.isnan(table)
    rest = table - np.nanmean(table, axis=1, keepdims=True)
    for _ in range(1 if known.all() else 20):  # one sweep is exact where every seed ran everywhere
        rest = rest - np.nanmean(rest, axis=0, keepdims=True)
        rest = rest - np.nanmean(rest, axis=1, keepdims=True)
    own = known.sum(1) - 1
    share = (int(known.sum()) - len(names) - len(seeds) + 1) / int(own.sum())
    return {
        n: (float(np.nansum(r**2)) / (d * share), d * share)
        for n, r, d in zip(names, rest, own.tolist(), strict=True)
        if share > 0
    }


def _moderate(spread: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Each variance drawn towards what all have in common, with the degrees of freedom that it then has."""
    prior = fit_prior([v for v, _ in spread.values()], [d for _, d in spread.values()])
    if prior is None:
        return dict(spread)
    residual = sum(d for _, d in spread.values())
    if math.isinf(prior.df):
        return dict.fromkeys(spread, (prior.variance, residual))
    return {
        n: ((prior.df * prior.variance + d * v) / (prior.df + d), min(prior.df + d, residual))
        for n, (v, d) in spread.items()
    }


def _half_width(effect: float, pool: tuple[float, float], control: tuple[float, float], n: int, alpha: float) -> float:
    """Half an interval of a mean change, percent. The control's noise counts in the ratio's denominator too.

    pool, control: (variance, degrees of freedom) of one seed; joined after Satterthwaite.
    """
    from scipy import stats

    ratio = 1 + effect / 100
    a, b = pool[0], ratio**2 * control[0]
    if a + b == 0:
        return 0.0
    # both may rest on the same residuals, so their degrees of freedom do not add up beyond the larger
    freedom = min((a + b) ** 2 / (a**2 / pool[1] + b**2 / control[1]), max(pool[1], control[1]))
    return float(stats.t.isf(alpha / 2, freedom)) * math.sqrt((a + b) / n)


def effects(
    scores: Scores,
    controls: Mapping[str, str],
    metrics: Sequence[Metric],
    *,
    aggregate: Aggregate = "mean-of-changes",
    confidence: float = 0.95,
    arms: int | None = None,
    looks: int = 1,
) -> list[Effect]:
    """Every pool against its control, best first.

    controls: pool → its control's id. arms: pools that are tested together (all of them when None).
    looks: times at which the ranking may be read before it is final; the error is split over both
    (Bonferroni), so that intervals hold for all pools and looks together.
    """
    paired = {p: paired_changes(scores.get(p, {}), scores.get(c, {}), metrics, aggregate) for p, c in controls.items()}
    spread: dict[str, tuple[float, float]] = {}
    for control in sorted(set(controls.values())):
        group = {p: paired[p][0] for p, c in controls.items() if c == control}
        # as changes, the control is zero at every seed; what is common to all pools' changes is its own noise
        zero = dict.fromkeys(scores.get(control, {}), 0.0)
        spread |= seed_residuals({**group, f"control {control}": zero})
    moderated = _moderate(spread)
    alpha = (1 - confidence) / (max(1, arms if arms is not None else len(controls)) * max(1, looks))
    found = []
    for pool, (by_seed, by_metric, skipped) in paired.items():
        values = np.array(list(by_seed.values()))
        mean = float(values.mean()) if len(values) else None
        low = high = std = None
        verdict: Verdict = "unclear"
        if len(values) > 1 and mean is not None:
            std = float(values.std(ddof=1))
            own, other = moderated.get(pool), moderated.get(f"control {controls[pool]}")
            if own and other:
                half = _half_width(mean, own, other, len(values), alpha)
                low, high = mean - half, mean + half
                verdict = "helps" if low > 0 else "hurts" if high < 0 else "unclear"
        found.append(Effect(pool, mean, std, low, high, len(values), verdict, by_metric, skipped))
    return sorted(found, key=lambda e: (-math.inf if e.change is None else e.change, e.pool), reverse=True)

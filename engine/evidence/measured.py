"""Measured: the change of each pool of a comparison, its error and degrees of freedom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.evidence.comparison import Aggregate, Comparison, Runs, Scores, compare
from engine.evidence.variance import Floats, SeedFit, moderate, seed_residuals, with_lone_seeds
from engine.records.metric import Metric


@dataclass(frozen=True)
class Measured:
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


def measure(comparisons: Sequence[Comparison], careful: bool = False) -> list[Measured]:
    """All pools of all comparisons, with variances that are moderated together.

    The control's own variance counts where it is the larger one, and its degrees of freedom are always its own: its
    noise is in every change, and pools that are quieter must not hide it. careful: each pool's own counts where it is
    the larger one, too, since the clearest of many is easily a noisy one; of the few of a confirmation it is not.
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
    measured, controls = own_df > 0, np.isin(np.arange(len(own)), ends - 1)
    drawn_df = np.where(controls & measured, np.minimum(own_df, drawn_df), drawn_df)
    drawn = np.where((controls | careful) & measured & (own > drawn), own, drawn)
    return [
        _measure_one(c, fit, drawn[end - len(c.pools) - 1 : end], drawn_df[end - len(c.pools) - 1 : end])
        for c, fit, end in zip(comparisons, fits, ends, strict=True)
    ]


def _measure_one(c: Comparison, fit: SeedFit, variances: Floats, dfs: Floats) -> Measured:
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
    return Measured(
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


def control_noise(pools: Scores, control: Runs, metrics: Sequence[Metric], aggregate: Aggregate) -> tuple[float, float]:
    """(standard deviation of the control over that of its pools, degrees of freedom of it); (1, 0) where unknown."""
    found = (1.0, 0.0)
    for c in compare(pools, control, metrics, aggregate):
        fit = seed_residuals(c.scores @ c.weights, c.known)
        variance, df = with_lone_seeds(fit, c.scores @ c.weights, c.known)
        own, dfs = fit.variances[:-1], fit.dfs[:-1]
        common = float(own @ dfs / dfs.sum()) if dfs.sum() > 0 else 0.0
        if common > 0 and variance > 0 and df >= 2 and dfs.sum() >= 6 and df > found[1]:
            found = (math.sqrt(variance / common), df)
    return found

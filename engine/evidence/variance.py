"""Variances: how far chance moves scores, and how much of that a seed does to all pools alike.

What a seed does to all pools is taken out by a two-way fit; the variances that remain are drawn towards
what they have in common (Smyth 2004), so that two or three seeds mean something.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prior:
    """What variances have in common: a variance (percent²) and its degrees of freedom."""

    variance: float
    df: float


@dataclass(frozen=True)
class SeedFit:
    """The fit score = pool + seed + rest.

    variances, dfs: of each pool's rest, percent², and their degrees of freedom (0 where nothing is known).
    common, common_df: variance of what a seed does to all pools alike, percent², not below 0; and of what it rests on.
    rest: variance of the rest over all pools, percent²; NaN where nothing is known.
    """

    variances: Floats
    dfs: Floats
    common: float
    common_df: int
    rest: float

    @property
    def correlation(self) -> float:
        """Of two pools' scores over seeds, 0 … 1; 1 where it is not known, so that only equal seeds are compared."""
        if math.isnan(self.rest):
            return 1.0
        return self.common / (self.common + self.rest) if self.common > 0 else 0.0


def seed_residuals(scores: Floats, known: NDArray[np.bool_]) -> SeedFit:
    """The two-way fit of pools that share a control, the control among them.

    scores: pools × seeds, percent. known: which of them count; every pool may lack some, or all.
    Least squares with the pools' means eliminated; variances by the method of moments (Henderson 1953, method 3).
    With one pool and its control this is the paired t-test.
    """
    at = known.astype(np.float64)
    share = at / np.maximum(at.sum(1, keepdims=True), 1)  # of a pool's mean that each seed is
    scores = np.where(known, scores, 0)
    centred = at * (scores - (share * scores).sum(1, keepdims=True))
    # normal equations of the seeds: gram @ effects = pull
    gram, pull = np.diag(at.sum(0)) - at.T @ share, centred.sum(0)
    values, vectors = np.linalg.eigh(gram)
    kept = values > 1e-9 * values.max(initial=1)
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    effects = inverse @ pull
    rest = centred - at * (effects - (share @ effects)[:, None])
    # what of each score's noise the fit leaves over: 1 - its leverage
    spread = share @ inverse
    taken = share + inverse.diagonal() - 2 * spread + (spread * share).sum(1, keepdims=True)
    dfs = (at * (1 - taken)).sum(1)
    dfs[dfs < 1e-9] = 0
    squares, rank = (rest**2).sum(1), int(kept.sum())
    variance = float(squares.sum() / dfs.sum()) if dfs.any() else math.nan
    common = max(0.0, (float(pull @ effects) - rank * variance) / float(np.trace(gram))) if dfs.any() else 0.0
    return SeedFit(np.divide(squares, dfs, out=np.zeros_like(dfs), where=dfs > 0), dfs, common, rank, variance)


def with_lone_seeds(fit: SeedFit, scores: Floats, known: NDArray[np.bool_]) -> tuple[float, float]:
    """(variance, degrees of freedom) of the last pool's rest, from seeds that no other has, too.

    The two-way fit gives such a seed's noise to the seed. The plain variance over all seeds keeps it; what seeds do to
    all pools alike is taken off, and weakens it. Whichever of the two has more degrees of freedom counts.
    """
    own, alone = scores[-1, known[-1]], known[-1] & ~known[:-1].any(0)
    df = (len(own) - 1) * (1 - fit.correlation) ** 2 if alone.any() else 0.0
    if df <= fit.dfs[-1]:
        return float(fit.variances[-1]), float(fit.dfs[-1])
    return max(0.0, float(own.var(ddof=1)) - fit.common), df


def fit_prior(variances: Sequence[float] | Floats, dfs: Sequence[float] | Floats) -> Prior | None:
    """Empirical-Bayes prior of variances with `dfs` degrees of freedom each (Smyth 2004, Section 6.2).

    None without any variance above zero. An infinite df says that the variances differ by no more
    than chance.
    """
    from scipy import special

    v, d = np.asarray(variances, np.float64), np.asarray(dfs, np.float64)
    v, d = v[(d > 0) & (v > 0)], d[(d > 0) & (v > 0)]
    if not len(v):
        return None
    e = np.log(v) - special.digamma(d / 2) + np.log(d / 2)
    spread = float(e.var(ddof=1) - special.zeta(2, d / 2).mean()) if len(e) > 1 else 0.0
    if spread <= 0:
        return Prior(float(np.sum(v * d) / np.sum(d)), math.inf)
    df = 2 * _inverse_trigamma(spread)
    return Prior(float(np.exp(np.mean(e) + special.digamma(df / 2) - np.log(df / 2))), df)


def _inverse_trigamma(x: float) -> float:
    """y with trigamma(y) = ζ(2, y) = x, by Newton's method on 1 / trigamma (Smyth 2004, appendix)."""
    from scipy import special

    y = 0.5 + 1 / x
    for _ in range(50):
        t = float(special.zeta(2, y))
        step = t * (1 - t / x) / (-2 * float(special.zeta(3, y)))
        y += step
        if -step / y < 1e-10:
            break
    return y


def moderate(variances: Floats, dfs: Floats) -> tuple[Floats, Floats]:
    """Each variance drawn towards what all have in common, with the degrees of freedom that it then has.

    A variance without degrees of freedom becomes the prior's; NaN when there is none.
    """
    prior = fit_prior(variances, dfs)
    if prior is None:
        return np.where(dfs > 0, variances, np.nan), dfs
    residual = float(dfs.sum())
    if math.isinf(prior.df):
        return np.full_like(dfs, prior.variance), np.full_like(dfs, residual)
    own = (prior.df * prior.variance + dfs * variances) / (prior.df + dfs)
    return own, np.minimum(prior.df + dfs, residual)

"""Chances: which pool is the best of those that were compared, and how much of a change luck has made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.evidence.effects import Effect
from engine.evidence.variance import Floats

FEWEST, WORK = 4_000, 2_000_000  # Monte Carlo samples of many pools, and of all pools together
DRAWN = 500  # Monte Carlo samples at once: memory stays small with many pools


def _known(effects: Sequence[Effect]) -> tuple[list[Effect], Floats, Floats]:
    """(effects whose own error is known, by pool; their changes; the variance of each)."""
    known = sorted((e for e in effects if e.change is not None and e.own_error is not None), key=lambda e: e.pool)
    return (
        known,
        np.array([e.change for e in known], np.float64),
        np.array([e.own_error for e in known], np.float64) ** 2,
    )


def shrunken(effects: Sequence[Effect]) -> dict[str, float]:
    """Pool → its expected true change, percent: drawn towards the mean of all, as far as they differ by chance.

    The best of many is the best by luck, too; this is what remains of it on fresh seeds (empirical Bayes).
    """
    known, change, error = _known(effects)
    if len(known) < 3:
        return {}
    spread = max(0.0, float(change.var(ddof=1) - error.mean()))
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = 1 / (spread + error)
        mean = float(weights @ change / weights.sum()) if np.isfinite(weights).all() else float(change.mean())
        trust = np.where(error > 0, spread / (spread + error), 1.0)
    return {e.pool: float(m) for e, m in zip(known, mean + trust * (change - mean), strict=True)}


def chances(effects: Sequence[Effect], k: int = 1, draws: int = 20_000, doubt: float = 0.0) -> dict[str, float]:
    """Pool → probability that its true change is among the k best, 0 … 1; of pools whose own error is known.

    Empirical Bayes: true changes are normal around a common mean, and their variance is that of the measured changes
    less their errors, which few pools leave open: each draw has its own, by the chi-square of what was measured. Errors
    are known as far as their degrees of freedom go, so draws are Student's t. The control's noise cancels.
    draws: Monte Carlo samples, of a fixed seed; fewer of more than a hundred pools. doubt: further variance in units of
    the pools' own spread, since the end of a training may differ from its measured beginning.
    """
    known, change, error = _known(effects)
    df = np.array([max(1.0, e.own_df) for e in known])
    whole = float(change.var(ddof=1)) if len(known) > 1 else 0.0
    if not known or whole <= error.mean():
        return {e.pool: min(1.0, k / len(known)) for e in known}
    draws = min(draws, max(FEWEST, WORK // len(known)))
    k, rng, counts = min(k, len(known)), np.random.default_rng(0), np.zeros(len(known))
    for start in range(0, draws, DRAWN):
        n = min(DRAWN, draws - start)
        spread = np.maximum(0, whole * (len(known) - 1) / rng.chisquare(len(known) - 1, (n, 1)) - error.mean())
        drawn = _draw(rng, change, error, df, spread, doubt)
        best = drawn.argmax(1) if k == 1 else np.argpartition(drawn, -k, axis=1)[:, -k:]
        counts += np.bincount(best.ravel(), minlength=len(known))
    return {e.pool: float(n / draws) for e, n in zip(known, counts, strict=True)}


def _draw(
    rng: np.random.Generator, change: Floats, error: Floats, df: Floats, spread: Floats, doubt: float
) -> Floats:  # fmt: skip
    """(draws, pools) true changes, given what was measured and (draws, 1) the variance of true changes."""
    n, heavy = len(spread), np.isfinite(df)
    scale = np.ones((n, len(df)))
    scale[:, heavy] = df[heavy] / rng.chisquare(df[heavy], (n, int(heavy.sum())))
    noise = error * scale
    weights = 1 / (spread + noise)
    mean = (weights * change).sum(1, keepdims=True) / weights.sum(1, keepdims=True)
    trust = spread * weights
    rest = np.sqrt(trust * noise + doubt * spread) * rng.standard_normal(scale.shape)
    drawn: Floats = mean + trust * (change - mean) + rest
    return drawn

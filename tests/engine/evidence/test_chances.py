"""What remains of the best of many pools on fresh seeds."""

from __future__ import annotations

import numpy as np
import pytest

from engine.evidence.chances import chances, shrunken
from engine.evidence.effects import Effect


def effect(pool: str, change: float, error: float, df: float = np.inf) -> Effect:
    """An effect of which only change and own error matter."""
    return Effect(pool, change, None, None, None, 1, "unclear", own_error=error, own_df=df)


def test_the_shrunken_change_of_the_best_is_what_fresh_seeds_show() -> None:
    rng, raw, kept, truth = np.random.default_rng(0), [], [], []
    for _ in range(200):
        true = rng.normal(0, 3, 20)
        found = [effect(f"{i:02}", c, 4.0) for i, c in enumerate(true + rng.normal(0, 4, 20))]
        best = max(found, key=lambda e: e.change or 0.0)
        raw.append(best.change)
        kept.append(shrunken(found)[best.pool])
        truth.append(true[int(best.pool)])
    assert np.mean(kept) == pytest.approx(np.mean(truth), abs=0.5)
    assert np.mean(raw) > np.mean(truth) + 3


def test_pools_that_differ_by_chance_only_keep_nothing() -> None:
    found = shrunken([effect(p, c, 5.0) for p, c in (("a", 1.0), ("b", -1.0), ("c", 3.0))])
    assert found == dict.fromkeys("abc", pytest.approx(1.0))
    assert shrunken([effect("a", 5.0, 1.0)]) == {}


def test_an_error_that_is_hardly_known_leaves_the_best_open() -> None:
    others = [effect(f"{i}", c, 3.0) for i, c in enumerate((-4.0, -1.0, 0.0, 2.0, 4.0))]
    sure, unsure = (chances([*others, effect("x", 20.0, 3.0, df)])["x"] for df in (np.inf, 1.0))
    assert sure > 0.95
    assert unsure < sure - 0.05

"""The regression on mixtures: what it finds where the answer is known, and mixtures that keep to the caps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.evidence.mixtures import Floats, best_mixtures, random_mixtures, regress

BASE = np.array([0.5, 0.3, 0.2])
SLOPES = np.array([[-0.3], [0.1], [0.5]])


def told(weights: Floats, noise: float = 0.0, seed: int = 1) -> Floats:
    """Changes in percent of a log-linear world."""
    clean = 100 * np.expm1((weights - BASE) @ SLOPES)
    return np.asarray(clean + noise * np.random.default_rng(seed).standard_normal(clean.shape))


@given(
    st.lists(st.floats(0.05, 1), min_size=2, max_size=8), st.lists(st.floats(0.2, 3), min_size=8, max_size=8),
    st.integers(0, 99),
)  # fmt: skip
def test_random_mixtures_add_up_to_one_and_keep_to_the_caps(parts: list[float], room: list[float], seed: int) -> None:
    base = np.array(parts) / sum(parts)
    caps = np.minimum(1, np.floor(1000 * (base * np.array(room[: len(parts)]) + 1 / len(parts))) / 1000)
    if caps.sum() < 1:
        return
    found = random_mixtures(base, caps, 50, np.random.default_rng(seed))
    assert np.allclose(found.sum(1), 1) and (found >= 0).all() and (found <= caps + 1e-9).all()
    assert np.allclose(found * 1000, np.round(found * 1000))


def test_the_regression_tells_mixtures_apart_that_it_has_not_seen() -> None:
    rng = np.random.default_rng(0)
    tried = random_mixtures(BASE, np.ones(3), 12, rng)
    fit = regress(BASE, tried, told(tried, 2.0))
    assert fit is not None and fit.rank is not None and fit.rank > 0.8
    new = random_mixtures(BASE, np.ones(3), 200, rng)
    assert np.corrcoef(fit.predict(new), told(new)[:, 0])[0, 1] > 0.95


def test_what_is_asked_next_is_the_best_that_the_caps_allow() -> None:
    rng = np.random.default_rng(0)
    caps = np.array([1.0, 1.0, 0.4])
    tried = random_mixtures(BASE, caps, 10, rng)
    fit = regress(BASE, tried, told(tried, 0.5))
    assert fit is not None
    asked = best_mixtures(fit, caps, tried, 4, rng)
    assert asked[0] == pytest.approx([0.0, 0.6, 0.4], abs=0.03)
    assert len({tuple(row) for row in [*asked.tolist(), *tried.tolist()]}) == 14


def test_noise_alone_has_no_rank_correlation_to_speak_of() -> None:
    ranks = []
    for seed in range(20):
        tried = random_mixtures(BASE, np.ones(3), 16, np.random.default_rng(seed))
        fit = regress(BASE, tried, np.random.default_rng(seed + 100).standard_normal((16, 1)))
        assert fit is not None
        ranks.append(fit.rank or 0.0)
    assert np.mean(ranks) < 0.25


def test_too_few_mixtures_and_equal_ones_say_nothing() -> None:
    assert regress(BASE, BASE[None], np.zeros((1, 1))) is None
    equal = regress(BASE, np.tile(BASE, (4, 1)), np.zeros((4, 1)))
    assert equal is not None and equal.rank is None

"""Hoeffding's bound: its known values, that it holds, and that `djsb plan` says it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.study.hoeffding import PoolBound, exceeds, margin


def test_the_bound_of_the_paper_has_its_known_values() -> None:
    assert exceeds(0.5, 1) == pytest.approx(math.exp(-0.5))  # one training, half of the range: 61 %
    assert exceeds(3, 10, 5) == pytest.approx(math.exp(-0.9))
    assert margin(0.05, 1, 1_000) == pytest.approx(0.042947, abs=1e-6)
    assert margin(0.05, 10, 4_000) == pytest.approx(5 * margin(0.05, 1, 1_000))
    assert 2 * exceeds(margin(0.02, 3, 77), 3, 77) == pytest.approx(0.02)
    bound = PoolBound.of(1_000, 5)
    assert (bound.rows, bound.seeds, round(bound.margin, 3), round(bound.misled, 3)) == (1_000, 5, 0.043, 0.082)


def test_means_exceed_it_no_more_often_than_it_says() -> None:
    rng = np.random.default_rng(0)
    for draws, error in ((1, 0.4), (10, 0.2), (50, 0.1)):
        means = rng.integers(0, 2, (20_000, draws)).mean(1)  # the widest that values in [0, 1] spread
        assert (means - 0.5 >= error).mean() <= exceeds(error, 1, draws)

"""How many seeds the control gets."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.evidence.measured import control_noise
from engine.records.metric import Metric
from engine.search.control import control_seeds


@pytest.mark.parametrize(
    ("seeds", "arms", "noise", "expected"),
    [
        (5, 2, 1.0, 7),
        (5, 2, 3.0, 21),
        (5, 2, 9.0, 21),
        (5, 2, 0.3, 7),
        (3, 60, 1.0, 23),
        (3, 1, 1.0, 3),
        (2, 60, 3.0, 2),
    ],
)
def test_the_control_gets_the_root_of_the_arms_times_their_seeds(
    seeds: int, arms: int, noise: float, expected: int
) -> None:
    assert control_seeds(seeds, arms, noise) == expected


def test_that_many_seeds_make_the_error_smallest_for_what_all_cost() -> None:
    """Of 4 arms and a control for 120 trials: the variance 1/n + 1/m of a comparison."""
    most = min(range(1, 30), key=lambda n: 1 / n + 1 / (120 - 4 * n))
    assert control_seeds(most, 4) == 120 - 4 * most


@pytest.mark.parametrize("times", [1.0, 3.0])
def test_the_controls_noise_is_measured(times: float) -> None:
    rng, found = np.random.default_rng(0), []
    for _ in range(50):
        values = 100 + rng.normal(0, [[1.0]] * 8 + [[times]], (9, 12))
        runs = [{s: {"score": float(v)} for s, v in enumerate(row)} for row in values]
        pools = {str(i): r for i, r in enumerate(runs[:-1])}
        metrics = [Metric("score", True, -math.inf, math.inf)]
        found.append(control_noise(pools, runs[-1], metrics, "mean-of-changes")[0])
    assert np.median(found) == pytest.approx(times, rel=0.15)

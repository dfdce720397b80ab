"""Whether what is found at one size holds at another."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from app.text.lineage import line_text, stability_text
from engine.evidence.stability import coefficients, stability
from engine.journal import pools
from engine.records.pool import Layer, Pool, Slice
from tests.engine.evidence.test_answer import OP, STEADY, Made


def ran(made: Made, pool: Pool, kind: str, samples: int, value: float, horizon: int | None = None) -> None:
    """Three seeds of a pool, of so many samples."""
    pools.add(made.store, pool, f"{pool.slices[0].statistic} low" if pool.slices else "control", kind)
    for seed in range(3):
        made.clock += 1
        key = f"{made.clock:012x}"
        made.store.put("trials", {
            "id": key, "setup": made.setup, "pool": pool.id, "seed": seed, "samples": samples,
            "horizon": horizon or samples, "stage": "probe", "proposal": "d" * 12, "state": "COMPLETE", "seconds": 1.0,
        })  # fmt: skip
        noise = STEADY[(seed + len(pool.id)) % 5] + STEADY[made.clock % 5] / 4
        made.store.put("metrics", {"trial": key, "name": "accuracy", "value": value + noise})


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Six pools at 100 rows, and the same at 400, where the first has lost its effect."""
    study = Made(tmp_path)
    six = [Pool((Layer((Slice(OP, f"s{i}", high=1.0),)),), 100) for i in range(6)]
    with study.store.transaction():
        for rows, samples in ((100, 100), (400, 1600)):
            ran(study, Pool((Layer(),), rows), "control", samples, 0.5)
            for i, pool in enumerate(six):
                lost = i == 5 and rows == 400
                ran(study, replace(pool, size=rows), "single", samples, 0.5 if lost else 0.4 + 0.05 * i)
    return study


def test_orders_of_two_sizes_are_compared_and_a_lost_effect_is_named(made: Made) -> None:
    found = stability(made.view)
    [agreement] = found.agreements
    assert (agreement.small.rows, agreement.large.rows, agreement.pools) == (100, 400, 6)
    assert 0.4 < agreement.kendall.value < 0.9 and 0.5 < agreement.spearman.value < 0.95
    assert agreement.kendall.low is not None and agreement.kendall.low < agreement.kendall.value
    [faded] = found.faded
    assert faded.label == "s5 low" and faded.seen.rows == 100 and faded.lost.rows == 400 and not faded.turned
    first, second = stability_text(asdict(found))
    assert first.startswith("order of 6 pools, 100 rows, 100 samples against 400 rows, 1,600 samples: Kendall +0.")
    assert "s5 low: +3" in second and "at 400 rows, 1,600 samples it is no longer shown" in second
    made.store.close()


def test_nothing_is_said_of_one_size(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.probe(0.6, 0.4)
    assert stability_text(asdict(stability(made.view))) == [
        "order over sizes: no three pools ran at two sizes or lengths, so nothing is known of it"
    ]
    made.store.close()


def test_intervals_cover_the_coefficient_of_all_pools() -> None:
    rng, hits, true = np.random.default_rng(0), 0, 0.6
    for _ in range(300):
        a = rng.normal(size=20)
        b = true * a + (1 - true**2) ** 0.5 * rng.normal(size=20)
        tau, _ = coefficients(a.tolist(), b.tolist())
        assert tau.low is not None and tau.high is not None
        hits += tau.low <= 2 / np.pi * np.arcsin(true) <= tau.high
    assert 0.91 < hits / 300 < 0.98
    assert coefficients([1, 2, 3], [1, 3, 2])[0].low is None  # three pools give no interval


def test_two_points_are_called_no_law() -> None:
    line = {"slope": 3.0, "slope_low": None, "slope_high": None, "points": 2, "ahead": None}
    assert "two points are no law" in line_text(line)

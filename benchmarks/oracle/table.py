"""The oracle's table in memory, and noise drawn from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.records.metric import Metric

TABLE = Path(__file__).with_name("oracle.parquet")
METRICS = [Metric("accuracy", True, 0, 1), Metric("likelihood", True, 0, 1)]
SECOND = Path(__file__).with_name("lm.parquet")
SECOND_METRICS = [Metric("log_perplexity", False, 0, np.inf)]
SHARES = (0.25, 0.5, 0.75, 1.0)
SHORT = (0.125, 0.25, 0.5)  # whole trainings of fewer samples


@dataclass(frozen=True)
class Oracle:
    """values: (pools, seeds, shares, metrics) scores of full trainings at SHARES of their steps.

    short: the same of whole trainings of SHORT of the samples. seconds: median device-seconds by share (of SHARES).
    The control is the first pool.
    """

    pools: list[str]
    values: NDArray[np.float64]
    short: NDArray[np.float64]  # empty where none were recorded
    seconds: NDArray[np.float64]
    short_seconds: NDArray[np.float64]
    metrics: Sequence[Metric] = tuple(METRICS)

    def cost(self, share: float) -> float:
        """Of a trial that ends at this share of its steps, in full trials."""
        return float(self.seconds[SHARES.index(share)] / self.seconds[-1])

    def score(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(pools, seeds) aggregated change in percent of the control's mean, of (pools, seeds, metrics) scores."""
        gain = [1 if m.higher_is_better else -1 for m in self.metrics]
        return 100 * ((values / values[0].mean(0) - 1) * gain).mean(-1)


def load(table: Path = TABLE, metrics: Sequence[Metric] = METRICS) -> Oracle:
    """Read a committed table."""
    rows = pq.read_table(table).to_pylist()
    names = sorted({r["pool"] for r in rows}, key=lambda p: (p != "control", p))
    index = {p: i for i, p in enumerate(names)}
    seeds = max(r["seed"] for r in rows) + 1
    values = np.full((len(names), seeds, len(SHARES), len(metrics)), np.nan)
    short = np.full((len(names), seeds, len(SHORT), len(metrics)), np.nan)
    times: dict[tuple[float, float], list[float]] = {}
    for r in rows:
        found = [r[m.name] for m in metrics]
        times.setdefault((r["fraction"], r["at"]), []).append(r["seconds"])
        if r["fraction"] == 1:
            values[index[r["pool"]], r["seed"], SHARES.index(r["at"])] = found
        else:
            short[index[r["pool"]], r["seed"], SHORT.index(r["fraction"])] = found
    lengths = [f for f in SHORT if (f, 1.0) in times]
    assert not np.isnan(values).any() and not (lengths and np.isnan(short).any())
    return Oracle(
        names, values, short[:, :, : len(lengths)], np.array([np.median(times[1.0, s]) for s in SHARES]),
        np.array([np.median(times[f, 1.0]) for f in lengths]), tuple(metrics),
    )  # fmt: skip


def second() -> Oracle:
    """The world of another task, on which nothing was chosen."""
    return load(SECOND, SECOND_METRICS)


def null_world(oracle: Oracle, rng: np.random.Generator, seeds: int) -> NDArray[np.float64]:
    """(pools, seeds, shares, metrics) scores of pools that differ in nothing, with the oracle's noise.

    What a seed does to all pools and what is left of each run are drawn anew from the measured ones (of the pools
    within 15 % of the control, relative to their mean), each run with all its shares together, so that correlation
    between seeds, shares and metrics stays as measured.
    """
    full = oracle.score(oracle.values[:, :, -1]).mean(1)
    near = oracle.values[np.abs(full) < 15]
    relative = near / near.mean(1, keepdims=True) - 1
    n, s = relative.shape[:2]
    common = relative.mean(0)
    rest = (relative - common) * np.sqrt(n * s / ((n - 1) * (s - 1)))
    common = common * np.sqrt(s / (s - 1))
    drawn = rest.reshape(n * s, *rest.shape[2:])[rng.integers(n * s, size=(len(oracle.pools), seeds))]
    level = oracle.values[0].mean(0)
    return level * (1 + common[rng.integers(s, size=seeds)] + drawn)

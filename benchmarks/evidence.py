"""Claims on worlds whose truth is known: `make bench-evidence`.

    python benchmarks/evidence.py [--studies 1000] [--write]

Pools that differ in nothing (A/A), with noise of many kinds: how often is something said, and how often do intervals of
90 % hold the truth? Pools with an effect: how often is it said?
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray

from engine.evidence.effects import Effect, effects
from engine.records.metric import Metric

METRIC = Metric("score", True, -np.inf, np.inf)
NOISE = 10.0  # percent of the control, of one seed
Values = NDArray[np.float64]
World = Callable[[np.random.Generator, tuple[int, int, int]], Values]


def _normal(rng: np.random.Generator, shape: tuple[int, int, int]) -> Values:
    """(studies, pools, seeds) scores around 0 with a variance of 1; the control is the last pool."""
    return rng.standard_normal(shape)


def _t3(rng: np.random.Generator, shape: tuple[int, int, int]) -> Values:
    return rng.standard_t(3, shape) / np.sqrt(3)


def _heteroscedastic(rng: np.random.Generator, shape: tuple[int, int, int]) -> Values:
    return rng.standard_normal(shape) * np.exp(rng.normal(0, 0.5, (*shape[:2], 1)))


def _noisy_control(times: float) -> World:
    def draw(rng: np.random.Generator, shape: tuple[int, int, int]) -> Values:
        found = rng.standard_normal(shape)
        found[:, -1] *= times
        return found / max(1.0, times / 2)  # the control's mean stays clear of 0

    return draw


def _bounded(rng: np.random.Generator, shape: tuple[int, int, int]) -> Values:
    """Shares of 1,000 items near the floor, less their mean."""
    return (rng.binomial(1000, np.clip(0.01 + 0.004 * rng.standard_normal(shape), 0, 1)) - 10.0) / 5


def _log_normal(rng: np.random.Generator, shape: tuple[int, int, int]) -> Values:
    found: Values = np.exp(rng.normal(0, 0.5, shape))
    return (found - np.exp(0.125)) / np.sqrt((np.exp(0.25) - 1) * np.exp(0.25))


def _crashes(rng: np.random.Generator, shape: tuple[int, int, int]) -> Values:
    """One trial in ten is lost."""
    return np.where(rng.random(shape) < 0.1, np.nan, rng.standard_normal(shape))


WORLDS: dict[str, World] = {
    "normal": _normal, "Student's t, 3 degrees": _t3, "pools' noise differs (× 0.4 … 2.7)": _heteroscedastic,
    "control × 3": _noisy_control(3), "control × 5": _noisy_control(5), "bounded, near the floor": _bounded,
    "log-normal": _log_normal, "a tenth of trials lost": _crashes,
}  # fmt: skip


def table(values: Values, seeds: Sequence[int]) -> dict[str, dict[int, dict[str, float | None]]]:
    """(pools, seeds) scores as evidence reads them; seeds: how many each pool has. The last pool is the control."""
    last = len(values) - 1
    return {
        "control" if i == last else f"p{i:02}": {
            s: {METRIC.name: float(v)} for s, v in enumerate(row[: seeds[i]]) if not np.isnan(v)
        }
        for i, row in enumerate(values)
    }  # fmt: skip


def drawn(world: World, rng: np.random.Generator, studies: int, pools: int, seeds: int, common: float) -> Values:
    """(studies, pools + 1, seeds) scores of pools that differ in nothing, the control's mean 100."""
    shared = common * NOISE * rng.standard_normal((studies, 1, seeds))
    return 100 + shared + NOISE * world(rng, (studies, pools + 1, seeds))


def judged(values: Values, seeds: int, control: int, **options: Any) -> list[Effect]:
    """A study at a number of seeds."""
    pools = len(values) - 1
    runs = table(values, [*[seeds] * pools, control])
    return effects(runs, {p: "control" for p in runs if p != "control"}, [METRIC], **options)


def main() -> None:
    """Print the tables."""


if __name__ == "__main__":
    main()

"""How much a result varies from seed to seed, as the control has shown it."""

from __future__ import annotations

import math

import numpy as np

from engine.journal import metrics, pools
from engine.study.view import StudyView

FEWEST = 3  # seeds of a control that its noise is told from
SHORTER = 0.4  # a run that ends at a share s of its steps is s^-0.4 times as noisy, as measured on two recorded worlds


def seed_noise(view: StudyView) -> float | None:
    """A seed's standard deviation of a whole training, in percent of the control's mean; None where too little ran."""
    table = metrics.by_pool(view.store, view.setup, False, view.study.stages)
    kinds = {p.key: p.kind for p in pools.trained(view.store, view.setup)}
    found: list[tuple[int, float]] = []
    for key, kind in kinds.items():
        runs = table.get(key, {})
        if kind != "control" or len(runs) < FEWEST:
            continue
        values = np.array([[math.nan if (v := at.get(m.name)) is None else v for m in view.main_metrics]
                           for at in runs.values()], np.float64)  # fmt: skip
        mean = values.mean(0)
        sound = np.isfinite(mean) & (np.abs(mean) > 1e-9)
        if sound.any():
            gains = 100 * (values[:, sound] / mean[sound]).mean(1)
            found.append((len(runs), float(gains.std(ddof=1)) * (key[1] / key[2]) ** SHORTER))
    if not found:
        return None
    weights = np.array([n - 1 for n, _ in found])
    return float(np.sqrt(weights @ np.array([s**2 for _, s in found]) / weights.sum()))

"""The table curve_points: what trials report while they train. None stands for a value that is not a number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.journal.store import Store

MOST = 1000  # points of a curve


@dataclass(frozen=True)
class CurvePoint:
    """name: of the value, e.g. loss. step: optimiser steps done."""

    name: str
    step: int
    value: float | None


@dataclass(frozen=True)
class PoolPoint:
    """A point of a trial's curve. pool, seed: the trial's. step: optimiser steps done."""

    pool: str
    seed: int
    step: int
    value: float


@dataclass(frozen=True)
class Step:
    """What a trial reports at a step."""

    trial: str
    step: int
    values: Mapping[str, float]


def add(store: Store, steps: Sequence[Step]) -> None:
    """Write the values of steps. Where a trial has more than MOST of a curve then, half as many stay, evenly spread."""
    store.put(
        "curve_points",
        [
            {"trial": s.trial, "name": n, "step": s.step, "value": v if math.isfinite(v) else None}
            for s in steps
            for n, v in s.values.items()
        ],
    )
    for trial in {s.trial for s in steps}:
        store.execute(
            "WITH points AS (SELECT rowid AS point, name, step, count(*) OVER one AS n, min(step) OVER one AS low, "
            "max(step) OVER one AS high FROM curve_points WHERE trial = ? WINDOW one AS (PARTITION BY name)), "
            "parts AS (SELECT point, step, high, row_number() OVER (PARTITION BY name, "
            "CAST((step - low) * ? / (high - low + 1.0) AS INTEGER) ORDER BY step) AS place FROM points WHERE n > ?) "
            "DELETE FROM curve_points WHERE rowid IN (SELECT point FROM parts WHERE place > 1 AND step < high)",
            (trial, MOST // 2, MOST),
        )


def of_trial(store: Store, trial: str) -> list[CurvePoint]:
    """All points of a trial, by name and step."""
    sql = "SELECT name, step, value FROM curve_points WHERE trial = ? ORDER BY name, step"
    return [CurvePoint(**row) for row in store.query(sql, (trial,))]


def curve(store: Store, trial: str, name: str, last: int = -1) -> list[CurvePoint]:
    """One curve of a trial, by step. last: so many points at most; -1: all."""
    sql = "SELECT name, step, value FROM curve_points WHERE trial = ? AND name = ? ORDER BY step DESC LIMIT ?"
    return [CurvePoint(**row) for row in store.query(sql, (trial, name, last))][::-1]


def names(store: Store, trial: str) -> list[str]:
    """The names of a trial's curves, sorted."""
    rows = store.query("SELECT DISTINCT name FROM curve_points WHERE trial = ? ORDER BY name", (trial,))
    return [row["name"] for row in rows]


def first_name(store: Store, setup: str) -> str | None:
    """The curve to draw of a setup's trials: the loss, where there is one."""
    row = store.one(
        "SELECT c.name FROM curve_points c JOIN trials t ON t.id = c.trial WHERE t.setup = ? "
        "ORDER BY c.name != 'loss', c.name LIMIT 1",
        (setup,),
    )
    return row["name"] if row else None


def of_pools(store: Store, setup: str, samples: int, name: str, pools: tuple[str, str]) -> list[PoolPoint]:
    """One curve of the finished trials of two pools in a setup, by seed and step, without what is no number."""
    rows = store.query(
        "SELECT t.pool, t.seed, c.step, c.value FROM curve_points c JOIN trials t ON t.id = c.trial "
        "WHERE t.setup = ? AND t.state = 'COMPLETE' AND t.samples = ? AND c.name = ? AND t.pool IN (?, ?) "
        "AND c.value IS NOT NULL ORDER BY t.seed, c.step",
        (setup, samples, name, *pools),
    )
    return [PoolPoint(**row) for row in rows]

"""The pools that a pipeline ranked, with what is known of chance: seeds, control, intervals; or that nothing is."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from statistics import fmean, stdev

from engine.data.readers.pool_rows import ROWS
from engine.evidence.claims import Looks
from engine.evidence.effects import effects
from engine.journal.jobs import PoolScore
from engine.pools.control import is_control
from engine.records.metric import Metric, direction

SINGLE = "single runs: how much of a difference is chance is not known; `seeds: 3` in the file tells"
LONE = "no control: `control: true` in the file adds a random pool to compare with"


@dataclass(frozen=True)
class Ranked:
    """A pool. means, deviations: of its metrics over the seeds. change and what follows it: against the control."""

    pool: str
    seeds: int
    means: dict[str, float | None]
    deviations: dict[str, float | None]
    change: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    verdict: str | None = None


@dataclass(frozen=True)
class Board:
    """What one ranking job compared, best first, a control last. notes: what is not known."""

    variant: int
    iteration: int
    place: int
    rows: tuple[Ranked, ...]
    notes: tuple[str, ...]


def boards(scores: Sequence[PoolScore]) -> list[Board]:
    """A board of each ranking job, in the order of the run."""
    keys = dict.fromkeys((s.variant, s.iteration, s.place) for s in scores)
    return [_board(key, [s for s in scores if (s.variant, s.iteration, s.place) == key]) for key in keys]


def last_boards(scores: Sequence[PoolScore]) -> list[Board]:
    """Those of the last iteration of each variant."""
    found = boards(scores)
    last = {board.variant: board.iteration for board in found}
    return [board for board in found if board.iteration == last[board.variant]]


def _board(key: tuple[int, int, int], scores: Sequence[PoolScore]) -> Board:
    labels = list(dict.fromkeys(s.label for s in scores))
    metrics = list(dict.fromkeys(s.name for s in scores))
    table: dict[str, dict[int, dict[str, float | None]]] = {label: {} for label in labels}
    for s in scores:
        table[s.label].setdefault(s.seed, {})[s.name] = s.value
    rows = {label: _row(label, table[label], metrics) for label in labels}
    notes = [SINGLE] if max(len(runs) for runs in table.values()) < 2 else []
    control = next((label for label in labels if is_control(label)), None)
    if control is None:
        best_first = sorted(rows.values(), key=lambda row: -_above(row, rows.values()))
        return Board(*key, tuple(best_first), (*notes, LONE))
    seeds = len(table[control])
    sound = [Metric(name, direction(name) is not False, -math.inf, math.inf) for name in metrics]
    found = effects(
        table, {label: control for label in labels if label != control}, sound, aggregate="mean-of-changes",
        confidence=0.95, looks=Looks((max(2, seeds),)),
    )  # fmt: skip
    ranked = [
        Ranked(r.pool, r.seeds, r.means, r.deviations, e.change, e.ci_low, e.ci_high, e.verdict)
        for e in found for r in (rows[e.pool],)
    ]  # fmt: skip
    return Board(*key, (*ranked, rows[control]), tuple(notes))


def _above(row: Ranked, every: Collection[Ranked]) -> float:
    """How far a pool lies above the mean of all, as a share of that, on average over its metrics."""
    shares = []
    for name, value in row.means.items():
        middle = fmean([v for other in every if (v := other.means[name]) is not None] or [0.0])
        if value is not None:
            sign = -1 if direction(name) is False else 1
            shares.append(sign * (value - middle) / (abs(middle) or 1.0))
    return fmean(shares) if shares else -math.inf


def _row(label: str, runs: dict[int, dict[str, float | None]], metrics: Sequence[str]) -> Ranked:
    means: dict[str, float | None] = {}
    deviations: dict[str, float | None] = {}
    for name in metrics:
        values = [v for run in runs.values() if (v := run.get(name)) is not None]
        means[name] = fmean(values) if values else None
        deviations[name] = stdev(values) if len(values) > 1 else None
    return Ranked(label, len(runs), means, deviations)


def short(label: str) -> str:
    """A pool's path as people read it."""
    return PurePath(label).name.removesuffix(ROWS).rpartition(".")[0] or label

"""Two studies' leaderboards side by side: what each says of the same pools, how the studies differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.evidence.ranking import Ranked, rank
from engine.journal import setups
from engine.records.pool import Pool
from engine.study.neighbours import dataset_of
from engine.study.setting import every_difference, shown
from engine.study.view import StudyView


@dataclass(frozen=True)
class Side:
    """What one study says of a pool: percent of its own control. share: part of a whole training."""

    pool: str
    change: float | None
    ci_low: float | None
    ci_high: float | None
    bound: float | None
    verdict: str
    seeds: int
    size: int
    share: float


@dataclass(frozen=True)
class Pair:
    """A pool in both studies, or in one of them.

    match: same: slices of the same bounds; label: of the same name, with other bounds; only a, only b.
    bounds: the slices in each study, where they differ.
    """

    label: str
    match: str
    a: Side | None
    b: Side | None
    bounds: tuple[str, str] | None = None


@dataclass(frozen=True)
class Compared:
    """Two studies. differs: a line a setting. warnings: why their changes are not to be compared. cautions: what else
    to mind.
    """

    a: str
    b: str
    warnings: tuple[str, ...]
    cautions: tuple[str, ...]
    differs: tuple[str, ...]
    pairs: tuple[Pair, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """As `djsb compare --json` prints it."""
        return {**asdict(self), "comparable": not self.warnings}


def compare(a: StudyView, b: StudyView) -> Compared:
    """The leaderboards of two studies, matched by what their pools keep, then by label; best of the first first."""
    a, b = shown(a)[0], shown(b)[0]
    differs = (*_differs(a, b), *every_difference(a.study, b.study))
    found = tuple(pairs(rank(a), rank(b)))
    return Compared(a.study.name, b.study.name, _warnings(a, b), _cautions(a, b), differs, found)


def pairs(left: Sequence[Ranked], right: Sequence[Ranked]) -> list[Pair]:
    """Each pool once, with its like in the other study where there is one."""
    by_content = {kept(r.pool): r for r in reversed(right)}
    by_label = {r.label: r for r in reversed(right)}
    exact = {kept(r.pool) for r in left} & by_content.keys()
    found, taken = [], set()
    for own in left:
        key = kept(own.pool)
        other = by_content.get(key)
        match, bounds = "same", None
        if other is None or other.pool.id in taken:
            other = by_label.get(own.label)
            if other is None or kept(other.pool) in exact or other.pool.id in taken:
                found.append(Pair(own.label, "only a", _side(own), None))
                continue
            match, bounds = "label", (_bounds(own.pool), _bounds(other.pool))
        taken.add(other.pool.id)
        found.append(Pair(own.label, match, _side(own), _side(other), bounds))
    return found + [Pair(r.label, "only b", None, _side(r)) for r in right if r.pool.id not in taken]


def kept(pool: Pool) -> tuple[Any, ...]:
    """What two pools have in common that keep the same rows of the same data, whatever their size and seed."""
    return pool.layers, pool.repetition, pool.mappers, pool.max_repeats


def _bounds(pool: Pool) -> str:
    return "; ".join(str(s) for layer in pool.layers for s in layer.slices) or "all rows"


def _side(r: Ranked) -> Side:
    e = r.effect
    return Side(
        r.pool.id, e.change, e.ci_low, e.ci_high, e.bound, e.verdict, e.seeds, r.pool.size, r.share
    )  # fmt: skip


def _warnings(a: StudyView, b: StudyView) -> tuple[str, ...]:
    """Why changes in percent do not mean the same in both."""
    found = []
    if a.study.task != b.study.task:
        found.append(f"other tasks: {a.study.task or 'none'} and {b.study.task or 'none'}")
    metrics = [sorted(m.name for m in view.main_metrics) for view in (a, b)]
    if metrics[0] != metrics[1]:
        found.append(f"other metrics count: {', '.join(metrics[0]) or 'none'} and {', '.join(metrics[1]) or 'none'}")
    held = [_evaluation(view) for view in (a, b)]
    if held[0] != held[1]:
        found.append("judged on other evaluation rows")
    if dataset_of(a) != dataset_of(b):
        found.append("other data: pools of the same name keep other rows, and their controls are other samples")
    return tuple(found)


def _cautions(a: StudyView, b: StudyView) -> tuple[str, ...]:
    """What to mind where both are judged alike."""
    found = []
    if a.study.model != b.study.model:
        found.append("other models: an effect on one may not hold on the other")
    if _length(a) != _length(b):
        own = [f"{view.study.train.epochs:g} epochs of {_rows(view)} rows" for view in (a, b)]
        found.append(f"other lengths of training: {own[0]}, and {own[1]}")
    return tuple(found)


def _differs(a: StudyView, b: StudyView) -> list[str]:
    sizes = [_rows(view) for view in (a, b)]
    found = [] if sizes[0] == sizes[1] else [f"rows of a pool {sizes[0]} → {sizes[1]}"]
    return found + ["evaluation rows of other content"] * (_evaluation(a) != _evaluation(b))


def _evaluation(view: StudyView) -> str | None:
    found = setups.get(view.store, view.setup)
    return found.evaluation if found else None


def _rows(view: StudyView) -> str:
    sizes = sorted({r.pool.size for r in rank(view)})
    return ", ".join(f"{size:,}" for size in sizes) or "none"


def _length(view: StudyView) -> tuple[Any, ...]:
    train = view.study.train
    return train.epochs, _rows(view)

"""Which items of the evaluation a trial is judged on: the search's, or those held back for the confirmation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import DataError
from engine.data.held_back import held_back, keys_of
from engine.settings.study import Study
from engine.tasks.contract import Part


@dataclass(frozen=True)
class _Judged:
    part: Part = "all"
    share: float = 0.0
    seed: int = 0
    rows: Path | None = None


ALL = _Judged()
_judged: ContextVar[_Judged] = ContextVar("judged", default=ALL)


@contextmanager
def judged_on(study: Study, part: Part, rows: str | None) -> Iterator[None]:
    """Within the block models are judged on a part of the evaluation. rows: file with the mask of its rows."""
    token = _judged.set(_Judged(part, study.evaluation.held_back, study.seed, Path(rows) if rows else None))
    try:
        yield
    finally:
        _judged.reset(token)


def judged_rows(good: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Numbers of the rows of evaluation.path that count. good: (rows,) those that may."""
    rows = _judged.get().rows
    return _some(np.flatnonzero(good if rows is None else good & np.load(rows)), "rows")


def judged_items(names: Sequence[str]) -> NDArray[np.int64]:
    """Places of the items that count. names: what tells each from the others, wherever it stands."""
    now = _judged.get()
    if now.part == "all":
        return np.arange(len(names))
    back = held_back(keys_of(names), now.share, now.seed)
    return _some(np.flatnonzero(back if now.part == "held back" else ~back), "items")


def _some(places: NDArray[np.int64], what: str) -> NDArray[np.int64]:
    part = _judged.get().part
    if not len(places) and part != "all":
        side = "is held back" if part == "held back" else "is left for the search"
        raise DataError(f"evaluation.held_back: too few {what} to judge by, none {side}; give more, or write 0")
    return places

"""A checkpoint's stored scores of the rows, as a statistic."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.base.confine import inside
from engine.base.durable import is_whole
from engine.base.errors import PoolError
from engine.data.cuts import Column, RowMask, StatisticColumn, Values
from engine.journal import results
from engine.journal.store import Store
from engine.records.pool import MODEL_SCORE


def columns(store: Store, setup: str, state: Path, scanned: RowMask) -> list[StatisticColumn]:
    """The statistic of a cycle's checkpoint, once it is there; NaN where the model had nothing to score.

    scanned: (rows,) those not quarantined.
    """
    stored = results.MODEL_SCORES.get(store, setup)
    if stored is None or stored.file is None or stored.statistic is None:
        return []
    if not is_whole(_file(state, stored.file), sums=True):
        return []  # engine/loop/model_scores.py makes it again
    params = (("checkpoint", stored.trial),)
    return [StatisticColumn(MODEL_SCORE, stored.statistic, params, _column(state, stored.file, scanned))]


def scored(store: Store, checkpoint: str, state: Path, scanned: RowMask) -> Column:
    """What the checkpoint of a trial made of the rows, in whatever cycle it did.

    Raises: PoolError when that is not in the cache.
    """
    file = results.scores_file(store, checkpoint)
    if file is None or not is_whole(_file(state, file), sums=True):
        raise PoolError(f"the rows' scores by trial {checkpoint} are not in the cache; djsb auto makes them again")
    return _column(state, file, scanned)


def _file(state: Path, name: str) -> Path:
    return inside(state, f"cache/{name}")


def _column(state: Path, name: str, scanned: RowMask) -> Column:
    scores: Values = np.load(_file(state, name))
    values = np.where(scanned, scores, np.nan).round(10)
    return Column(values, values)

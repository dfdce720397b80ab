"""A checkpoint's stored scores of the rows, as a statistic."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import PoolError
from engine.data.cuts import StatisticColumn
from engine.records.pool import FEEDBACK, Column
from engine.study.opened import OpenStudy

RESULT = "feedback"


def columns(opened: OpenStudy) -> list[StatisticColumn]:
    """The statistic of this cycle's checkpoint, once it is there; NaN where the model had nothing to score."""
    found = opened.store.result(opened.context, RESULT)
    if not opened.study.pools.feedback or found is None or found["file"] is None:
        return []
    if not (opened.state / "cache" / found["file"]).exists():
        return []  # `begin` or `after` makes it again
    params: tuple[tuple[str, Any], ...] = (("checkpoint", found["trial"]),)
    return [StatisticColumn(FEEDBACK, found["statistic"], params, _column(opened, found["file"]))]


def scored(opened: OpenStudy, checkpoint: str) -> Column:
    """What the checkpoint of a trial made of the rows, in whatever cycle it did.

    Raises: PoolError when that is not in the cache.
    """
    row = opened.store.one(
        "SELECT json_extract(content, '$.file') AS file FROM results WHERE name = ? "
        "AND json_extract(content, '$.trial') = ? AND json_extract(content, '$.file') IS NOT NULL",
        (RESULT, checkpoint),
    )
    if row is None or not (opened.state / "cache" / row["file"]).exists():
        raise PoolError(f"the rows' scores by trial {checkpoint} are not in the cache; djsb auto makes them again")
    return _column(opened, row["file"])


def _column(opened: OpenStudy, name: str) -> Column:
    scores: NDArray[np.float64] = np.load(opened.state / "cache" / name)
    values = np.where(opened.scanned.good, scores, np.nan).round(10)
    return Column(values, values)

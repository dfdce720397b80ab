"""Type `data_pool_combination`: all intersections of ranked pools, as `PREFIX_top_0_2_num_123.jsonl`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from engine.pipeline.contract import Context, Takes
from engine.pipeline.work.over_pools import OverPools, Written
from engine.pools.combine import MOST, combine


class Extra(Written):
    """Its keys. min_num_samples: rows of a combination that is written."""

    min_num_samples: int = Field(1, ge=1)
    max_combinations: int = Field(MOST, ge=1)


class Combination(OverPools[Extra]):
    """See `engine.pools.combine`."""

    name = "data_pool_combination"
    settings = Takes[Extra]

    def make(self, keys: Extra, sources: Sequence[Path], out: Path, context: Context) -> Sequence[Path]:
        """See OverPools."""
        return combine(sources, out, keys.min_num_samples, keys.max_combinations, keys.form, context.say)


COMPONENTS = (Combination(),)

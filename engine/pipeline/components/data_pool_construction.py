"""Type `data_pool_construction`: analysed rows cut by each statistic, as `STAT/NAME_STAT_I.jsonl`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from engine.pipeline.contract import Context, Takes
from engine.pipeline.work.over_pools import OverPools, Written
from engine.pools.construct import THIRDS, construct
from engine.pools.control import controls


class Extra(Written):
    """Its keys. control: with a random pool of each file."""

    split_ratios: list[float | str] = Field(list(THIRDS), min_length=1)
    split_num: int | None = Field(None, ge=1)
    ignore_stats: bool = False
    control: bool = False


class Construction(OverPools[Extra]):
    """See `engine.pools.construct`."""

    name = "data_pool_construction"
    settings = Takes[Extra]

    def make(self, keys: Extra, sources: Sequence[Path], out: Path, context: Context) -> Sequence[Path]:
        """See OverPools."""
        made = construct(sources, out, keys.split_ratios, keys.split_num, keys.ignore_stats, keys.form, context.say)
        return made + (controls(sources, made, out, keys.form) if keys.control else [])


COMPONENTS = (Construction(),)

"""Type `data_pool_duplication`: each pool N times over, as `NAME_xN.jsonl`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from engine.pipeline.contract import Context, Takes
from engine.pipeline.work.over_pools import OverPools, Written
from engine.pools.resize import SEED, duplicate

Times = Annotated[int, Field(ge=1, le=10_000)]


class Extra(Written):
    """Its keys."""

    duplicating_times: list[Times] = Field(min_length=1)
    shuffle: bool = False
    shuffle_seed: int = SEED


class Duplication(OverPools[Extra]):
    """See `engine.pools.resize`."""

    name = "data_pool_duplication"
    settings = Takes[Extra]

    def make(self, keys: Extra, sources: Sequence[Path], out: Path, context: Context) -> Sequence[Path]:
        """See OverPools."""
        return duplicate(sources, out, keys.duplicating_times, keys.shuffle, keys.shuffle_seed, keys.form)


COMPONENTS = (Duplication(),)

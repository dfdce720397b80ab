"""Type `data_pool_downsampling`: pools cut to one size at random, as `NAME_SIZE.jsonl`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from engine.pipeline.contract import Context, Takes
from engine.pipeline.work.over_pools import OverPools, Written
from engine.pools.resize import SEED, downsample


class Extra(Written):
    """Its keys. seed is another name of shuffle_seed."""

    target_num_samples: int | None = Field(None, ge=1)
    shuffle_seed: int | None = None
    seed: int | None = None


class Downsampling(OverPools[Extra]):
    """See `engine.pools.resize`."""

    name = "data_pool_downsampling"
    settings = Takes[Extra]

    def make(self, keys: Extra, sources: Sequence[Path], out: Path, context: Context) -> Sequence[Path]:
        """See OverPools."""
        seed = next((seed for seed in (keys.shuffle_seed, keys.seed) if seed is not None), SEED)
        return downsample(sources, out, keys.target_num_samples, seed, keys.form, context.say)


COMPONENTS = (Downsampling(),)

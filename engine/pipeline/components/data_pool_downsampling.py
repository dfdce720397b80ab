"""Type `data_pool_downsampling`: pools cut to one size at random, as `NAME_SIZE.jsonl`."""

from __future__ import annotations

from pydantic import Field

from engine.pipeline.contract import Component, Context, Done, Group, Paths, Settings
from engine.pipeline.hooks import POOLS
from engine.pools.files import Form
from engine.pools.resize import SEED, downsample


class Extra(Group):
    """Its keys. seed is another name of shuffle_seed. form: see data_pool_construction."""

    dataset_path: Paths = Field(min_length=1)
    export_path: str
    target_num_samples: int | None = Field(None, ge=1)
    shuffle_seed: int | None = None
    seed: int | None = None
    form: Form = "rows"


class Keys(Settings):
    """See Settings."""

    extra_configs: Extra  # type: ignore[assignment]


class Downsampling(Component[Keys]):
    """See `engine.pools.resize`."""

    name = "data_pool_downsampling"
    hooks = frozenset({POOLS})
    settings = Keys
    gives = ("paths",)
    read_keys = ("extra_configs.dataset_path",)
    write_keys = ("extra_configs.export_path",)

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        sources, out = [context.path(name) for name in keys.dataset_path], context.path(keys.export_path)
        seed = next((seed for seed in (keys.shuffle_seed, keys.seed) if seed is not None), SEED)
        made = downsample(sources, out, keys.target_num_samples, seed, keys.form, context.say)
        return Done([[str(path) for path in made]])


COMPONENTS = (Downsampling(),)

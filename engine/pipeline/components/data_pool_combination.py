"""Type `data_pool_combination`: all intersections of ranked pools, as `PREFIX_top_0_2_num_123.jsonl`."""

from __future__ import annotations

from pydantic import Field

from engine.pipeline.contract import Component, Context, Done, Group, Paths, Settings
from engine.pipeline.hooks import POOLS
from engine.pools.combine import MOST, combine
from engine.pools.files import Form


class Extra(Group):
    """Its keys. min_num_samples: rows of a combination that is written. form: see data_pool_construction."""

    dataset_path: Paths = Field(min_length=1)
    export_path: str
    min_num_samples: int = Field(1, ge=1)
    max_combinations: int = Field(MOST, ge=1)
    form: Form = "rows"


class Keys(Settings):
    """See Settings."""

    extra_configs: Extra  # type: ignore[assignment]


class Combination(Component[Keys]):
    """See `engine.pools.combine`."""

    name = "data_pool_combination"
    hooks = frozenset({POOLS})
    settings = Keys
    gives = ("paths",)
    read_keys = ("extra_configs.dataset_path",)
    write_keys = ("extra_configs.export_path",)

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        sources, out = [context.path(name) for name in keys.dataset_path], context.path(keys.export_path)
        made = combine(sources, out, keys.min_num_samples, keys.max_combinations, keys.form, context.say)
        return Done([[str(path) for path in made]])


COMPONENTS = (Combination(),)

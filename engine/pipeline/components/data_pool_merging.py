"""Type `data_pool_merging`: pools one after the other, as `PREFIX_merged.jsonl`."""

from __future__ import annotations

from engine.pipeline.contract import Component, Context, Done, Takes
from engine.pipeline.hooks import POOLS
from engine.pipeline.work.over_pools import Written
from engine.pools.join import merge

Keys = Takes[Written]


class Merging(Component[Keys]):
    """See `engine.pools.join`."""

    name = "data_pool_merging"
    hooks = frozenset({POOLS})
    settings = Keys
    gives = ("path",)
    read_keys = ("extra_configs.dataset_path",)
    write_keys = ("extra_configs.export_path",)

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        made = merge([context.path(name) for name in keys.dataset_path], context.path(keys.export_path), keys.form)
        return Done([str(made)])


COMPONENTS = (Merging(),)

"""Type `data_pool_merging`: pools one after the other, as `PREFIX_merged.jsonl`."""

from __future__ import annotations

from pydantic import Field

from engine.pipeline.contract import Component, Context, Done, Group, Paths, Settings
from engine.pipeline.hooks import POOLS
from engine.pools.files import Form
from engine.pools.join import merge


class Extra(Group):
    """Its keys. form: see data_pool_construction."""

    dataset_path: Paths = Field(min_length=1)
    export_path: str
    form: Form = "rows"


class Keys(Settings):
    """See Settings."""

    extra_configs: Extra  # type: ignore[assignment]


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

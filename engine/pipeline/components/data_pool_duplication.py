"""Type `data_pool_duplication`: each pool N times over, as `NAME_xN.jsonl`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from engine.pipeline.contract import Component, Context, Done, Group, Paths, Settings
from engine.pipeline.hooks import POOLS
from engine.pools.files import Form
from engine.pools.resize import SEED, duplicate

Times = Annotated[int, Field(ge=1, le=10_000)]


class Extra(Group):
    """Its keys. form: see data_pool_construction."""

    dataset_path: Paths = Field(min_length=1)
    export_path: str
    duplicating_times: list[Times] = Field(min_length=1)
    shuffle: bool = False
    shuffle_seed: int = SEED
    form: Form = "rows"


class Keys(Settings):
    """See Settings."""

    extra_configs: Extra  # type: ignore[assignment]


class Duplication(Component[Keys]):
    """See `engine.pools.resize`."""

    name = "data_pool_duplication"
    hooks = frozenset({POOLS})
    settings = Keys
    gives = ("paths",)
    read_keys = ("extra_configs.dataset_path",)
    write_keys = ("extra_configs.export_path",)

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        sources, out = [context.path(name) for name in keys.dataset_path], context.path(keys.export_path)
        made = duplicate(sources, out, keys.duplicating_times, keys.shuffle, keys.shuffle_seed, keys.form)
        return Done([[str(path) for path in made]])


COMPONENTS = (Duplication(),)

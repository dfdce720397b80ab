"""Type `data_pool_construction`: analysed rows cut by each statistic, as `STAT/NAME_STAT_I.jsonl`."""

from __future__ import annotations

from pydantic import Field

from engine.pipeline.contract import Component, Context, Done, Group, Paths, Settings
from engine.pipeline.hooks import POOLS
from engine.pools.construct import THIRDS, construct
from engine.pools.control import controls
from engine.pools.files import Form


class Extra(Group):
    """Its keys. control: with a random pool of each file. form: rows writes which rows a pool has, jsonl the rows."""

    dataset_path: Paths = Field(min_length=1)
    export_path: str
    split_ratios: list[float | str] = Field(list(THIRDS), min_length=1)
    split_num: int | None = Field(None, ge=1)
    ignore_stats: bool = False
    control: bool = False
    form: Form = "rows"


class Keys(Settings):
    """See Settings."""

    extra_configs: Extra  # type: ignore[assignment]


class Construction(Component[Keys]):
    """See `engine.pools.construct`."""

    name = "data_pool_construction"
    hooks = frozenset({POOLS})
    settings = Keys
    gives = ("paths",)
    read_keys = ("extra_configs.dataset_path",)
    write_keys = ("extra_configs.export_path",)

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        sources, out = [context.path(name) for name in keys.dataset_path], context.path(keys.export_path)
        made = construct(sources, out, keys.split_ratios, keys.split_num, keys.ignore_stats, keys.form, context.say)
        made += controls(sources, made, out, keys.form) if keys.control else []
        return Done([[str(path) for path in made]])


COMPONENTS = (Construction(),)

"""Type `data_pool_cartesian_join`: every row of one pool with every row of another, for all pairs of pools."""

from __future__ import annotations

from pydantic import Field

from engine.pipeline.contract import Component, Context, Done, Group, Paths, Takes
from engine.pipeline.hooks import POOLS
from engine.pools.join import join


class Extra(Group):
    """Its keys."""

    dataset_path_1: Paths = Field(min_length=1)
    dataset_path_2: Paths = Field(min_length=1)
    export_path: str


Keys = Takes[Extra]


class CartesianJoin(Component[Keys]):
    """See `engine.pools.join`."""

    name = "data_pool_cartesian_join"
    hooks = frozenset({POOLS})
    settings = Keys
    gives = ("paths",)
    read_keys = ("extra_configs.dataset_path_1", "extra_configs.dataset_path_2")
    write_keys = ("extra_configs.export_path",)

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        left, right = ([context.path(n) for n in names] for names in (keys.dataset_path_1, keys.dataset_path_2))
        return Done([[str(path) for path in join(left, right, context.path(keys.export_path))]])


COMPONENTS = (CartesianJoin(),)

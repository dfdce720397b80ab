"""Type `data_pool_ranking`: pools in the order of their evaluation, best first."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from engine.pipeline.contract import Component, Context, Done, Group, Paths, Settings
from engine.pipeline.hooks import GENERAL_PROBE, POOLS
from engine.pools.rank import rank


class Extra(Group):
    """Its keys. metrics: of each pool a number or a mapping, in which the dotted ranking_keys name numbers."""

    dataset_path: Paths = Field(min_length=1)
    metrics: Any
    ranking_keys: Paths = Field(default_factory=list)
    descending: bool = True
    top_n: int | None = Field(None, ge=1)


class Keys(Settings):
    """See Settings."""

    extra_configs: Extra  # type: ignore[assignment]


class Ranking(Component[Keys]):
    """See `engine.pools.rank`."""

    name = "data_pool_ranking"
    hooks = frozenset({GENERAL_PROBE, POOLS})
    settings = Keys
    gives = ("paths",)
    read_keys = ("extra_configs.dataset_path",)

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        found = rank(keys.dataset_path, keys.metrics, keys.ranking_keys, keys.descending, keys.top_n, context.say)
        return Done([found])


COMPONENTS = (Ranking(),)

"""Type `data_pool_ranking`: pools in the order of their evaluation, best first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from engine.pipeline.contract import Component, Context, Done, Group, Paths, Takes
from engine.pipeline.hooks import GENERAL_PROBE, POOLS
from engine.pipeline.values import number
from engine.pools.control import is_control
from engine.pools.rank import rank


class Extra(Group):
    """Its keys. metrics: of each pool a number or a mapping, in which the dotted ranking_keys name numbers."""

    dataset_path: Paths = Field(min_length=1)
    metrics: Any
    ranking_keys: Paths = Field(default_factory=list)
    descending: bool = True
    top_n: int | None = Field(None, ge=1)


Keys = Takes[Extra]


class Ranking(Component[Keys]):
    """See `engine.pools.rank`."""

    name = "data_pool_ranking"
    hooks = frozenset({GENERAL_PROBE, POOLS})
    settings = Keys
    gives = ("paths",)
    read_keys = ("extra_configs.dataset_path",)
    over_seeds = True

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        found = rank(keys.dataset_path, keys.metrics, keys.ranking_keys, keys.descending, None, context.say)
        return Done([[pool for pool in found if not is_control(pool)][: keys.top_n]])

    def scores(self, groups: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
        """See Component."""
        extra = groups["extra_configs"]
        pools, metrics = ([v] if isinstance(v, str | dict) else v for v in (extra["dataset_path"], extra["metrics"]))
        if not isinstance(metrics, list | tuple) or len(metrics) != len(pools):
            return {}  # its run says what is wrong
        return {pool: dict(_numbers(metric)) for pool, metric in zip(pools, metrics, strict=True)}


def _numbers(metric: Any, name: str = "") -> Iterator[tuple[str, float | None]]:
    """(dotted name, value) of all numbers; of what is none but stands in a number's place, None."""
    if isinstance(metric, Mapping):
        for key, value in metric.items():
            yield from _numbers(value, f"{name}.{key}" if name else str(key))
    elif not isinstance(metric, str | list | tuple):
        yield name or "score", number(metric)


COMPONENTS = (Ranking(),)

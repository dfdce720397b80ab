"""What manipulations of pools have in common: pools are read, pools are written, their paths are given."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

from engine.pipeline.contract import Component, Context, Done, Files, Takes
from engine.pipeline.hooks import POOLS
from engine.pools.files import Form


class Written(Files):
    """Keys of all. form: rows writes which rows a pool has, jsonl the rows."""

    form: Form = "rows"


E = TypeVar("E", bound=Written)


class OverPools(Component[Takes[E]], Generic[E]):
    """A manipulation of pools."""

    hooks = frozenset({POOLS})
    gives = ("paths",)
    read_keys = ("extra_configs.dataset_path",)
    write_keys = ("extra_configs.export_path",)

    @abstractmethod
    def make(self, keys: E, sources: Sequence[Path], out: Path, context: Context) -> Sequence[Path]:
        """Write the pools into a folder; their paths."""

    def run(self, settings: Takes[E], context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        made = self.make(
            keys, [context.path(name) for name in keys.dataset_path], context.path(keys.export_path), context
        )
        return Done([[str(path) for path in made]])

"""Type `data_pool_duplication`: each pool N times over, as `NAME_xN.jsonl`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from engine.base.durable import replaced
from engine.pipeline.contract import Component, ComponentError, Context, Done, Group, Paths, Settings
from engine.pipeline.hooks import POOLS

Times = Annotated[int, Field(ge=1, le=10_000)]


class Extra(Group):
    """Its keys."""

    dataset_path: Paths = Field(min_length=1)
    export_path: str
    duplicating_times: list[Times] = Field(min_length=1)
    shuffle: bool = False
    shuffle_seed: int = 42


class Keys(Settings):
    """See Settings."""

    extra_configs: Extra  # type: ignore[assignment]


class Duplication(Component[Keys]):
    """The lines of each file are copied as they are."""

    name = "data_pool_duplication"
    hooks = frozenset({POOLS})
    settings = Keys
    gives = ("paths",)
    read_keys = ("extra_configs.dataset_path",)
    write_keys = ("extra_configs.export_path",)

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        targets = []
        for source in map(context.file, keys.dataset_path):
            for times in keys.duplicating_times:
                target = context.target(keys.export_path, f"{source.stem}_x{times}.jsonl")
                if target in targets:
                    raise ComponentError(f"{context.job}: two pools would be written to {target}; rename one of them")
                _write(source, target, times, np.random.default_rng(keys.shuffle_seed) if keys.shuffle else None)
                targets.append(target)
        return Done([[str(target) for target in targets]])


def _write(source: Path, target: Path, times: int, rng: np.random.Generator | None) -> None:
    lines = [line.rstrip(b"\r\n") for line in source.read_bytes().splitlines(keepends=True) if line.strip()]
    numbers = np.tile(np.arange(len(lines)), times)
    with replaced(target) as scratch, scratch.open("wb") as file:
        file.writelines(lines[i] + b"\n" for i in (rng.permutation(numbers) if rng else numbers))


COMPONENTS = (Duplication(),)

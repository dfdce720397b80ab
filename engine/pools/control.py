"""The random pool that constructed ones are compared with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median_low

import numpy as np

from engine.data.readers.pool_rows import ROWS
from engine.pools.files import Form, folder_for, open_pool, open_pools, put

SEED = 42
_NAME = re.compile(r"(^|_)control(_\d+)?$")


def is_control(path: str | Path) -> bool:
    """True for a pool that `controls` made, and for one drawn of it."""
    name = Path(path).name.removesuffix(ROWS)
    return _NAME.search(name.rpartition(".")[0] or name) is not None


def controls(paths: Sequence[str | Path], made: Sequence[Path], out: str | Path, form: Form) -> list[Path]:
    """Of each file as many rows by chance as the middle one of the pools has: `control/NAME_control.jsonl`."""
    size = median_low(len(open_pool(path)) for path in made)
    targets = []
    for source in open_pools(paths, apart=True):
        at = np.sort(np.random.default_rng(SEED).choice(len(source), min(size, len(source)), replace=False))
        targets.append(put(folder_for(Path(out) / "control") / f"{source.stem}_control.jsonl", source, at, form))
    return targets

"""Pools repeated, and pools cut to one size at random. A seed gives the same rows on every machine."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.base.errors import PoolError
from engine.data.cuts import seeded_order
from engine.pools.files import DOCUMENT, Form, Numbers, Tell, folder_for, open_pools, put, silent

SEED = 42
UNEVEN = 10  # times that the smallest pool may be smaller than the middle one without a note


def duplicate(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    times: int | Sequence[int],
    shuffle: bool = False,
    seed: int = SEED,
    form: Form = "jsonl",
) -> list[Path]:
    """Each pool so many times, one after the other or mixed: `NAME_xTIMES.jsonl`. Raises: PoolError."""
    wanted = [times] if isinstance(times, int) else list(times)
    if not wanted or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in wanted):
        raise PoolError(f"duplicating_times are {times}; give whole numbers from 1 on, as [2, 4, 8]")
    folder, made = folder_for(out), list[Path]()
    for pool in open_pools(paths, apart=True):
        for n in wanted:
            at = np.tile(pool.every, n)
            at = at[_order(len(at), seed)] if shuffle else at
            made.append(put(folder / f"{pool.stem}_x{n}{DOCUMENT}", pool, at, form))
    return made


def downsample(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    size: int | None = None,
    seed: int = SEED,
    form: Form = "jsonl",
    tell: Tell = silent,
) -> list[Path]:
    """A random part of each pool, in its order: `NAME_SIZE.jsonl`. size: its rows; those of the smallest pool if None.

    A pool of fewer rows stays whole. Raises: PoolError.
    """
    pools = open_pools(paths, apart=True)
    sizes = [len(pool) for pool in pools]
    if size is None:
        size = min(sizes)
        if size * UNEVEN < statistics.median(sizes):
            small = pools[sizes.index(size)].path.name
            tell(f"{small} has {size} rows, and all pools are cut to its size; leave it out, or set target_num_samples")
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise PoolError(f"target_num_samples is {size}; give the rows of a pool, 1 or more, and no empty pools")
    if fewer := [pool.path.name for pool in pools if len(pool) < size]:
        tell(f"{len(fewer)} pools have fewer rows than {size} and stay whole, as {fewer[0]}")
    folder = folder_for(out)
    return [
        put(folder / f"{pool.stem}_{size}{DOCUMENT}", pool, np.sort(_order(len(pool), seed)[:size]), form)
        for pool in pools
    ]


def _order(count: int, seed: int) -> Numbers:
    return seeded_order(np.arange(count, dtype=np.uint64), seed)

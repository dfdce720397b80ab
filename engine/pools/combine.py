"""All intersections of ranked pools: each pool, each two of them, … all of them.

A row is one by its place where all pools are of one file, else by its content; a row that stands twice in both of two
pools stands twice in their intersection. Rows keep the order of the best pool.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import PoolError
from engine.base.ids import json_text
from engine.pools.files import DOCUMENT, NO_PREFIX, Form, Pool, Tell, folder_for, open_pools, prefix, put, silent

MOST = 1_023  # combinations: of ten pools
TURN = np.uint64(40)  # bits that the count of a repeated row is moved by
Ids = NDArray[np.uint64]


def combine(
    paths: Sequence[str | Path],
    out: str | Path,
    at_least: int = 1,
    most: int = MOST,
    form: Form = "jsonl",
    tell: Tell = silent,
) -> list[Path]:
    """Pools `PREFIX_top_0_2_num_123.jsonl`, by how many pools they are of. paths: best first.

    at_least: rows of a combination that is written; an empty one never is. most: combinations that are allowed.
    Raises: PoolError.
    """
    pools = open_pools(paths)
    total = (1 << len(pools)) - 1
    if total > most:
        raise PoolError(
            f"{len(pools)} pools have {total} combinations, more than {most}; rank them and take fewer (top_n), or "
            "raise max_combinations"
        )
    folder, name = folder_for(out), prefix(pools) or NO_PREFIX
    ids = _ids(pools)
    made: list[Path] = []
    small = empty = 0
    # by size, and within a size by the last pool: as ranks are added one by one
    chosen = sorted((c for n in range(1, len(pools) + 1) for c in combinations(range(len(pools)), n)),
                    key=lambda c: (len(c), c[::-1]))  # fmt: skip
    shared = {(i, j): np.isin(ids[i], ids[j]) for i, j in combinations(range(len(pools)), 2)}
    for ranks in chosen:
        mask = np.ones(len(ids[ranks[0]]), bool)
        for other in ranks[1:]:
            mask &= shared[ranks[0], other]
        at = np.flatnonzero(mask).astype(np.int64)
        empty += not len(at)
        small += 0 < len(at) < at_least
        if len(at) >= max(1, at_least):
            label = "_".join(map(str, ranks))
            made.append(put(folder / f"{name}_top_{label}_num_{len(at)}{DOCUMENT}", pools[ranks[0]], at, form))
    if empty or small:
        tell(f"{empty} combinations have no rows and {small} fewer than {at_least}; they are not written")
    if not made:
        raise PoolError(f"no combination has {max(1, at_least)} rows; take pools that share more, or fewer rows")
    return made


def _ids(pools: Sequence[Pool]) -> list[Ids]:
    """A number of each row of each pool, the same for the same row; equal rows of a pool are told apart by count."""
    one_file = len({pool.base.resolve() for pool in pools}) == 1
    return [_counted(pool.numbers.astype(np.uint64) if one_file else _contents(pool)) for pool in pools]


def _contents(pool: Pool) -> Ids:
    digests = bytearray()
    for start, stop in pool.blocks():
        for row in pool.read(start, stop):
            text = json_text(row, sort_keys=True).encode()
            digests += hashlib.blake2b(text, digest_size=8).digest()
    return np.frombuffer(bytes(digests), np.uint64)


def _counted(ids: Ids) -> Ids:
    """Equal numbers made different: by how many of them stand before."""
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    new = np.flatnonzero(np.append([True], ordered[1:] != ordered[:-1])) if len(ids) else np.zeros(0, np.int64)
    before = np.arange(len(ids)) - np.repeat(new, np.diff(np.append(new, len(ids))))
    found = np.empty_like(ids)
    found[order] = ordered + (before.astype(np.uint64) << TURN)
    return found

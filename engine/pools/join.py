"""Pools one after the other, and every row of one with every row of another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from engine.base.errors import PoolError
from engine.pools.files import (
    DOCUMENT,
    NO_PREFIX,
    Form,
    Pool,
    as_lines,
    folder_for,
    lines_of,
    open_pools,
    prefix,
    put,
    put_lines,
)


def merge(paths: str | Path | Sequence[str | Path], out: str | Path, form: Form = "jsonl") -> Path:
    """All rows of the pools, in order: `PREFIX_merged.jsonl`. Raises: PoolError."""
    pools = open_pools(paths)
    target = folder_for(out) / f"{prefix(pools) or NO_PREFIX}_merged{DOCUMENT}"
    if form == "rows" and len({pool.base.resolve() for pool in pools}) == 1:
        whole = Pool(pools[0].path, pools[0].base, np.concatenate([pool.numbers for pool in pools]))
        return put(target, whole, whole.every, form)
    return put_lines(target, (piece for pool in pools for piece in lines_of(pool, pool.every)))


def join(
    firsts: str | Path | Sequence[str | Path], seconds: str | Path | Sequence[str | Path], out: str | Path
) -> list[Path]:
    """Each pool of the first with each of the second: `PREFIX1_PREFIX2_cartesian_join_I_J.jsonl`.

    Row 0 of the first stands before each row of the second, then row 1. Raises: PoolError where two have one field.
    """
    left, right = open_pools(firsts), open_pools(seconds)
    name = f"{prefix(left)}_{prefix(right)}"
    name = NO_PREFIX if name == "_" else name
    folder = folder_for(out)
    return [
        put_lines(folder / f"{name}_cartesian_join_{i}_{j}{DOCUMENT}", _joined(one, other))
        for i, one in enumerate(left)
        for j, other in enumerate(right)
    ]


def _joined(left: Pool, right: Pool) -> Iterator[bytes]:
    for start, stop in left.blocks():
        for row in left.read(start, stop):
            for begin, end in right.blocks():
                others = right.read(begin, end)
                for other in others:
                    if both := row.keys() & other.keys():
                        raise PoolError(
                            f"{left.path} and {right.path} both have a field {min(both)!r}; rename it in one of them"
                        )
                yield as_lines(left, [row | other for other in others])

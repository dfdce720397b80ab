"""Pools cut from analysed rows: for each statistic its rows with low, middle and high values; or the rows in order.

A statistic is a number under `__dj__stats__`, or a list of numbers, of which the mean counts. Rows that lack it, or
have NaN, are in none of its pools. Rows of one value stay together, so a statistic of fewer values than parts has no
pools: they would say nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import PoolError
from engine.data.cuts import runs_of
from engine.pools.files import DOCUMENT, Form, Numbers, Pool, Tell, folder_for, open_pools, put, silent

STATS = "__dj__stats__"
THIRDS = ("1/3", "2/3")
Values = NDArray[np.float64]


def construct(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    ratios: Sequence[float | str] | None = None,
    size: int | None = None,
    ignore_stats: bool = False,
    form: Form = "jsonl",
    tell: Tell = silent,
) -> list[Path]:
    """The pools of each file: `STAT/NAME_STAT_I.jsonl`, or `NAME_ignore_stats_I.jsonl`.

    ratios: where parts end, as shares of the rows; thirds where none are given. size: rows of a part in their place,
    of which rows of one value may then be divided, in the order of the file.
    Raises: PoolError.
    """
    ends = _shares(THIRDS if ratios is None else ratios)
    if size is not None and (isinstance(size, bool) or size < 1):
        raise PoolError(f"split_num is {size}; give the rows of a part, 1 or more")
    folder, made = folder_for(out), list[Path]()
    for pool in open_pools(paths, apart=True):
        if not len(pool):
            raise PoolError(f"{pool.path} has no rows to make pools of; give analysed rows")
        if ignore_stats:
            parts = np.split(pool.every, _points(len(pool), ends, size))
            made += _put(pool, folder, "ignore_stats", parts, form)
            continue
        columns = statistics(pool)
        if not columns:
            raise PoolError(
                f"{pool.path} has no numbers under {STATS}; analyse it first (ProbeViaAnalyzerHook with "
                "export_original_dataset), or set ignore_stats"
            )
        for name, values in columns.items():
            found = _parts(name, values, ends, size, pool, tell)
            made += _put(pool, folder / name, name, found, form) if found else []
    if not made:
        raise PoolError("no statistic has enough values to be cut; give rows that differ, or fewer split_ratios")
    return made


def statistics(pool: Pool) -> dict[str, Values]:
    """Every statistic of numbers, NaN where a row has none. Raises: PoolError for a row that cannot be read."""
    found: dict[str, Values] = {}
    for start, stop in pool.blocks():
        for at, row in enumerate(pool.read(start, stop), start):
            stats = row.get(STATS)
            for name, value in stats.items() if isinstance(stats, dict) else ():
                number = _number(value)
                if number is not None:
                    column = found.get(name)
                    if column is None:
                        column = found[name] = np.full(len(pool), np.nan)
                    column[at] = number
    if bad := next((name for name in found if "/" in name or name.startswith(".") or "\0" in name), None):
        raise PoolError(f"{pool.path} has a statistic {bad!r}, which cannot name a folder; rename it there")
    return found


def _number(value: object) -> float | None:
    """A statistic's value; the mean of several; None for what is no number."""
    if isinstance(value, list):
        numbers = [v for v in value if isinstance(v, int | float) and not isinstance(v, bool)]
        return math.fsum(numbers) / len(numbers) if numbers and len(numbers) == len(value) else None
    return float(value) if isinstance(value, int | float) else None


def _shares(ratios: Sequence[float | str]) -> list[float]:
    """Raises: PoolError for what is no share, and for shares that do not ascend."""
    try:
        found = [float(Fraction(str(ratio).strip())) for ratio in ratios]
    except (ValueError, ZeroDivisionError) as error:
        raise PoolError(f"split_ratios: {error}; give shares, as 0.25 or 1/3") from None
    if any(not 0 < share < 1 for share in found) or found != sorted(set(found)):
        raise PoolError(f"split_ratios are {list(ratios)}; give shares between 0 and 1 that ascend, as 1/3, 2/3")
    return found


def _points(rows: int, shares: list[float], size: int | None) -> list[int]:
    """Where parts end; the last ends with the rows."""
    return list(range(size, rows, size)) if size else [int(rows * share + 0.5) for share in shares]


def _parts(
    name: str, values: Values, shares: list[float], size: int | None, pool: Pool, tell: Tell
) -> list[Numbers] | None:
    """The places of each part in the order of the file; None, and a note, where the statistic cannot be cut."""
    missing = int(np.isnan(values).sum())
    if missing:
        tell(f"{pool.path}: {missing} of {len(values)} rows have no {name}; they are in none of its pools")
    order = np.argsort(values, kind="stable")[: len(values) - missing].astype(np.int64)
    if size:
        return [np.sort(part) for part in np.split(order, _points(len(order), shares, size))]
    count, _, first = runs_of(values)
    if len(first) <= len(shares):
        tell(
            f"{pool.path}: {name} has {len(first)} distinct value{'s' * (len(first) != 1)} and cannot be cut into "
            f"{len(shares) + 1} parts without dividing rows of one value; it has no pools"
        )
        return None
    cuts, last = list[int](), 0
    for left, point in zip(range(len(shares), 0, -1), _points(count, shares, None), strict=True):
        free = first[last + 1 : len(first) - left + 1]  # each part keeps a value, the ones after it too
        last += 1 + int(np.argmin(np.abs(free - point)))
        cuts.append(int(first[last]))
    return [np.sort(part) for part in np.split(order, cuts)]


def _put(pool: Pool, folder: Path, name: str, parts: Sequence[Numbers], form: Form) -> list[Path]:
    """Write the parts that have rows, each under its number."""
    return [
        put(folder / f"{pool.stem}_{name}_{i}{DOCUMENT}", pool, part, form) for i, part in enumerate(parts) if len(part)
    ]

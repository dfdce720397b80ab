"""Pools in the order of their evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from engine.base.errors import PoolError
from engine.pools.files import Tell, silent, value_at


def rank(
    paths: str | Sequence[str],
    metrics: Any,
    keys: Sequence[str] = (),
    descending: bool = True,
    top: int | None = None,
    tell: Tell = silent,
) -> list[str]:
    """The paths, best first, those of equal metrics in the order given; ones without a number come last.

    metrics: of each pool a number, or a map in which dotted keys name numbers; the first key decides, the next ones
    where it ties. top: how many of them are returned.
    Raises: PoolError.
    """
    pools = [paths] if isinstance(paths, str) else list(paths)
    given = metrics if isinstance(metrics, list | tuple) else [metrics]
    if len(pools) != len(given):
        raise PoolError(f"{len(pools)} pools and the metrics of {len(given)}; give metrics for each pool, in its order")
    if top is not None and (isinstance(top, bool) or not isinstance(top, int) or top < 1):
        raise PoolError(f"top_n is {top}; give how many pools are kept, 1 or more")
    names = [keys] if isinstance(keys, str) else list(keys)
    values = [_values(entry, names) for entry in given]
    for at, name in enumerate(names or ["its metric"]):
        lacking = [str(pool) for pool, some in zip(pools, values, strict=True) if some[at] is None]
        if len(lacking) == len(pools):
            raise PoolError(f"no pool has a number as {name}; {_has(given[0])}")
        if lacking:
            tell(f"{len(lacking)} of {len(pools)} pools have no number as {name} and are ranked last, as {lacking[0]}")
    sign = -1 if descending else 1
    order = sorted(range(len(pools)), key=lambda i: [(v is None, 0.0 if v is None else sign * v) for v in values[i]])
    return [str(pools[i]) for i in order][:top]


def _values(entry: Any, names: Sequence[str]) -> list[float | None]:
    if not names:
        return [_number(entry)]
    return [_number(value_at(dict(entry), name)) if isinstance(entry, Mapping) else None for name in names]


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(number) else number


def _has(entry: Any) -> str:
    if isinstance(entry, Mapping):
        return f"set ranking_keys to one of: {', '.join(str(name) for name in entry)}"
    return "leave ranking_keys out where metrics are numbers, or give maps"

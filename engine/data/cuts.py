"""How pools become row numbers: columns of statistics, buckets, the seeded draw.

A pool is realised as a seeded sample of the rows that its slices keep, never as a copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import PoolError
from engine.base.places import Place, shares
from engine.records.pool import BUCKETS, Layer, Pool, Slice

Values = NDArray[np.float64]
RowMask = NDArray[np.bool_]
RowNumbers = NDArray[np.int64]


@dataclass(frozen=True)
class Column:
    """One statistic of every row.

    low, high: (rows,) smallest and largest value in the row; the same array where a row has one
    value (text statistics, one image per row). NaN where the OP could not read the row.
    """

    low: Values
    high: Values

    @property
    def single(self) -> bool:
        """True when every row has one value."""
        return self.low is self.high

    @property
    def value(self) -> Values:
        """(rows,) one number per row: the middle of its values."""
        return self.low if self.single else (self.low + self.high) / 2


def keeps(s: Slice, column: Column) -> RowMask:
    """(rows,) True where the row's values all lie inside the slice, or all outside; NaN never does.

    Raises: PoolError for what lies outside bounds on both sides, where a row may have values in between.
    """
    if s.outside:
        return _keeps_outside(s, column)
    kept = ~np.isnan(column.low)
    if s.low is not None:
        kept &= column.low >= s.low if s.low_closed else column.low > s.low
    if s.high is not None:
        kept &= column.high <= s.high if s.high_closed else column.high < s.high
    return kept


def _keeps_outside(s: Slice, column: Column) -> RowMask:
    if not column.single:
        raise PoolError(f"{s.statistic} has several values a row, of which the ends are known only; give one bound")
    return ~np.isnan(column.low) & ~keeps(replace(s, outside=False), column)


def runs_of(values: Values) -> tuple[int, Values, NDArray[np.int64]]:
    """(numbers among values, the distinct ones in order, where the run of each begins among all in order).

    values: (rows,) may hold NaN. NumPy's own `unique` would take several times their memory.
    """
    ordered = values[~np.isnan(values)]
    ordered.sort()
    first = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    first = np.concatenate([np.zeros(min(1, len(ordered)), first.dtype), first])
    return len(ordered), ordered[first], first


def value_at(place: Place, values: Values) -> float:
    """Where a place lies among values, of which NaN are left out; NaN when none is left.

    A percentile lies where a run of equal values starts, nearest to that share of the rows, so that ties stay
    together. The standard deviation is the population's. Ten decimals, as Data-Juicer keeps.
    """
    numbers = values[~np.isnan(values)]
    if not len(numbers):
        return math.nan
    if place.sigma:
        return round(float(numbers.mean() + place.at * numbers.std()), 10)
    count, distinct, first = runs_of(numbers)
    return float(distinct[np.argmin(np.abs(first - place.at / 100 * count))])


def mix(keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """splitmix64 of each key under a seed: a random order that depends on nothing but both."""
    with np.errstate(over="ignore"):
        z = keys ^ np.uint64((seed * 0x9E3779B97F4A7C15 + 0xD1B54A32D192ED03) & 0xFFFFFFFFFFFFFFFF)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def seeded_order(keys: NDArray[np.uint64], seed: int) -> RowNumbers:
    """Places of keys in a random order, the same on every machine."""
    return np.argsort(mix(keys, seed), kind="stable").astype(np.int64)


def eligible(
    layer: Layer, columns: Mapping[str, Column], good: RowMask, spans: Mapping[str, range] | None = None
) -> RowMask:
    """(rows,) True for good rows of the layer's source that pass every slice of it. spans: source → its rows."""
    kept = good.copy()
    if layer.source is not None:
        span = (spans or {}).get(layer.source)
        if span is None:
            raise PoolError(f"the study has no source {layer.source!r}; name one of its dataset.sources")
        kept[: span.start] = kept[span.stop :] = False
    for s in layer.slices:
        kept &= keeps(s, columns[s.statistic])
    return kept


def shares_of(
    pool: Pool, columns: Mapping[str, Column], good: RowMask, spans: Mapping[str, range] | None = None
) -> list[tuple[int, RowNumbers]]:
    """(rows that it gives, each repeat counted; rows that it has) of each layer of a mixture.

    A row that several layers keep is the first one's. The rounded shares add up to the pool's size.
    """
    weights = [layer.weight or 0.0 for layer in pool.layers]
    exact = [pool.size * weight / sum(weights) for weight in weights]
    counts = [int(n) for n in exact]
    for at in sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])[: pool.size - sum(counts)]:
        counts[at] += 1
    parts, left = [], good
    for layer in pool.layers:
        mask = eligible(layer, columns, left, spans)
        parts.append(np.flatnonzero(mask))
        left = left & ~mask
    return list(zip(counts, parts, strict=True))


def _mixed(pool: Pool, parts: list[tuple[int, RowNumbers]], order_keys: NDArray[np.uint64]) -> RowNumbers:
    """Each layer's rows, the first by the hash; all of them again and again where they are fewer than its share."""
    found = []
    for layer, (want, rows) in zip(pool.layers, parts, strict=True):
        if want > len(rows) * (pool.max_repeats or 1):
            raise PoolError(f"pool {pool.id} wants {too_few(pool, layer, want, len(rows))}")
        found.append(np.resize(rows[np.argsort(order_keys[rows], kind="stable")], want) if want else rows[:0])
    return np.concatenate(found)


def too_few(pool: Pool, layer: Layer, want: int, have: int) -> str:
    """What a layer of a mixture lacks, and what to do about it."""
    name = layer.source or ", ".join(map(str, layer.slices))
    repeats = pool.max_repeats or 1
    most = math.floor(1000 * have * repeats / pool.size) / 1000
    return (
        f"{want} rows of {name}, which has {have} good rows and repeats each {repeats} times at most: give it a weight "
        f"of {most:g} or less" + (f", or raise max_repeats to {math.ceil(want / have)}" if have else "")
    )


def realise(
    pool: Pool,
    columns: Mapping[str, Column],
    keys: NDArray[np.uint64],
    good: RowMask,
    seed: int = 0,
    spans: Mapping[str, range] | None = None,
) -> RowNumbers:
    """The pool's distinct row numbers, in the order of the seeded hash; a mixture's may repeat.

    keys: (rows,) hash of each row's id. good: (rows,) rows that are not quarantined. seed: a
    trial's seed, so that a trial's sample varies with it. spans: source → its rows. The order of the file plays no
    part.

    Raises: PoolError when its slices keep fewer rows than its size.
    """
    order_keys = mix(mix(keys, pool.seed), seed)
    if pool.max_repeats is not None:
        return _mixed(pool, shares_of(pool, columns, good, spans), order_keys)
    taken = np.zeros(len(keys), bool)
    parts: list[RowNumbers] = []
    for layer in pool.layers:
        left = pool.size - sum(len(p) for p in parts)
        want = left if layer.weight is None else min(left, round(pool.size * layer.weight))
        rows = np.flatnonzero(eligible(layer, columns, good, spans) & ~taken)
        if len(rows) > want > 0:
            nearest = np.argpartition(order_keys[rows], want - 1)[:want]
            rows = rows[nearest]
        rows = rows[: max(want, 0)]
        rows = rows[np.argsort(order_keys[rows], kind="stable")]
        taken[rows] = True
        parts.append(rows)
    found = np.concatenate(parts) if parts else np.array([], np.int64)
    if len(found) < pool.size:
        raise PoolError(
            f"pool {pool.id} wants {pool.size} rows and its slices keep {len(found)}; ask for fewer, or widen a slice"
        )
    return found


def cut_points(values: Values, buckets: int, places: Sequence[Place] = ()) -> list[float]:
    """The buckets - 1 values where one bucket ends and the next begins; ties are never split.

    values: (rows,) may hold NaN. Each cut is the start of a run of equal values that lies nearest to the quantile
    i / buckets, or lies where the places say. Fewer cuts come back when there are too few values.
    """
    if places:
        return _placed(values, places)
    count, distinct, first = runs_of(values)
    cuts: list[int] = []
    for i in range(1, buckets):
        gaps = first[1:]
        if not len(gaps):
            break
        target = count * i / buckets
        nearest = int(np.argmin(np.abs(gaps - target)))
        if not cuts or nearest > cuts[-1]:
            cuts.append(nearest)
    return [float(distinct[c + 1]) for c in cuts]


def _placed(values: Values, places: Sequence[Place]) -> list[float]:
    """Cuts at places, each of which leaves values on both sides of it and above the cut before."""
    _, known, _ = runs_of(values)
    cuts: list[float] = []
    for place in places:
        at = value_at(place, values)
        below = int(np.searchsorted(known, at))
        if 0 < below < len(known) and (not cuts or below > np.searchsorted(known, cuts[-1])):
            cuts.append(at)
    return cuts


@dataclass(frozen=True)
class Cut:
    """One bucket of one statistic: its slice, the pool cut from it, or why there is none.

    kept: rows that the slice keeps. reason: None, or why the bucket is degenerate.
    """

    slice: Slice
    bucket: str
    kept: int
    pool: Pool
    reason: str | None = None

    @property
    def label(self) -> str:
        """`text_len low`."""
        return f"{self.slice.statistic} {self.bucket}"


@dataclass(frozen=True)
class StatisticColumn:
    """A statistic with the OP and parameters that it came from."""

    op: str
    statistic: str
    params: tuple[tuple[str, Any], ...]
    column: Column


def common_size(good: int, buckets: int, wanted: int | None, floor: int, places: Sequence[Place] = ()) -> int:
    """RowNumbers of every pool: three quarters of the smallest bucket, so that ties and NaN may shift the bounds.

    floor: fewest rows that can be trained on (one batch). places: where buckets are cut; none: evenly.
    Raises: PoolError when the dataset is too small for buckets of that size.
    """
    parts = 1 / min(shares(places, buckets)) if places else buckets  # that the data has of the smallest bucket's size
    size = wanted or int((3 * good) // (4 * parts))
    if size < floor or size > good // parts:
        need = math.ceil(max(floor, wanted or 0) * parts if wanted else floor * parts * 4 / 3)
        raise PoolError(
            f"the dataset has {good} good rows, too few for {buckets} buckets of {max(size, floor)} rows "
            f"(it takes {need}); lower pools.size, pools.buckets or train.batch_size, or give more data"
        )
    return size


def single_op_cuts(
    statistics: Sequence[StatisticColumn],
    good: RowMask,
    buckets: int,
    size: int,
    min_distinct: int | None,
    seed: int,
    places: Sequence[Place] = (),
) -> list[Cut]:
    """The 3N single-OP buckets of Section 3.2.1, degenerate ones marked with their reason.

    places: where they are cut; none: into equal parts.
    """
    cuts: list[Cut] = []
    seen: dict[bytes, str] = {}
    for source in statistics:
        values = np.where(good, source.column.value, np.nan)
        distinct = len(runs_of(values)[1])
        points = cut_points(values, buckets, places) if distinct >= (min_distinct or buckets) else []
        edges = [None, *points, None]
        found = BUCKETS.get(len(points) + 1, ())
        for name, low, high in zip(found, edges[:-1], edges[1:], strict=False):
            s = Slice(source.op, source.statistic, low, high, params=source.params)
            mask = keeps(s, source.column) & good
            kept, reason = int(mask.sum()), None
            if kept < size:
                reason = f"keeps {kept} rows, fewer than the common size {size}"
            else:
                label = f"{source.statistic} {name}"
                other = seen.setdefault(np.packbits(mask).tobytes(), label)
                reason = None if other == label else f"keeps the same rows as {other}"
            cuts.append(Cut(s, name, kept, Pool((Layer((s,)),), size, seed=seed), reason))
        for name in BUCKETS[buckets]:
            if name not in found:
                s = Slice(source.op, source.statistic, params=source.params)
                values_text = f"{distinct} distinct value{'s' * (distinct != 1)}"
                how = "at these bounds" if places else "without splitting ties"
                reason = f"{values_text} cannot be cut into {buckets} buckets {how}"
                cuts.append(Cut(s, name, 0, Pool((Layer((s,)),), size, seed=seed), reason))
    return cuts


def overlap(masks: Sequence[RowMask]) -> NDArray[np.float64]:
    """(pools, pools) Jaccard overlap of the kept rows: intersection over union, 0 … 1."""
    if not masks:
        return np.zeros((0, 0))
    stacked = np.stack(masks).astype(np.float32)
    both = (stacked @ stacked.T).astype(np.float64)
    sizes = np.diag(both)
    union = sizes[:, None] + sizes[None, :] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)

"""Pools beside the buckets of a statistic: without what is rare in it, and one a value where it has few.

A rare part has fewer rows than a pool. It cannot be one, but all rows without it can.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.base.places import Place
from engine.data.catalogue import find_op, statistics_of
from engine.data.cuts import Column, Cut, RowMask, StatisticColumn, Values, keeps, value_at
from engine.data.tails import LEAST, tails
from engine.records.pool import BY_VALUE, Layer, Pool, Slice
from engine.settings.data import MOST_VALUES

Bits = NDArray[np.uint8]
FEW = 10  # distinct values up to which each is a part by itself
LOOKED_AT = 10_000  # rows that tell whether a statistic has more than that


def with_rare(
    cuts: Sequence[Cut],
    statistics: Sequence[StatisticColumn],
    good: RowMask,
    size: int,
    min_distinct: int | None,
    seed: int,
) -> list[Cut]:
    """The buckets, those of each statistic followed by the pools beside them.

    A pool that differs from the control, or from another pool of its statistic, in fewer than `LEAST` of the rows is
    left out. Buckets that are no pools say which stand beside them.
    """
    rows, every = int(good.sum()), list[Cut]()
    seen: dict[bytes, str] = {}
    for source in statistics:
        for cut in cuts:
            if cut.slice.statistic == source.statistic and cut.reason is None:
                seen.setdefault(_key(_bits(cut.slice, source.column, good)), cut.label)
    for source in statistics:
        own = [c for c in cuts if c.slice.statistic == source.statistic]
        known = [np.packbits(good), *(_bits(c.slice, source.column, good) for c in own if c.reason is None)]
        beside: list[Cut] = []
        named: list[str] = []  # labels of the pools that stand beside the buckets
        for name, part, reason in _parts(source, own, good, size, min_distinct):
            kept = 0
            if reason is None:
                bits = _bits(part, source.column, good)
                if any(int(np.bitwise_count(bits ^ other).sum()) < LEAST * rows for other in known):
                    continue
                kept, label = int(np.bitwise_count(bits).sum()), f"{source.statistic} {name}"
                if kept < size:
                    reason = f"keeps {kept} rows, fewer than the common size {size}"
                else:
                    known.append(bits)
                    named.append(other := seen.setdefault(_key(bits), label))
                    reason = None if other == label else f"keeps the same rows as {other}"
            beside.append(Cut(part, name, kept, Pool((Layer((part,)),), size, seed=seed), reason))
        every += [*(_told(c, named, size) for c in own), *beside]
    return every


def _bits(part: Slice, column: Column, good: RowMask) -> Bits:
    """(rows / 8,) which good rows a slice keeps."""
    return np.packbits(keeps(part, column) & good)


def _key(bits: Bits) -> bytes:
    return hashlib.blake2b(bits.tobytes(), digest_size=16).digest()


def _told(cut: Cut, named: Sequence[str], size: int) -> Cut:
    """A bucket; one that is too small, or could not be cut, says which pools stand beside it."""
    if cut.reason is None or cut.kept >= size or not named:
        return cut
    return replace(cut, reason=f"{cut.reason}; see {', '.join(named)}")


def _parts(
    source: StatisticColumn, own: Sequence[Cut], good: RowMask, size: int, min_distinct: int | None
) -> Iterator[tuple[str, Slice, str | None]]:
    """(name as a bucket, slice, why it cannot be a pool) of each pool that may stand beside the buckets."""
    column, rows = source.column, int(good.sum())
    if (
        min_distinct
        and source.op != BY_VALUE
        and len(np.unique(column.value[good & ~np.isnan(column.low)])) < min_distinct
    ):
        return
    whole = Slice(source.op, source.statistic, params=source.params)
    values = _few(column, good, MOST_VALUES + 1 if source.op == BY_VALUE else FEW)
    for value in values:
        name, only = _name(source, value), replace(whole, low=value, high=value, high_closed=True)
        kept = int((keeps(only, column) & good).sum())
        if kept >= size:
            yield f"only-{name}", only, None
        elif kept >= LEAST * rows:
            yield f"without-{name}", *_without(only, source, values[0], values[-1])
    for cut in own:
        if cut.reason and LEAST * rows <= cut.kept < size:
            yield f"without-{cut.bucket}", *_without(cut.slice, source, -np.inf, np.inf)
    if values:
        return
    known = column.value[good]
    low, high = tails(known)
    if low:
        yield f"without-lowest-{low}%", replace(whole, low=value_at(Place(False, low), known)), None
    if high:
        yield f"without-highest-{high}%", replace(whole, high=value_at(Place(False, 100 - high), known)), None


def _name(source: StatisticColumn, value: float) -> str:
    """How a value is called: its number, or the word that it stands for."""
    if source.op != BY_VALUE:
        return f"{value:.10g}"
    if source.statistic != dict(source.params)["field_key"]:  # whether a list holds a tag
        return "yes" if value else "no"
    words = json.loads(dict(source.params)["target_value"])
    return str(words[int(value)]) if value < len(words) else "others"


def _few(column: Column, good: RowMask, few: int = FEW) -> list[float]:
    """The values that rows have, ascending; none where they are one, or more than so many."""
    ends: list[Values] = [column.low[good]] if column.single else [column.low[good], column.high[good]]
    for some in ([e[:LOOKED_AT] for e in ends], ends):
        values = np.unique(np.concatenate(some))
        values = values[np.isfinite(values)]
        if len(values) > few:
            return []
    return [float(v) for v in values] if len(values) > 1 else []


def _without(part: Slice, source: StatisticColumn, first: float, last: float) -> tuple[Slice, str | None]:
    """The rows that are not in a part of the values first … last; or why no filter keeps just them."""
    if part.low is None or part.low <= first:
        return replace(part, low=part.high, low_closed=not part.high_closed, high=None, high_closed=False), None
    if part.high is None or part.high >= last:
        return replace(part, low=None, low_closed=True, high=part.low, high_closed=not part.low_closed), None
    outside = replace(part, outside=True)
    if not source.column.single:
        return outside, "rows have several values, so what lies between others cannot be left out"
    bounds = statistics_of(source.op, dict(source.params)).get(source.statistic) if find_op(source.op) else None
    if bounds and not (bounds.low and bounds.high):
        return outside, f"{source.op} bounds one side only, so what lies between others cannot be left out"
    return outside, None

"""Kinds `combine` and `bucket`: rows that lie in intervals of statistics."""

from __future__ import annotations

from dataclasses import replace

from engine.base.places import parse
from engine.data.cuts import value_at
from engine.evidence.ranking import rank
from engine.journal import trials
from engine.proposals.arms import PoolKind, control, fewest_rows, ordered, request
from engine.proposals.kinds.contract import Drafted, Refused, effect_of
from engine.records.experiment import Bucket, Combine, Interval
from engine.records.pool import Layer, Pool, Slice
from engine.study.opened import OpenStudy, last_rung


def draft_slices(opened: OpenStudy, wanted: Combine | Bucket) -> Drafted:
    """One pool of the rows in all intervals, at the common size of its stage if they are enough."""
    parts = wanted.slices if isinstance(wanted, Combine) else (wanted.slice,)
    named = [_slice(opened, part) for part in parts]
    slices, name = ordered(s for s, _ in named), " + ".join(text for _, text in named)
    pool = Pool((Layer(slices),), opened.pool_size, seed=opened.study.seed)
    kept, stage, floor = opened.kept(pool), "probe", opened.pool_size
    if isinstance(wanted, Combine):
        stage, floor = "combine", fewest_rows(opened)
        size = min(kept, _size_of_stage(opened, "combine") or opened.pool_size)
        pool = replace(pool, size=size)
    if kept < floor:
        raise Refused(f"{name} keeps {kept} rows, and a pool needs {floor}; widen it")
    share, seeds = last_rung(opened)
    for other in rank(opened, ("single", "combination"), ("probe", "combine")):
        if set(other.pool.slices) == set(slices) and other.share >= share and other.effect.seeds >= seeds:
            raise Refused(f"a repetition: pool {other.pool.id} ran with these slices ({effect_of(other)})")
    kind: PoolKind = "single" if len(slices) == 1 else "combination"
    wholes = [request(opened, control(opened, pool.size), "control", "control"), request(opened, pool, name, kind)]
    return stage, [r.part(share) for r in wholes], range(seeds)


def _slice(opened: OpenStudy, part: Interval) -> tuple[Slice, str]:
    """The slice that an interval means, and its name."""
    source = next((c for c in opened.statistic_columns if c.statistic == part.statistic), None)
    if source is None:
        known = ", ".join(c.statistic for c in opened.statistic_columns)
        raise Refused(f"statistic {part.statistic!r} is not computed in this study; it has {known}")
    if part.bucket is None:
        ends = ["" if b is None else b if isinstance(b, str) else f"{b:g}" for b in (part.low, part.high)]
        values = source.column.value[opened.scan.good]
        low, high = (value_at(parse(b), values) if isinstance(b, str) else b for b in (part.low, part.high))
        if low is not None and high is not None and low >= high:
            raise Refused(f"{part.statistic} {'…'.join(ends)} is empty: {low:g} is not below {high:g}")
        return Slice(source.op, source.statistic, low, high, params=source.params), f"{part.statistic} {'…'.join(ends)}"
    cut = next((c for c in opened.cuts if c.slice.statistic == part.statistic and c.bucket == part.bucket), None)
    if cut is None or cut.reason:
        raise Refused(f"{part.statistic} has no bucket {part.bucket}: {cut.reason if cut else 'the study cuts others'}")
    return cut.slice, cut.label


def _size_of_stage(opened: OpenStudy, stage: str) -> int | None:
    """Rows of the control that a stage ran against, so that one control serves all its pools."""
    pool = trials.main_pool(opened.store, opened.setup, stage)
    return pool.size if pool else None

"""Kinds `combine` and `bucket`: rows that lie in intervals of statistics."""

from __future__ import annotations

from dataclasses import replace

from engine.base.places import parse
from engine.data.cuts import keeps, value_at
from engine.evidence.ranking import rank
from engine.journal import trials
from engine.proposals.arms import PoolKind, control, fewest_rows, ordered, request
from engine.proposals.kinds.contract import Draft, FormField, Kind, Procedure, Refused, effect_of
from engine.records.experiment import Bucket, Combine, Interval
from engine.records.pool import Layer, Pool, Slice
from engine.records.proposal import Proposal
from engine.study.opened import OpenStudy, last_rung


def draft_slices(opened: OpenStudy, wanted: Combine | Bucket) -> Draft:
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
    return Draft(stage, [r.part(share) for r in wholes], range(seeds))


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


def combine_objection(_opened: OpenStudy, proposal: Proposal, procedure: Procedure) -> str | None:
    """It stands in the lattice of the best slices."""
    combinations = procedure.combinations()
    if all(frozenset(p.slices) in combinations for p in proposal.tried):
        return None
    return "the paper's lattice of the best slices does not have this combination"


def bucket_objection(opened: OpenStudy, proposal: Proposal, _procedure: Procedure) -> str | None:
    """The probed changes of the statistic's buckets, weighted by the rows that the new bounds share with each."""
    (new,) = (p.slices[0] for p in proposal.tried)
    column, good = opened.columns[new.statistic], opened.scan.good
    mine = keeps(new, column) & good
    weighed, weights = 0.0, 0
    for entry in rank(opened, ("single",), ("probe",)):
        if entry.statistic == new.statistic and entry.effect.change is not None and entry.pool.slices != (new,):
            shared = int((keeps(entry.pool.slices[0], column) & mine).sum())
            weighed, weights = weighed + entry.effect.change * shared, weights + shared
    if weights and weighed / weights > 0:
        return None
    return "the buckets that these bounds lie in do not beat the control"


COMBINE = Kind(
    Combine,
    draft_slices,
    fields=(FormField("slices", "slices"),),
    takes="`slices`: 2 to 6 of `{statistic, bucket}` or `{statistic, low, high}` (low ≤ value < high)",
    doc="rows that lie in all of them, and the control",
    brief="rows that lie in all of two to six intervals of different statistics. An interval is a bucket of the study "
    "(low, mid, high) or has bounds of its own (low <= value < high). A bound is a value, or a place among the values "
    'in quotes: "p10" for a percentile, "mean+1sd" for k sigmas from the mean.',
    empty={"slices": [{}, {}]},
    objection=combine_objection,
)
BUCKET = Kind(
    Bucket,
    draft_slices,
    fields=(FormField("slice", "slice"),),
    takes="`slice`: `{statistic, low, high}`, one bound may be left out",
    doc="rows in these bounds, at the common size",
    brief="other bounds of one statistic than its buckets have.",
    empty={"slice": {}},
    objection=bucket_objection,
)

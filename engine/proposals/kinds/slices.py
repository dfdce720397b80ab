"""Kinds `combine` and `bucket`: rows that lie in intervals of statistics."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field, model_validator

from engine.base.places import parse
from engine.data.cuts import keeps, value_at
from engine.evidence.ranking import rank
from engine.journal import trials
from engine.proposals.arms import PoolKind, control, fewest_rows, ordered, request
from engine.proposals.best import chosen_slices, lattice
from engine.proposals.kinds.contract import Drafted, FormField, Kind, Refused, effect_of, own_pools
from engine.records.experiment import Experiment, Interval
from engine.records.pool import Layer, Pool, Slice
from engine.records.proposal import Proposal
from engine.study.opened import OpenStudy, last_rung


class Combine(Experiment):
    """Rows that lie in all of two to six intervals of different statistics (Section 3.2.2)."""

    place = 10
    kind: Literal["combine"]
    slices: tuple[Interval, ...] = Field(min_length=2, max_length=6)

    @model_validator(mode="after")
    def _differ(self) -> Combine:
        names = [s.statistic for s in self.slices]
        if len(set(names)) < len(names):
            raise ValueError("each statistic may stand once in a combination")
        return self


class Bucket(Experiment):
    """Rows in other bounds of one statistic than its buckets have."""

    place = 20
    kind: Literal["bucket"]
    slice: Interval

    @model_validator(mode="after")
    def _has_bounds(self) -> Bucket:
        if self.slice.bucket is not None:
            raise ValueError("the buckets are probed anyway; give low, high or both")
        return self


class CombineKind(Kind[Combine]):
    """Rows in several intervals."""

    schema = Combine
    form = (FormField("slices", "slices", start=({}, {})),)
    fields = (
        "`slices`: 2 to 6 of `{statistic, bucket}` (any that `djsb pools` lists: `mid`, `without-lowest-5%`, `only-1`) "
        "or `{statistic, low, high}` (low ≤ value < high)"
    )
    asks = "rows that lie in all of them, and the control"
    brief = (
        "rows that lie in all of two to six intervals of different statistics. An interval is a bucket of the"
        " study (low, mid, high; where the study has such pools also only-1, without-1, without-lowest-5% and"
        " the like) or has bounds of its own (low <= value < high). A bound is a value, or a "
        'place among the values in quotes: "p10" for a percentile, "mean+1sd" for k sigmas from the mean.'
    )

    def draft(self, opened: OpenStudy, experiment: Combine) -> Drafted:
        """At the size of the stage's other pools."""
        return _draft(opened, experiment)

    def objection(self, opened: OpenStudy, proposal: Proposal) -> str | None:
        """It stands in the lattice of the best slices, or not."""
        known = {frozenset(r.pool.slices[0] for r in chosen) for chosen in lattice(*chosen_slices(opened))}
        return (
            None
            if all(frozenset(p.to_pool().slices) in known for p in own_pools(proposal))
            else ("the paper's lattice of the best slices does not have this combination")
        )


class BucketKind(Kind[Bucket]):
    """Rows in bounds of one statistic."""

    schema = Bucket
    form = (FormField("slice", "slice", start={}),)
    fields = "`slice`: `{statistic, low, high}`, one bound may be left out"
    asks = "rows in these bounds, at the common size"
    brief = "other bounds of one statistic than its buckets have."

    def draft(self, opened: OpenStudy, experiment: Bucket) -> Drafted:
        """At the common size."""
        return _draft(opened, experiment)

    def objection(self, opened: OpenStudy, proposal: Proposal) -> str | None:
        """The probed changes of the statistic's buckets, weighted by the rows that the new bounds share with each."""
        (new,) = (p.to_pool().slices[0] for p in own_pools(proposal))
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


KINDS: tuple[Kind[Combine], Kind[Bucket]] = (CombineKind(), BucketKind())


def _draft(opened: OpenStudy, experiment: Combine | Bucket) -> Drafted:
    """One pool of the rows in all intervals, at the common size of its stage if they are enough."""
    parts = experiment.slices if isinstance(experiment, Combine) else (experiment.slice,)
    named = [_slice(opened, part) for part in parts]
    slices, name = ordered(s for s, _ in named), " + ".join(text for _, text in named)
    pool = Pool((Layer(slices),), opened.pool_size, seed=opened.study.seed)
    kept, stage, floor = opened.kept(pool), "probe", opened.pool_size
    if isinstance(experiment, Combine):
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
    return Drafted(stage, [r.part(share) for r in wholes], range(seeds))


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

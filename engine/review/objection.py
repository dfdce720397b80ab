"""What the paper's procedure thinks of another's proposal: a guard-rail of policies that approve without a person."""

from __future__ import annotations

from engine.data.cuts import keeps
from engine.evidence.ranking import Ranked, rank
from engine.records.proposal import Proposal
from engine.search.grid import chosen_slices, lattice, recipes
from engine.study.opened import OpenStudy


def objection(opened: OpenStudy, proposal: Proposal) -> str | None:
    """Why the paper's procedure would not ask for this, or None when it would.

    combine: it stands in the lattice of the best slices. repeat: the pool is one of the best recipes. seeds: the pool
    is among the best so far, or beats the control. bucket: the buckets that it lies in beat the control on average.
    """
    own = [p.to_pool() for p in proposal.pools if p.kind != "control"]
    if proposal.kind == "combine":
        known = {frozenset(r.pool.slices[0] for r in chosen) for chosen in lattice(*chosen_slices(opened))}
        if not all(frozenset(p.slices) in known for p in own):
            return "the paper's lattice of the best slices does not have this combination"
    elif proposal.kind == "repeat":
        scaled = {r.pool.slices for r in recipes(opened)[: opened.study.scale.recipes]}
        if not any(p.slices in scaled for p in own):
            return "the pool is not one of the best recipes"
    elif proposal.kind == "seeds":
        ranked = rank(opened)
        best = {r.pool.id for r in ranked[: opened.study.search.top]} | {r.pool.id for r in ranked if _helps(r)}
        if not all(p.id in best for p in own):
            return "the pool is not among the best"
    elif proposal.kind == "bucket":
        return _bucket_objection(opened, proposal)
    else:
        return f"the paper's procedure has no {proposal.kind}"
    return None


def _helps(entry: Ranked) -> bool:
    return entry.effect.change is not None and entry.effect.change > 0


def _bucket_objection(opened: OpenStudy, proposal: Proposal) -> str | None:
    """The probed changes of the statistic's buckets, weighted by the rows that the new bounds share with each."""
    (new,) = (p.to_pool().slices[0] for p in proposal.pools if p.kind != "control")
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

"""Kind `seeds`: more seeds of pools that were trained before."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.evidence.ranking import rank
from engine.journal import pools, trials
from engine.proposals.kinds.contract import Drafted, FormField, Kind, Refused, own_pools
from engine.records.experiment import Experiment, Id
from engine.records.proposal import Arm, Proposal
from engine.records.trial import Trial
from engine.study.opened import OpenStudy


class Seeds(Experiment):
    """More seeds for a pool and its control, at the length that it has reached."""

    place = 40
    kind: Literal["seeds"]
    pool: Id
    seeds: int = Field(strict=True, ge=1, le=16)


class SeedsKind(Kind[Seeds]):
    """More seeds of a pool."""

    schema = Seeds
    form = (FormField("pool", "pool"), FormField("seeds", "number", "1 … 16 more"))
    fields = "`pool`, `seeds` (1 … 16)"
    asks = "more seeds of the pool and of the control, at the length that it has reached"
    brief = "more seeds for a pool whose interval is wide and that may be among the best."

    def draft(self, opened: OpenStudy, experiment: Seeds) -> Drafted:
        """The next seeds of a pool at the longest training that it has, and of the control at the same."""
        trained = trials.finished(opened.store, opened.setup, experiment.pool)
        if not trained or trained[0].kind == "control":
            raise Refused(f"pool {experiment.pool} has no finished trial to add seeds to")
        longest = trained[0]
        control = trials.control_of(opened.store, longest)
        if control is None:
            raise Refused(f"pool {experiment.pool} has no control that trained as long")
        had = {t.seed for t in trained if (t.samples, t.horizon) == (longest.samples, longest.horizon)}
        seeds = [s for s in range(len(had) + experiment.seeds) if s not in had][: experiment.seeds]
        arms = [_arm(opened, control, longest), _arm(opened, experiment.pool, longest)]
        return Drafted(longest.stage, arms, seeds)

    def objection(self, opened: OpenStudy, proposal: Proposal) -> str | None:
        """The pool is among the best so far, or beats the control; or neither."""
        ranked = rank(opened)
        best = {r.pool.id for r in ranked[: opened.study.search.top]}
        best |= {r.pool.id for r in ranked if r.effect.change is not None and r.effect.change > 0}
        return None if all(p.key[0] in best for p in own_pools(proposal)) else "the pool is not among the best"


def _arm(opened: OpenStudy, key: str, trial: Trial) -> Arm:
    """A stored pool, for as long as a trial trains."""
    stored = pools.get(opened.store, key)
    assert stored is not None
    return Arm.model_validate({
        "pool": stored.pool.to_json(), "label": stored.label, "kind": stored.kind, "samples": trial.samples,
        "horizon": None if trial.whole else trial.horizon,
    })  # fmt: skip


KINDS = (SeedsKind(),)

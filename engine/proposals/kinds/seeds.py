"""Kind `seeds`: more seeds of pools that were trained before."""

from __future__ import annotations

from engine.journal import pools, trials
from engine.proposals.kinds.contract import Drafted, Refused
from engine.records.experiment import Seeds
from engine.records.proposal import Arm
from engine.records.trial import Trial
from engine.study.opened import OpenStudy


def draft_seeds(opened: OpenStudy, wanted: Seeds) -> Drafted:
    """The next seeds of a pool at the longest training that it has, and of the control at the same."""
    trained = trials.finished(opened.store, opened.setup, wanted.pool)
    if not trained or trained[0].kind == "control":
        raise Refused(f"pool {wanted.pool} has no finished trial to add seeds to")
    longest = trained[0]
    control = trials.control_of(opened.store, longest)
    if control is None:
        raise Refused(f"pool {wanted.pool} has no control that trained as long")
    had = {t.seed for t in trained if (t.samples, t.horizon) == (longest.samples, longest.horizon)}
    seeds = [s for s in range(len(had) + wanted.seeds) if s not in had][: wanted.seeds]
    return longest.stage, [_arm(opened, control, longest), _arm(opened, wanted.pool, longest)], seeds


def _arm(opened: OpenStudy, key: str, trial: Trial) -> Arm:
    """A stored pool, for as long as a trial trains."""
    stored = pools.get(opened.store, key)
    assert stored is not None
    return Arm.model_validate({
        "pool": stored.pool.to_json(), "label": stored.label, "kind": stored.kind, "samples": trial.samples,
        "horizon": None if trial.whole else trial.horizon,
    })  # fmt: skip

"""Run approved recipes on other models, data or amounts of training."""

from __future__ import annotations

from engine.evidence.transfer import STAGE, approved
from engine.journal import results
from engine.proposals.queue import ensure_trials
from engine.records.experiment import Scale
from engine.runner.scheduler import Scheduler
from engine.study.opened import OpenStudy
from engine.study.variants import elsewhere


def run_transfers(opened: OpenStudy, scheduler: Scheduler) -> str:
    """Run the approved proposals of kind `scale`; how it ended, as the scheduler says."""
    how = "done"
    for row in approved(opened):
        suggestion = row.proposal.suggestion
        assert suggestion is not None and isinstance(suggestion.experiment, Scale)
        ensure_trials(opened, row.proposal, row.id)
        other = elsewhere(opened, suggestion.experiment)
        scheduler.enter(other)
        if how != "done" or not scheduler.book.waiting([row.id]):
            continue
        results.METRIC_SCALES.put(opened.store, other.setup, tuple(other.metrics))
        scheduler.calibrate(flops=True)
        how = scheduler.run(STAGE, [row.id], scheduler.limit)
    return how

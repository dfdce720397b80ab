"""Run approved recipes on other models, data or amounts of training."""

from __future__ import annotations

from engine.evidence.transfer import STAGE
from engine.journal import results
from engine.proposals.kinds.transfer import approved
from engine.proposals.queue import ensure_trials, where
from engine.runner.scheduler import Scheduler
from engine.study.opened import OpenStudy


def run_transfers(opened: OpenStudy, scheduler: Scheduler) -> str:
    """Run the approved proposals of kind `transfer`; how it ended, as the scheduler says."""
    how = "done"
    for row in approved(opened):
        ensure_trials(opened, row.proposal, row.id)
        other = where(opened, row.proposal)
        scheduler.enter(other)
        if how != "done" or not scheduler.book.waiting([row.id]):
            continue
        results.METRIC_SCALES.put(opened.store, other.setup, tuple(other.metrics))
        scheduler.calibrate(flops=True)
        how = scheduler.run(STAGE, [row.id], scheduler.limit)
    return how

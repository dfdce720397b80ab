"""Run approved recipes on other models, data or amounts of training."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from engine.evidence.transfer import STAGE, approved
from engine.records.experiment import Scale
from engine.records.proposal import stored_proposal
from engine.study.opened import OpenStudy
from engine.study.variants import elsewhere

if TYPE_CHECKING:
    from engine.runner.scheduler import Scheduler


def run_transfers(opened: OpenStudy, at_work: Scheduler) -> str:
    """Run the approved proposals of kind `scale`; how it ended, as the scheduler says."""
    from engine.proposals.queue import ensure_trials

    how = "done"
    for row in approved(opened):
        proposal = stored_proposal(row)
        assert proposal.suggestion is not None and isinstance(proposal.suggestion.experiment, Scale)
        ensure_trials(opened, proposal, row["id"])
        other = elsewhere(opened, proposal.suggestion.experiment)
        at_work.enter(other)
        if how != "done" or not at_work.book.waiting([row["id"]]):
            continue
        opened.store.put_result(other.context, "metric_scales", [asdict(m) for m in other.metrics])
        at_work.calibrate(flops=True)
        how = at_work.run(STAGE, [row["id"]], at_work.limit)
    return how

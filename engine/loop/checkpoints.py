"""A checkpoint to continue from; trained again if it was not kept."""

from __future__ import annotations

from engine.base.durable import is_whole
from engine.base.errors import TrialError
from engine.journal import trials
from engine.runner.scheduler import Scheduler
from engine.study.opened import OpenStudy


def there_again(opened: OpenStudy, scheduler: Scheduler, trial: str, stage: str, what: str) -> bool:
    """True once the trial's checkpoint is there; one that was not kept is trained anew, to the bit.

    stage: under which it runs. what: needs it, as errors say. False when the run is stopped or the budget ends.
    Raises: TrialError.
    """
    checkpoint = opened.checkpoint(trial)
    if is_whole(checkpoint):
        return True
    scheduler.book.wait_again(trial)
    how = scheduler.run(stage, trials.asked_by(opened.store, trial), scheduler.limit)
    if how == "done" and not is_whole(checkpoint):
        raise TrialError(
            f"{what} the checkpoint of trial {trial}, which is gone and could not be made again; see djsb log, mend "
            "the cause, and the same command goes on"
        )
    return how == "done"

"""Model feedback as a statistic: what a reference model itself makes of each row (its loss, its similarity).

The paper leaves it open. In the first cycle the control's checkpoint says it, once the probe has ended: from then on
proposals may name the statistic. In each later cycle the checkpoint that the cycle starts from says it, before the
probe, so that its buckets are probed as those of any other statistic. The checkpoint's trial is one of the statistic's
parameters, and so part of every pool that is cut by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.base.errors import TrialError
from engine.base.ids import digest
from engine.study.model_scores import RESULT
from engine.study.opened import OpenStudy
from engine.tasks.contract import Feedback

if TYPE_CHECKING:
    from engine.runner.scheduler import Scheduler


def wanted(opened: OpenStudy) -> Feedback | None:
    """The task, where the study asks for its feedback."""
    if not opened.study.pools.feedback or opened.study.task is None:
        return None
    return opened.task if isinstance(opened.task, Feedback) else None


def begin(opened: OpenStudy, at_work: Scheduler) -> None:
    """Name the checkpoint as a cycle starts, so that it is kept; from the second cycle on, let it score the rows."""
    if wanted(opened) is None:
        return
    if opened.store.result(opened.context, RESULT) is None:
        content = {"trial": opened.init or _control(opened), "file": None}
        opened.store.put_result(opened.context, RESULT, content)
    if opened.init is not None:
        _measure(opened, at_work)


def after(opened: OpenStudy, stage: str, at_work: Scheduler) -> None:
    """In the first cycle: let the control's checkpoint score the rows once the probe has ended."""
    if wanted(opened) is not None and opened.init is None and stage == "probe" and not at_work.stopping:
        _measure(opened, at_work)


def _control(opened: OpenStudy) -> str:
    """The control's trial of the first seed at the last rung of the search."""
    from engine.proposals.arms import control, request, trial_id
    from engine.study.opened import last_rung

    asked = request(opened, control(opened, opened.pool_size), "control", "control")
    return trial_id(opened, asked.part(last_rung(opened)[0]), 0)


def _measure(opened: OpenStudy, at_work: Scheduler) -> None:
    """Score every row by the checkpoint on a device, once, and charge the time. One that was not kept is made again.

    Raises: TrialError.
    """
    task, found = wanted(opened), opened.store.result(opened.context, RESULT)
    assert task is not None and found is not None
    trial = found["trial"]
    name = f"feedback-{digest([opened.data.fingerprint, opened.data.fields.model_dump(), trial, task.version])}.npy"
    file, checkpoint = opened.state / "cache" / name, opened.state / "checkpoints" / trial
    if file.exists() and found["file"] == name:
        return
    if not file.exists():
        if not checkpoint.exists() and not _again(opened, trial, at_work):
            opened.store.event("feedback", "its trial has no result, so no row is scored", trial, "warning")
            return
        at_work.score(checkpoint, file)
    opened.store.put_result(opened.context, RESULT, {**found, "file": name, "statistic": task.scores})
    opened.store.event("feedback", f"{task.scores} of every row, by the checkpoint of this trial", trial)
    opened.forget_columns()


def _again(opened: OpenStudy, trial: str, at_work: Scheduler) -> bool:
    """Train the trial anew, to the bit, as its checkpoint was not kept; False when it never ran to its end."""
    rows = opened.store.query("SELECT proposal FROM proposal_trials WHERE trial = ?", (trial,))
    if not opened.store.one("SELECT 1 FROM trials WHERE id = ? AND state = 'COMPLETE'", (trial,)):
        return False
    at_work.book.wait_again(trial)
    how = at_work.run("probe", [r["proposal"] for r in rows], at_work.limit)
    if how == "done" and not (opened.state / "checkpoints" / trial).exists():
        raise TrialError(f"the checkpoint of trial {trial}, by which rows are scored, could not be made; see djsb log")
    return how == "done"

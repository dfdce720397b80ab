"""Model scores as a statistic: what a reference model itself makes of each row (its loss, its similarity).

The paper leaves it open. In the first cycle the control's checkpoint says it, once the probe has ended: from then on
proposals may name the statistic. In each later cycle the checkpoint that the cycle starts from says it, before the
probe, so that its buckets are probed as those of any other statistic. The checkpoint's trial is one of the statistic's
parameters, and so part of every pool that is cut by it.
"""

from __future__ import annotations

from dataclasses import replace

from engine.base.durable import is_whole
from engine.base.ids import content_id
from engine.journal import results, trials
from engine.journal.results import ModelScores
from engine.loop.checkpoints import there_again
from engine.proposals.arms import control, request, trial_id
from engine.runner.scheduler import Scheduler
from engine.study.opened import OpenStudy, last_rung
from engine.tasks.contract import ScoresRows


def scoring_task(opened: OpenStudy) -> ScoresRows | None:
    """The task, where the study asks for its scores."""
    if not opened.study.pools.model_scores or opened.study.task is None:
        return None
    return opened.task if isinstance(opened.task, ScoresRows) else None


def begin(opened: OpenStudy, scheduler: Scheduler) -> None:
    """Name the checkpoint as a cycle starts, so that it is kept; from the second cycle on, let it score the rows."""
    task = scoring_task(opened)
    if task is None:
        return
    if results.MODEL_SCORES.get(opened.store, opened.setup) is None:
        results.MODEL_SCORES.put(opened.store, opened.setup, ModelScores(opened.init or _control(opened)))
    if opened.init is not None:
        _measure(opened, task, scheduler)


def after(opened: OpenStudy, stage: str, scheduler: Scheduler) -> None:
    """In the first cycle: let the control's checkpoint score the rows once the probe has ended."""
    task = scoring_task(opened)
    if task is not None and opened.init is None and stage == "probe" and not scheduler.stopping:
        _measure(opened, task, scheduler)


def _control(opened: OpenStudy) -> str:
    """The control's trial of the first seed at the last rung of the search."""
    arm = request(opened, control(opened, opened.pool_size), "control", "control")
    return trial_id(opened, arm.part(last_rung(opened)[0]), 0)


def _measure(opened: OpenStudy, task: ScoresRows, scheduler: Scheduler) -> None:
    """Score every row by the checkpoint on a device, once, and charge the time. Raises: TrialError."""
    store, setup = opened.store, opened.setup
    scores = results.MODEL_SCORES.get(store, setup)
    assert scores is not None
    trial = scores.trial
    key = [opened.data.fingerprint, opened.data.key, trial, task.traits.version]
    name = f"scores-{content_id(key)}.npy"
    file, checkpoint = opened.state / "cache" / name, opened.checkpoint(trial)
    if is_whole(file) and scores.file == name:
        return
    if not is_whole(file):
        ran = is_whole(checkpoint) or trials.is_complete(store, trial)
        if not ran or not there_again(opened, scheduler, trial, "probe", "rows are scored by"):
            store.event("model scores", "its trial has no result, so no row is scored", trial, "warning")
            return
        scheduler.score(checkpoint, file)
    results.MODEL_SCORES.put(store, setup, replace(scores, file=name, statistic=task.traits.scores))
    store.event("model scores", f"{task.traits.scores} of every row, by the checkpoint of this trial", trial)
    opened.forget_columns()

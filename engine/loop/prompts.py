"""Ask the checkpoints with the prompts that were approved."""

from __future__ import annotations

import math

from engine.base.amounts import format_seconds
from engine.base.confine import inside
from engine.base.errors import TrialError
from engine.base.ids import content_id
from engine.evidence.prompts import STAGE, Column, columns
from engine.journal import costs, results, trials
from engine.proposals.kinds.prompt import approved, lacking, seconds
from engine.runner.scheduler import Scheduler
from engine.study.opened import OpenStudy


def run_prompts(opened: OpenStudy, scheduler: Scheduler) -> str:
    """Run the prompts that have no scores yet. Returns `done`, `stopped` or `budget`."""
    prompts = approved(opened)
    if not prompts:
        return "done"
    scheduler.enter(opened)
    checkpoints = columns(opened)
    if not checkpoints:
        text = f"no prompt was asked: {lacking(opened) or 'no checkpoint is kept'}"
        opened.store.event("prompts", text, level="warning")
    for column in checkpoints:
        for prompt in dict.fromkeys([opened.study.vlm.prompt, *prompts]):
            how = _ask(opened, scheduler, column, prompt)
            if how != "done":
                return how
    return "done"


def _ask(opened: OpenStudy, scheduler: Scheduler, column: Column, prompt: str) -> str:
    """Ask one checkpoint with one prompt, unless that was done; how it ended."""
    store = opened.store
    answers = results.PROMPTS.get(store, column.setup) or {}
    own = answers.setdefault(column.trial, {})
    if prompt in own:
        return "done"
    scheduler.obey()
    if scheduler.stopping:
        return "stopped"
    left = scheduler.limit - scheduler.accounts.spent()
    if left < (cost := seconds(scheduler.accounts) or 0.0):
        scheduler.note = (
            f"the budget ends before all prompts are asked: one takes about {format_seconds(cost)} and "
            f"{format_seconds(max(0.0, left))} are left"
        )
        return "budget"
    trial = trials.get(store, column.trial)
    part, items = scheduler.judged(trial.seed if trial else 0)  # as its control was
    done, took = scheduler.alone(
        "ask", "asking a prompt", checkpoint=str(inside(opened.folder, column.path)), prompt=prompt, part=part,
        items=items,
    )  # fmt: skip
    if not done.scores:
        raise TrialError(f"asking a prompt failed: the worker measured nothing; see {scheduler.slots[0].log}")
    own[prompt] = {n: v if math.isfinite(v) else None for n, v in done.scores.items()}
    with store.transaction():
        results.PROMPTS.put(store, column.setup, answers)
        costs.charge(
            store, f"prompt:{column.trial}:{content_id(prompt, 12)}", "prompt", took, trial=column.trial,
            stage=STAGE, device=scheduler.slots[0].device,
        )  # fmt: skip
    return "done"

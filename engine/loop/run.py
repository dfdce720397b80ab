"""The loop: proposal → gate → decision → trials → evidence, round after round, stage after stage, cycle after cycle.

Every round decides on what was there before it only, and all it does is in the database, so that a
killed run goes on where it was and ends with the same ranking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.base.amounts import parse_budget
from engine.base.scratch import tidy
from engine.journal import results, setups, trials
from engine.loop import cycles, fitting, model_scores, outcome
from engine.loop.notify import notices, tell_ending
from engine.loop.prompts import run_prompts
from engine.loop.stage import Policy, run_stage
from engine.loop.tracking import tracked
from engine.loop.transfer import run_transfers
from engine.proposals.queue import record_cuts
from engine.review.decisions import waiting_proposals
from engine.review.guard import check_guard
from engine.runner.scheduler import Scheduler, scheduler
from engine.search.contract import Adviser
from engine.search.screening import going_on
from engine.settings.study import STAGES
from engine.study.forecast import refuse_if_full
from engine.study.opened import OpenStudy, held

TRIES = 4  # times that a confirmation is fitted to what is left
PATIENCE = 600.0  # seconds that an engine waits for a database that another process, a backup say, has locked


@dataclass(frozen=True)
class Ended:
    """How a run ended: `done`, `budget`, `failed` or `stopped`, after which stage, with what note.

    awaiting: proposals that nobody has decided on.
    """

    how: str
    stage: str
    note: str = ""
    awaiting: int = 0


def run_loop(
    opened: OpenStudy,
    *,
    budget: str | None = None,
    until: str = "confirm",
    approve: str | None = None,
    workers: int | None = None,
    started: Callable[[Scheduler], None] = lambda _: None,
    adviser: Adviser | None = None,
    anyway: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Ended:
    """Run the stages up to `until`, and cycles of them, within the budget; the same call goes on where it ended.

    started: called with the scheduler before the first trial, for progress and stopping. adviser: asked for proposals
    and a summary after each stage. anyway: search, even if the budget cannot end in a confirmed answer. tell: gets what
    the budget buys, in lines.
    Raises: Awaited when proposals wait for a person; TooLittle, BudgetError, LockedError and others.
    """
    check_guard(opened.study)
    opened.store.patience.seconds = PATIENCE
    limit = parse_budget(budget or opened.study.budget)
    policy = Policy(approve or opened.study.approve, guard=approve == "auto")
    whole = until == STAGES[-1]
    with held(opened), notices(opened) as sent, tracked(opened) as show, scheduler(opened, limit, workers) as timed:
        if timed.slots.eager and setups.last(opened.store) is None:
            timed.slots[0].start()  # which takes seconds, while the data are read
        _ = opened.pool_size
        refuse_if_full(opened)
        _ = opened.main_metrics, opened.guards  # what is wrong with data or evaluation is told first
        tidy(opened.state)
        timed.book.recover()
        opened.record()
        outcome.overlap(opened)
        timed.calibrate()
        for line in fitting.begin(opened, timed.accounts, anyway or not whole):
            tell(line)
        started(timed)
        sent.watch(timed)
        show(timed)
        ends: list[Ended] = []
        for cycle in cycles.each(opened, timed, whole):
            ends.append(_cycle(cycle, until, policy, timed, adviser))
            if ends[-1].how in ("stopped", "failed"):
                break
        how = "done"
        if whole and ends[-1].how != "stopped":
            how = run_transfers(cycle, timed)
            if how == "done":
                how = run_prompts(cycle, timed)
        ended = _joined(ends, cycle, how, timed)
        tell_ending(sent, cycle, ended.how, ended.note, ended.awaiting)
        return ended


def _cycle(opened: OpenStudy, until: str, policy: Policy, scheduler: Scheduler, adviser: Adviser | None) -> Ended:
    """All stages of one cycle, up to `until`."""
    fitting.enter(opened)
    opened.record()
    results.BUDGET.put(opened.store, opened.setup, scheduler.limit)
    model_scores.begin(opened, scheduler)
    record_cuts(opened)
    notes: list[str] = []
    stages = [stage for stage in STAGES[: STAGES.index(until) + 1] if stage in opened.study.stages]
    while stages:
        stage = stages.pop(0)
        how, note = _stage(opened, stage, policy, scheduler, adviser)
        if how == "stopped":
            return Ended(how, stage, "stopped on request; the same command goes on")
        if note:
            notes.append(f"{stage}: {note}")
        if stage == "confirm" and fitting.extend(opened, scheduler.accounts):
            stages.append(stage)
    awaiting = len(waiting_proposals(opened, ("queued",)))
    if failed := _failures(opened):
        return Ended("failed", stage, "; ".join([failed, *notes]), awaiting)
    if stage == "confirm" and fitting.has_concluded(opened):
        notes, scheduler.note = [], ""  # that a stage before was cut short was its design
    return Ended("budget" if notes else "done", stage, "; ".join(notes), awaiting)


def _stage(
    opened: OpenStudy, stage: str, policy: Policy, scheduler: Scheduler, adviser: Adviser | None
) -> tuple[str, str]:
    """A stage with what it has shown: how it ended, and why if it ended early."""
    if stage == "confirm":
        fitting.fit(opened, scheduler.accounts)
    for _ in range(TRIES):
        how, note = run_stage(opened, stage, policy, scheduler, adviser)
        if how == "stopped":
            return how, note
        if stage != "confirm" or not note or not fitting.fits_now(opened, scheduler.accounts):
            break
    if stage == "confirm" and note and fitting.read_what_ran(opened):
        note = ""
    if note:
        opened.store.event("budget", note, stage, "warning")
    opened.store.fold()
    model_scores.after(opened, stage, scheduler)
    outcome.analyse(opened, stage)
    if adviser is not None:
        outcome.summarise(opened, stage, adviser)
    if not note:
        scheduler.states.clear(going_on(opened, stage))  # no later stage goes on with the others
    return how, note


def _failures(opened: OpenStudy) -> str:
    """What to say of the trials that failed for good, or nothing."""
    failed = trials.failed(opened.store, opened.setup)
    if not failed:
        return ""
    first = min(failed, key=lambda t: t.finished or "")
    return (
        f"{len(failed)} trial(s) failed for good, first {first.id}: {first.error}; see djsb log and the "
        "logs it names, mend the cause, and the same command tries them again"
    )


def _joined(ends: list[Ended], opened: OpenStudy, afterwards: str, scheduler: Scheduler) -> Ended:
    """How all cycles ended: as the last one, with a note where the budget ended an earlier one.

    afterwards: how transfers and prompts ended.
    """
    last = ends[-1]
    notes = [f"cycle {n}: {e.note}" if len(ends) > 1 else e.note for n, e in enumerate(ends, 1) if e.note]
    how = last.how
    if how == "done" and scheduler.stopping and (afterwards == "stopped" or cycles.next_start(opened)):
        how = "stopped"  # between two cycles, or after the last
    elif how == "done" and (notes or scheduler.note):
        how, notes = "budget", notes or [scheduler.note]
    return Ended(how, last.stage, "; ".join(notes), sum(e.awaiting for e in ends))

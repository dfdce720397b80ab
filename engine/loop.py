"""The loop: proposal → gate → decision → trials → evidence, round after round, stage after stage.

Every round decides on what was there before it only, and all it does is in the database, so that a
killed run goes on where it was and ends with the same ranking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine import outcome, proposal_queue
from engine.budget import parse_budget
from engine.errors import Awaited
from engine.open_study import EngineLock, OpenStudy
from engine.proposal_queue import STAGE_CAP, is_first_round
from engine.proposals import Proposer
from engine.scheduler import Scheduler, scheduler
from engine.search import proposer
from engine.study import STAGES


@dataclass(frozen=True)
class Ended:
    """How a run ended: `done`, `budget`, `failed` or `stopped`, after which stage, with what note."""

    how: str
    stage: str
    note: str = ""


def run_loop(
    opened: OpenStudy,
    *,
    budget: str | None = None,
    until: str = "confirm",
    approve: str | None = None,
    workers: int | None = None,
    started: Callable[[Scheduler], None] = lambda _: None,
) -> Ended:
    """Run the stages up to `until` within the budget; the same call goes on where it ended.

    started: called with the scheduler before the first trial, for progress and stopping.
    Raises: Awaited when proposals wait for a person; BudgetError, LockedError and others.
    """
    limit = parse_budget(budget or opened.study.budget)
    policy = approve or opened.study.approve
    with EngineLock(opened.state), scheduler(opened, limit, workers) as at_work:
        _ = opened.pool_size, opened.main_metrics  # what is wrong with data or evaluation is told first
        opened.record()
        opened.store.put_result(opened.context, "budget", limit)
        at_work.book.recover()
        proposal_queue.record_cuts(opened)
        at_work.calibrate()
        started(at_work)
        notes: list[str] = []
        for stage in STAGES[: STAGES.index(until) + 1]:
            how, note = _stage(opened, stage, policy, at_work)
            if how == "stopped":
                return Ended(how, stage, "stopped on request; the same command goes on")
            if note:
                notes.append(f"{stage}: {note}")
                opened.store.event("budget", note, stage, "warning")
            outcome.analyse(opened, stage)
            if not note:
                at_work.paused.clear()  # no later stage goes on with these
    if failed := _failures(opened):
        return Ended("failed", stage, "; ".join([failed, *notes]))
    return Ended("budget" if notes else "done", stage, "; ".join(notes))


def _stage(opened: OpenStudy, stage: str, policy: str, at_work: Scheduler) -> tuple[str, str]:
    """Rounds of one stage until its proposer has nothing more to ask: how it ended, and why before its end."""
    asks = proposer(opened.study, stage)
    while True:
        approved, refusals = _decide(opened, stage, asks, policy, at_work)
        if not at_work.book.waiting(approved):
            return "done", refusals[0] if refusals else ""
        alone = len(approved) == 1 and is_first_round(opened, stage, approved)
        how = at_work.run(stage, approved, at_work.limit * (1.0 if alone else STAGE_CAP[stage]))
        if how != "done" or refusals:
            return how, at_work.note or (refusals[0] if refusals else "")


def _failures(opened: OpenStudy) -> str:
    """What to say of the trials that failed for good, or nothing."""
    failed = opened.store.query(
        "SELECT id, error FROM trials WHERE context = ? AND state = 'FAIL' ORDER BY finished", (opened.context,)
    )
    if not failed:
        return ""
    return (
        f"{len(failed)} trial(s) failed for good, first {failed[0]['id']}: {failed[0]['error']}; see djsb log and the "
        "logs it names, mend the cause, and the same command tries them again"
    )


def _decide(
    opened: OpenStudy, stage: str, asks: Proposer, policy: str, at_work: Scheduler
) -> tuple[list[str], list[str]]:
    """Put a round's proposals through the gate and the policy: ids of those that may run, reasons of refusals.

    Raises: Awaited while a proposal of the stage waits for a person.
    """
    approved: list[str] = []
    waiting: list[str] = []
    refusals: list[str] = []
    proposals = asks.propose(opened)
    proposal_queue.supersede(opened, stage, [proposal_queue.stored_id(opened, p) for p in proposals])
    for proposal in proposals:
        key = proposal_queue.stored_id(opened, proposal)
        status, reason = proposal_queue.submit(opened, proposal, at_work.accounts, approved)
        if status == "queued" and policy == "auto":
            proposal_queue.decide(opened, key, "approve", "policy auto", "it passed the gate")
            status = "approved"
        if status == "approved":
            proposal_queue.ensure_trials(opened, proposal)
            approved.append(key)
        elif status in ("queued", "held"):
            waiting.append(key)
        elif status == "refused":
            refusals.append(reason)
    if waiting:
        if approved:
            at_work.run(stage, approved, at_work.limit)
        raise Awaited(
            f"{len(waiting)} proposal(s) of stage {stage} await a decision: djsb review --all --approve --why … "
            f"(or one by one: {', '.join(waiting)}), then the same command goes on"
        )
    return approved, refusals

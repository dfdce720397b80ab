"""One stage: rounds of proposals, gate, policy and trials, until no proposer has more."""

from __future__ import annotations

from dataclasses import dataclass

from engine.base.errors import Awaited
from engine.journal import proposals, results
from engine.proposals import queue
from engine.proposals.queue import is_first_round
from engine.review import decisions
from engine.review.guard import apply_guard
from engine.runner.scheduler import Scheduler
from engine.search.contract import Adviser, Proposer
from engine.search.strategies import proposer
from engine.settings.study import STAGES, Study
from engine.study.opened import OpenStudy


@dataclass(frozen=True)
class Policy:
    """What is approved without a person: `auto` or `hold` for the loop's own proposals.

    guard: the guard-rails decide on a language model's proposals even if the study leaves them to a person.
    """

    own: str
    guard: bool


def run_stage(
    opened: OpenStudy, stage: str, policy: Policy, scheduler: Scheduler, adviser: Adviser | None
) -> tuple[str, str]:
    """Run the rounds of a stage: how it ended, and why if it ended early."""
    asks = proposer(opened.study, stage)
    advised = adviser is None or stage in ("screen", "confirm")
    while True:
        approved, refusals = _decide(opened, stage, asks, policy, scheduler)
        approved += _others(opened, stage, policy)
        if not scheduler.book.waiting(approved):
            if refusals or advised:
                return "done", refusals[0] if refusals else ""
            advised = True
            _advise(opened, stage, adviser)
            continue
        first = len(approved) == 1 and is_first_round(opened, stage, approved)
        how = scheduler.run(stage, approved, scheduler.limit if first else scheduler.accounts.until(stage))
        if how != "done" or refusals:
            return how, scheduler.note or (refusals[0] if refusals else "")


def _decide(
    opened: OpenStudy, stage: str, asks: Proposer, policy: Policy, scheduler: Scheduler
) -> tuple[list[str], list[str]]:
    """Put a round's proposals through the gate and the policy: ids of those that may run, reasons of refusals.

    Raises: Awaited while a proposal of the stage waits for a person.
    """
    approved: list[str] = []
    waiting: list[str] = []
    refusals: list[str] = []
    round_ = asks.propose(opened)
    queue.supersede(opened, stage, asks.origin, [queue.stored_id(opened, p) for p in round_])
    for proposal in round_:
        key = queue.stored_id(opened, proposal)
        status, reason = queue.submit(opened, proposal, scheduler.accounts, approved)
        own = policy.own == "auto" or proposal.is_control  # which goes with pools that were approved
        if status == "queued" and own and not decisions.undone(opened, key):
            decisions.decide(opened, key, "approve", decisions.AUTO, "it passed the gate")
            status = "approved"
        if status == "approved":
            queue.ensure_trials(opened, proposal)
            approved.append(key)
        elif status in ("queued", "held"):
            waiting.append(key)
        elif status == "refused":
            refusals.append(reason)
    if waiting and approved:
        scheduler.run(stage, approved, scheduler.limit)
    _await(waiting, stage)
    return approved, refusals


def _others(opened: OpenStudy, stage: str, policy: Policy) -> list[str]:
    """Approved proposals of this stage and those before it that the loop itself did not ask for.

    Raises: Awaited when everything is to be held and such a proposal waits for a person.
    """
    apply_guard(opened, policy.guard)
    origins = _origins(opened.study, stage)
    approved = queue.asked_by_others(opened, origins)
    for row in proposals.by_ids(opened.store, approved):
        queue.ensure_trials(opened, row.proposal, row.id)
    if policy.own == "hold":
        waiting = proposals.of_setup(opened.store, opened.setup, ["queued"])
        _await([row.id for row in waiting if row.stage in origins], stage)
    return approved


def _advise(opened: OpenStudy, stage: str, adviser: Adviser | None) -> None:
    """Ask the adviser for proposals, once a stage in the life of a study; they go to the queue."""
    asked = results.asked(stage)
    if adviser is not None and asked.get(opened.store, opened.setup) is None:
        suggested = adviser.propose(opened, opened.study.agent.proposals)
        if suggested:
            asked.put(opened.store, opened.setup, [queue.stored_id(opened, p) for p in suggested])


def _origins(study: Study, stage: str) -> dict[str, str]:
    """Who asks in the loop, for this stage and those before it."""
    return {s: proposer(study, s).origin for s in STAGES[: STAGES.index(stage) + 1]}


def _await(waiting: list[str], stage: str) -> None:
    """Raises: Awaited that names the proposals, if there are any."""
    if waiting:
        raise Awaited(
            f"{len(waiting)} proposal(s) await a decision at stage {stage}: djsb review --all --approve --why … "
            f"(or one by one: {', '.join(waiting)}), then the same command goes on"
        )

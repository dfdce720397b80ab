"""The loop: proposal → gate → decision → trials → evidence, round after round, stage after stage, cycle after cycle.

Every round decides on what was there before it only, and all it does is in the database, so that a
killed run goes on where it was and ends with the same ranking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.base.amounts import parse_budget
from engine.base.errors import Awaited
from engine.loop import cycles, outcome
from engine.loop import model_scores as feedback
from engine.loop.prompts import run_prompts
from engine.loop.transfer import run_transfers
from engine.proposals import queue as proposal_queue
from engine.proposals.queue import STAGE_CAP, is_first_round
from engine.records.proposal import stored_proposal
from engine.review import decisions
from engine.review.guard import apply_guard
from engine.runner.scheduler import Scheduler, scheduler
from engine.search.contract import Adviser, Proposer
from engine.search.strategies import proposer
from engine.settings.study import STAGES, Study
from engine.study.lock import EngineLock
from engine.study.opened import OpenStudy


@dataclass(frozen=True)
class Ended:
    """How a run ended: `done`, `budget`, `failed` or `stopped`, after which stage, with what note.

    awaiting: proposals that nobody has decided on.
    """

    how: str
    stage: str
    note: str = ""
    awaiting: int = 0


@dataclass(frozen=True)
class Policy:
    """What is approved without a person: `auto` or `hold` for the loop's own proposals.

    guard: the guard-rails decide on a language model's proposals even if the study leaves them to a person.
    """

    own: str
    guard: bool


def run_loop(
    opened: OpenStudy,
    *,
    budget: str | None = None,
    until: str = "confirm",
    approve: str | None = None,
    workers: int | None = None,
    started: Callable[[Scheduler], None] = lambda _: None,
    adviser: Adviser | None = None,
) -> Ended:
    """Run the stages up to `until`, and cycles of them, within the budget; the same call goes on where it ended.

    started: called with the scheduler before the first trial, for progress and stopping. adviser: asked for proposals
    and a summary after each stage.
    Raises: Awaited when proposals wait for a person; BudgetError, LockedError and others.
    """
    limit = parse_budget(budget or opened.study.budget)
    policy = Policy(approve or opened.study.approve, guard=approve == "auto")
    with EngineLock(opened.state), scheduler(opened, limit, workers) as at_work:
        _ = opened.pool_size, opened.main_metrics  # what is wrong with data or evaluation is told first
        at_work.book.recover()
        opened.record()
        at_work.calibrate()
        started(at_work)
        ended: list[Ended] = []
        for cycle in cycles.each(opened, at_work, whole=until == STAGES[-1]):
            ended.append(_cycle(cycle, until, policy, at_work, adviser))
            if ended[-1].how in ("stopped", "failed"):
                break
        transferred = run_transfers(cycle, at_work) if until == STAGES[-1] and ended[-1].how != "stopped" else "done"
        if until == STAGES[-1] and transferred == "done" and ended[-1].how != "stopped":
            transferred = run_prompts(cycle, at_work)
        return _joined(ended, cycle, transferred, at_work)


def _cycle(opened: OpenStudy, until: str, policy: Policy, at_work: Scheduler, adviser: Adviser | None) -> Ended:
    """All stages of one cycle, up to `until`."""
    opened.record()
    opened.store.put_result(opened.context, "budget", at_work.limit)
    feedback.begin(opened, at_work)
    proposal_queue.record_cuts(opened)
    notes: list[str] = []
    for stage in STAGES[: STAGES.index(until) + 1]:
        how, note = _stage(opened, stage, policy, at_work, adviser)
        if how == "stopped":
            return Ended(how, stage, "stopped on request; the same command goes on")
        if note:
            notes.append(f"{stage}: {note}")
            opened.store.event("budget", note, stage, "warning")
        feedback.after(opened, stage, at_work)
        outcome.analyse(opened, stage)
        if adviser is not None:
            outcome.summarise(opened, stage, adviser)
        if not note:
            at_work.states.clear()  # no later stage goes on with these
    awaiting = len(decisions.waiting_proposals(opened, ("queued",)))
    if failed := _failures(opened):
        return Ended("failed", stage, "; ".join([failed, *notes]), awaiting)
    return Ended("budget" if notes else "done", stage, "; ".join(notes), awaiting)


def _joined(ended: list[Ended], opened: OpenStudy, transferred: str, at_work: Scheduler) -> Ended:
    """How all cycles together ended: as the last one, but the budget that ended an earlier one is told as well."""
    last = ended[-1]
    notes = [f"cycle {n}: {e.note}" if len(ended) > 1 else e.note for n, e in enumerate(ended, 1) if e.note]
    how = last.how
    if how == "done" and at_work.stopping and (transferred == "stopped" or cycles.next_start(opened)):
        how = "stopped"  # between two cycles, or after the last
    elif how == "done" and (notes or at_work.note):
        how, notes = "budget", notes or [at_work.note]
    return Ended(how, last.stage, "; ".join(notes), sum(e.awaiting for e in ended))


def _stage(
    opened: OpenStudy, stage: str, policy: Policy, at_work: Scheduler, adviser: Adviser | None
) -> tuple[str, str]:
    """Rounds of one stage until nobody has more to ask: how it ended, and why before its end."""
    asks = proposer(opened.study, stage)
    advised = adviser is None or stage == "confirm"
    while True:
        approved, refusals = _decide(opened, stage, asks, policy, at_work)
        approved += _others(opened, stage, policy)
        if not at_work.book.waiting(approved):
            if refusals or advised:
                return "done", refusals[0] if refusals else ""
            advised = True
            _ask(opened, stage, adviser)
            continue
        alone = len(approved) == 1 and is_first_round(opened, stage, approved)
        how = at_work.run(stage, approved, at_work.limit if alone else at_work.accounts.allowance(STAGE_CAP[stage]))
        if how != "done" or refusals:
            return how, at_work.note or (refusals[0] if refusals else "")


def _ask(opened: OpenStudy, stage: str, adviser: Adviser | None) -> None:
    """Ask the adviser for proposals, once a stage in the life of a study; they go to the queue."""
    if adviser is not None and opened.store.result(opened.context, f"asked:{stage}") is None:
        found = adviser.propose(opened, opened.study.agent.proposals)
        if found:
            ids = [proposal_queue.stored_id(opened, p) for p in found]
            opened.store.put_result(opened.context, f"asked:{stage}", ids)


def _others(opened: OpenStudy, stage: str, policy: Policy) -> list[str]:
    """Approved proposals of this stage and those before it that the loop itself did not ask for.

    Raises: Awaited when everything is to be held and such a proposal waits for a person.
    """
    apply_guard(opened, policy.guard)
    origins = _origins(opened.study, stage)
    approved = proposal_queue.asked_by_others(opened, origins)
    for row in opened.store.query(f"SELECT * FROM proposals WHERE id IN ({', '.join('?' * len(approved))})", approved):
        proposal_queue.ensure_trials(opened, stored_proposal(row), row["id"])
    if policy.own == "hold":
        rows = opened.store.query(
            "SELECT id, stage FROM proposals WHERE context = ? AND status = 'queued'", (opened.context,)
        )
        _await([r["id"] for r in rows if r["stage"] in origins], stage)
    return approved


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
    opened: OpenStudy, stage: str, asks: Proposer, policy: Policy, at_work: Scheduler
) -> tuple[list[str], list[str]]:
    """Put a round's proposals through the gate and the policy: ids of those that may run, reasons of refusals.

    Raises: Awaited while a proposal of the stage waits for a person.
    """
    approved: list[str] = []
    waiting: list[str] = []
    refusals: list[str] = []
    proposals = asks.propose(opened)
    proposal_queue.supersede(opened, stage, asks.origin, [proposal_queue.stored_id(opened, p) for p in proposals])
    for proposal in proposals:
        key = proposal_queue.stored_id(opened, proposal)
        status, reason = proposal_queue.submit(opened, proposal, at_work.accounts, approved)
        if status == "queued" and policy.own == "auto" and not decisions.undone(opened, key):
            decisions.decide(opened, key, "approve", decisions.AUTO, "it passed the gate")
            status = "approved"
        if status == "approved":
            proposal_queue.ensure_trials(opened, proposal)
            approved.append(key)
        elif status in ("queued", "held"):
            waiting.append(key)
        elif status == "refused":
            refusals.append(reason)
    if waiting and approved:
        at_work.run(stage, approved, at_work.limit)
    _await(waiting, stage)
    return approved, refusals

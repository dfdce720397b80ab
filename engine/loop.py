"""The loop: proposal → gate → decision → trials → evidence, stage after stage.

Every stage decides on the stages before it only, and all it does is in the database, so that a
killed run goes on where it was and ends with the same ranking.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from engine import gate, outcome
from engine.budget import parse_budget
from engine.errors import Awaited
from engine.open_study import EngineLock, OpenStudy
from engine.pools import Pool
from engine.proposals import PoolRequest, Proposal
from engine.scheduler import Scheduler, scheduler
from engine.search.paper import Paper
from engine.slots import devices
from engine.store import now
from engine.study import STAGES, digest

# share of the budget that may be spent when a stage ends, so that later stages are not starved
STAGE_CAP = {"probe": 0.6, "combine": 0.8, "scale": 0.85, "confirm": 1.0}


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
    with EngineLock(opened.state), scheduler(opened, limit, devices(workers)) as at_work:
        _ = opened.pool_size, opened.main_metrics  # what is wrong with data or evaluation is told first
        opened.record()
        opened.store.put_result(opened.context, "budget", limit)
        at_work.recover()
        record_cuts(opened)
        at_work.calibrate()
        started(at_work)
        notes = []
        for stage in STAGES[: STAGES.index(until) + 1]:
            approved = _decide(opened, stage, policy, at_work)
            how = at_work.run(stage, approved)
            if how == "stopped":
                return Ended(how, stage, "stopped on request; the same command goes on")
            note = at_work.note or _unaffordable(opened, stage)
            if note:
                notes.append(f"{stage}: {note}")
                opened.store.event("budget", note, stage, "warning")
            outcome.analyse(opened, stage)
    if failed := _failures(opened):
        return Ended("failed", stage, "; ".join([failed, *notes]))
    return Ended("budget" if notes else "done", stage, "; ".join(notes))


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


def _decide(opened: OpenStudy, stage: str, policy: str, at_work: Scheduler) -> list[str]:
    """Put the stage's proposals through the gate and the policy; ids of those that may run.

    Raises: Awaited while a proposal of the stage waits for a person.
    """
    approved: list[str] = []
    waiting: list[str] = []
    for proposal in Paper(stage).propose(opened):
        key, status = stored_id(opened, proposal), submit(opened, proposal, at_work)
        if status == "queued" and policy == "auto":
            decide(opened, key, "approve", "policy auto", "it passed the gate")
            status = "approved"
        if status == "approved":
            ensure_trials(opened, proposal)
            approved.append(key)
        elif status in ("queued", "held"):
            waiting.append(key)
    if waiting:
        if approved:
            at_work.run(stage, approved)
        raise Awaited(
            f"{len(waiting)} proposal(s) of stage {stage} await a decision: djsb review --all --approve --why … "
            f"(or one by one: {', '.join(waiting)}), then the same command goes on"
        )
    return approved


def _unaffordable(opened: OpenStudy, stage: str) -> str:
    """The reason of the stage's first proposal that the budget refused, or nothing."""
    refused = opened.store.one(
        "SELECT content FROM proposals WHERE context = ? AND stage = ? AND status = 'refused' ORDER BY at",
        (opened.context, stage),
    )
    reason = json.loads(refused["content"])["gate"] if refused else ""
    return reason if reason.startswith("budget") else ""


def stored_id(opened: OpenStudy, proposal: Proposal) -> str:
    """A proposal's id in the store: the same request in another context is another proposal."""
    return digest([opened.context, proposal.id], 12)


def submit(opened: OpenStudy, proposal: Proposal, at_work: Scheduler) -> str:
    """Check a proposal at the gate and store it; its status. A decided one keeps its status."""
    store, key = opened.store, stored_id(opened, proposal)
    known = store.one("SELECT status FROM proposals WHERE id = ?", (key,))
    if known and known["status"] not in ("queued", "refused"):
        return str(known["status"])
    new = [t for t in _trials(opened, proposal) if not store.one("SELECT 1 FROM trials WHERE id = ?", (t[0],))]
    costs = [at_work.estimate(request.samples) for _, request, _ in new]
    cost = sum(c for c in costs if c is not None) if all(c is not None for c in costs) else None
    ledger = at_work.ledger()
    outstanding = sum(
        at_work.estimate(r["samples"]) or 0.0
        for r in store.query("SELECT samples FROM trials WHERE context = ? AND state = 'WAITING'", (opened.context,))
    )
    first = proposal.stage == "probe" and proposal.seeds[0] == 0
    cap = ledger.limit * (1.0 if first else STAGE_CAP[proposal.stage])
    passed = gate.check(proposal, opened, cost, max(0.0, cap - ledger.spent - outstanding), len(new))
    # a stage whose every trial an earlier stage ran has nothing left to ask for, and is no failure
    status = "queued" if passed.ok else "approved" if not new else "refused"
    with store.transaction():
        content = {**proposal.model_dump(mode="json"), "gate": passed.reason}
        store.put(
            "proposals",
            {"id": key, "context": opened.context, "origin": proposal.origin, "kind": proposal.kind,
             "stage": proposal.stage, "content": json.dumps(content), "status": status, "cost": cost, "at": now()},
        )  # fmt: skip
        if status == "refused" and (known is None or known["status"] != "refused"):
            store.event("refused", passed.reason, key, "warning")
    return status


def decide(opened: OpenStudy, proposal: str, verdict: str, who: str, why: str) -> None:
    """Record a decision and what it makes of the proposal."""
    status = {"approve": "approved", "reject": "rejected", "hold": "held"}[verdict]
    with opened.store.transaction():
        opened.store.put("decisions", {"proposal": proposal, "verdict": verdict, "who": who, "why": why, "at": now()})
        opened.store.execute("UPDATE proposals SET status = ? WHERE id = ?", (status, proposal))
        opened.store.event("decision", f"{verdict} by {who}: {why}", proposal)


def _trials(opened: OpenStudy, proposal: Proposal) -> list[tuple[str, PoolRequest, int]]:
    """(trial id, request, seed) of all that a proposal asks for. The id is the content's hash."""
    return [
        (digest([opened.context, request.to_pool().id, request.samples, seed, None]), request, seed)
        for seed in proposal.seeds
        for request in proposal.pools
    ]


def ensure_trials(opened: OpenStudy, proposal: Proposal) -> None:
    """Write the proposal's pools and trials; what is there already stays as it is."""
    store, key = opened.store, stored_id(opened, proposal)
    with store.transaction():
        for trial, request, seed in _trials(opened, proposal):
            pool = request.to_pool()
            put_pool(opened, pool, request.label, request.kind)
            store.execute(
                "INSERT OR IGNORE INTO trials(id, context, pool, seed, init, samples, stage, proposal, state) "
                "VALUES(?, ?, ?, ?, NULL, ?, ?, ?, 'WAITING')",
                (trial, opened.context, pool.id, seed, request.samples, proposal.stage, key),
            )
            store.put("proposal_trials", {"proposal": key, "trial": trial})


def put_pool(opened: OpenStudy, pool: Pool, label: str, kind: str) -> None:
    """Write a pool's description once."""
    one = pool.slices[0] if len(pool.slices) == 1 else None
    bucket = label.rsplit(" ", 1)[-1] if one is not None and kind == "single" else None
    opened.store.execute(
        "INSERT OR IGNORE INTO pools(id, content, label, kind, op, statistic, bucket, at) "
        "VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
        (
            pool.id,
            json.dumps(asdict(pool)),
            label,
            kind,
            one and one.op,
            one and one.statistic,
            bucket,
            now(),
        ),
    )


def record_cuts(opened: OpenStudy) -> None:
    """Write all single-OP pools, degenerate ones with their reason."""
    rows = []
    with opened.store.transaction():
        opened.store.execute("DELETE FROM pool_cuts WHERE context = ?", (opened.context,))
        for cut in opened.cuts:
            put_pool(opened, cut.pool, cut.label, "single")
            rows.append(
                {"context": opened.context, "op": cut.slice.op, "statistic": cut.slice.statistic,
                 "bucket": cut.bucket, "pool": cut.pool.id, "kept": cut.kept, "entropy": None,
                 "verdict": "degenerate" if cut.reason else "ok", "reason": cut.reason}
            )  # fmt: skip
        opened.store.put("pool_cuts", rows)


def waiting_proposals(opened: OpenStudy, statuses: Sequence[str] = ("queued", "held")) -> list[str]:
    """Ids of the proposals that wait for a person."""
    marks = ", ".join("?" * len(statuses))
    rows = opened.store.query(
        f"SELECT id FROM proposals WHERE context = ? AND status IN ({marks}) ORDER BY at",
        (opened.context, *statuses),
    )
    return [r["id"] for r in rows]

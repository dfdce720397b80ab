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
from engine.proposals import PoolRequest, Proposal, Proposer
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
        notes: list[str] = []
        for stage in STAGES[: STAGES.index(until) + 1]:
            approved, refusals = _decide(opened, stage, policy, at_work)
            how = at_work.run(stage, approved, _cap(opened, stage, approved, limit))
            if how == "stopped":
                return Ended(how, stage, "stopped on request; the same command goes on")
            if ended := [*([at_work.note] if at_work.note else []), *refusals[:1]]:
                notes.append(f"{stage}: {ended[0]}")
                opened.store.event("budget", ended[0], stage, "warning")
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


def _cap(opened: OpenStudy, stage: str, approved: list[str], limit: float) -> float:
    """Device-seconds that may be spent in all when the stage ends; one round of the probe may use the whole limit."""
    return limit if stage == "probe" and len(approved) == 1 else limit * STAGE_CAP[stage]


def _decide(opened: OpenStudy, stage: str, policy: str, at_work: Scheduler) -> tuple[list[str], list[str]]:
    """Put the stage's proposals through the gate and the policy: ids of those that may run, reasons of refusals.

    Raises: Awaited while a proposal of the stage waits for a person.
    """
    approved: list[str] = []
    waiting: list[str] = []
    refusals: list[str] = []
    proposer: Proposer = Paper(stage)
    proposals = proposer.propose(opened)
    _supersede(opened, stage, [stored_id(opened, p) for p in proposals])
    for proposal in proposals:
        key = stored_id(opened, proposal)
        status, reason = submit(opened, proposal, at_work, approved)
        if status == "queued" and policy == "auto":
            decide(opened, key, "approve", "policy auto", "it passed the gate")
            status = "approved"
        if status == "approved":
            ensure_trials(opened, proposal)
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


def _supersede(opened: OpenStudy, stage: str, current: list[str]) -> None:
    """Undecided proposals of an earlier run that the evidence no longer asks for wait for nobody."""
    marks = ", ".join("?" * len(current))
    opened.store.execute(
        "UPDATE proposals SET status = 'superseded' WHERE context = ? AND stage = ? "
        f"AND status IN ('queued', 'held', 'refused') AND id NOT IN ({marks})",
        (opened.context, stage, *current),
    )


def stored_id(opened: OpenStudy, proposal: Proposal) -> str:
    """A proposal's id in the store: the same request in another context is another proposal."""
    return digest([opened.context, proposal.id], 12)


def submit(opened: OpenStudy, proposal: Proposal, at_work: Scheduler, approved: Sequence[str] = ()) -> tuple[str, str]:
    """Check a proposal at the gate and store it; its status and the gate's reason.

    approved: proposals of the stage whose trials may still wait. A decided proposal keeps its status,
    and one that the budget refused stays refused until the limit rises, so that a resumed run decides alike.
    """
    store, key = opened.store, stored_id(opened, proposal)
    known = store.one("SELECT status, content FROM proposals WHERE id = ?", (key,))
    before = json.loads(known["content"]) if known else {}
    limit = at_work.limit
    if known and known["status"] not in ("queued", "refused", "superseded"):
        return str(known["status"]), str(before["gate"])
    if known and known["status"] == "refused" and before["gate"].startswith("budget") and before["limit"] >= limit:
        return "refused", str(before["gate"])
    new = [t for t in _trials(opened, proposal) if not store.one("SELECT 1 FROM trials WHERE id = ?", (t[0],))]
    costs = [at_work.estimate(request.samples) for _, request, _ in new]
    cost = sum(c for c in costs if c is not None) if all(c is not None for c in costs) else None
    marks = ", ".join("?" * len(approved))
    outstanding = sum(
        at_work.estimate(r["samples"]) or 0.0
        for r in store.query(
            "SELECT DISTINCT t.id, t.samples FROM trials t JOIN proposal_trials x ON x.trial = t.id "
            f"WHERE t.state = 'WAITING' AND x.proposal IN ({marks})",
            approved,
        )
    )
    first = proposal.stage == "probe" and proposal.seeds[0] == 0
    cap = limit * (1.0 if first else STAGE_CAP[proposal.stage])
    passed = gate.check(proposal, opened, cost, max(0.0, cap - at_work.ledger().spent - outstanding), len(new))
    # a stage whose every trial an earlier stage ran has nothing left to ask for, and is no failure
    status = "queued" if passed.ok else "approved" if not new else "refused"
    with store.transaction():
        content = {**proposal.model_dump(mode="json"), "gate": passed.reason, "limit": limit}
        store.put(
            "proposals",
            {"id": key, "context": opened.context, "origin": proposal.origin, "kind": proposal.kind,
             "stage": proposal.stage, "content": json.dumps(content), "status": status, "cost": cost, "at": now()},
        )  # fmt: skip
        if status == "refused":
            store.event("refused", passed.reason, key, "warning")
    return status, passed.reason


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

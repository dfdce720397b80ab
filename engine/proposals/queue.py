"""The queue of proposals: what each asks for, the gate's answer, and its trials once it is approved.

Nothing runs that is not in this queue and approved there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from engine.base.ids import content_id
from engine.journal import decisions, pools, proposals, results, trials
from engine.journal.pools import PoolCut
from engine.journal.store import Row
from engine.proposals import gate
from engine.proposals.arms import trial_id
from engine.proposals.kinds.mixture import parts
from engine.proposals.kinds.registry import kind_of
from engine.records.proposal import Arm, Proposal, Status
from engine.records.trial import Trial
from engine.runner.accounts import Accounts
from engine.study.designed import design_of
from engine.study.opened import OpenStudy
from engine.study.view import StudyView


def supersede(opened: OpenStudy, stage: str, origin: str, current: list[str]) -> None:
    """Supersede undecided proposals of an earlier round that their origin no longer asks for."""
    proposals.supersede(opened.store, opened.setup, stage, origin, current)


def stored_id(opened: OpenStudy, proposal: Proposal) -> str:
    """A proposal's id in the store: the same request in another setup is another proposal."""
    return content_id([opened.setup, proposal.id], 12)


def submit(opened: OpenStudy, proposal: Proposal, accounts: Accounts, approved: Sequence[str] = ()) -> tuple[str, str]:
    """Check a proposal at the gate and store it; its status and the gate's reason.

    approved: proposals of the stage whose trials may still wait. A decided proposal keeps its status,
    and one that the budget refused stays refused until the limit rises, so that a resumed run decides alike.
    """
    store, key = opened.store, stored_id(opened, proposal)
    earlier, limit = proposals.get(store, key), accounts.limit
    if earlier:
        if earlier.status == "queued" and proposal.suggestion and earlier.origin != proposal.origin:
            return "queued", f"the same was asked for by {earlier.origin} and waits"  # who asks again changes nothing
        over = earlier.gate.startswith("budget") and earlier.content["limit"] >= limit
        if earlier.status not in ("queued", "refused", "superseded") or (earlier.status == "refused" and over):
            return earlier.status, earlier.gate
    passed, new = examine(opened, proposal, accounts, approved)
    # a stage whose every trial an earlier stage ran has nothing left to ask for, and is no failure
    status: Status = "queued" if passed.ok else "approved" if not new else "refused"
    with store.transaction():
        notes = {"gate": passed.reason, "limit": limit}
        proposals.put(store, key, opened.setup, proposal, status, passed.cost, notes)
        if status == "refused":
            store.event("refused", passed.reason, key, "warning")
    return status, passed.reason


def examine(
    opened: OpenStudy, proposal: Proposal, accounts: Accounts, approved: Sequence[str] = ()
) -> tuple[gate.Passed, int]:
    """What the gate says of a proposal, and how many of its trials are new; nothing is written."""
    store, key, limit = opened.store, stored_id(opened, proposal), accounts.limit
    at = where(opened, proposal)
    if proposal.suggestion is not None:
        experiment = proposal.suggestion.experiment
        work = kind_of(experiment).work(opened, experiment, accounts)
        if work is not None:
            free = max(0.0, accounts.until(_stage(proposal)) - accounts.spent())
            cost = None if work.seconds is None else work.seconds * work.units
            return gate.check(proposal, at, cost, free, work.units), work.units
    every = _trials(at, proposal)
    stored = trials.states(store, [trial for trial, _, _ in every])
    new = [t for t in every if t[0] not in stored]
    estimate = cache(Accounts(at, limit).estimate)
    costs = [estimate(request.samples - _had(at, request, seed)) for _, request, seed in new]
    cost = sum(c for c in costs if c is not None) if all(c is not None for c in costs) else None
    outstanding = sum(estimate(t.samples) or 0.0 for t in trials.of_proposals(store, approved) if t.state == "WAITING")
    first = proposal.seeds[0] == 0 and is_first_round(opened, proposal.stage, [key])
    cap = limit if first else accounts.until(_stage(proposal))
    available = max(0.0, cap - accounts.spent() - outstanding)
    return gate.check(proposal, at, cost, available, len(new)), len(new)


def where(opened: OpenStudy, proposal: Proposal) -> OpenStudy:
    """The study as a proposal's trials see it: in this cycle, in a next one, or on another model or dataset."""
    if proposal.suggestion is None:
        return opened.following(proposal.init) if proposal.init else opened
    experiment = proposal.suggestion.experiment
    return kind_of(experiment).where(opened, experiment)


def _stage(proposal: Proposal) -> str:
    """The stage whose part of the budget a proposal may use; a suggestion may come late, before the screening."""
    return "scale" if proposal.suggestion else proposal.stage


def asked_by_others(opened: OpenStudy, stages: Mapping[str, str]) -> list[str]:
    """Ids of approved proposals of these stages that the loop's own proposer did not ask for.

    stages: stage → the origin of what the loop itself asks there.
    """
    rows = proposals.approved(opened.store, opened.setup)
    return [r.id for r in rows if r.stage in stages and r.origin != stages[r.stage]]


def is_first_round(opened: OpenStudy, stage: str, own: Sequence[str]) -> bool:
    """True in the probe until any other proposal than these has a result: one round may use the whole budget.

    Not in a designed study, which reserves its confirmation.
    """
    first = stage == "probe" and design_of(opened) is None
    return first and not trials.has_others(opened.store, opened.setup, own)


def _had(opened: OpenStudy, request: Arm, seed: int) -> int:
    """Samples of the request that a shorter trial has trained, whose state is kept."""
    return trials.longest_part(opened.store, opened.setup, request.key, seed) if opened.can_pause else 0


def _trials(opened: OpenStudy, proposal: Proposal) -> list[tuple[str, Arm, int]]:
    """(trial id, request, seed) of all that a proposal asks for."""
    return [(trial_id(opened, arm, seed), arm, seed) for arm, seed in proposal.runs]


def ensure_trials(opened: OpenStudy, proposal: Proposal, key: str | None = None) -> None:
    """Write the proposal's pools and trials; what is there already stays as it is.

    key: its id in the store, where it was asked for in another cycle.
    """
    store, key, at = opened.store, key or stored_id(opened, proposal), where(opened, proposal)
    with store.transaction():
        for trial, request, seed in _trials(at, proposal):
            pool, samples, horizon = request.key
            pools.add(store, request.to_pool(), request.label, request.kind)
            trials.add(store, Trial(
                trial, at.setup, pool, request.label, request.kind, seed, at.init, samples, horizon,
                proposal.stage, key, "WAITING",
            ))  # fmt: skip


def record_cuts(opened: OpenStudy) -> None:
    """Write all single-OP pools, degenerate ones with their reason, and how many rows what may be mixed has."""
    if opened.study.dataset.sources or opened.study.mixtures.over:
        results.PARTS.put(opened.store, opened.setup, parts(opened))
    pools.replace_cuts(opened.store, opened.setup, [
        PoolCut(c.slice.op, c.slice.statistic, c.bucket, c.pool, c.kept, reason=c.reason) for c in opened.cuts
    ])  # fmt: skip


def proposal_rows(opened: StudyView, ids: list[str]) -> list[Row]:
    """Proposals as they are listed; reason: why it is asked for, gate: what the gate said."""
    rows = []
    for stored in proposals.by_ids(opened.store, ids):
        made = decisions.of_proposal(opened.store, stored.id)
        rows.append(
            {"id": stored.id, "origin": stored.origin, "kind": stored.kind, "stage": stored.stage,
             "status": stored.status, "reason": stored.reason, "gate": stored.gate, "cost": stored.cost,
             "at": stored.at,
             "decisions": [{"verdict": d.verdict, "who": d.who, "why": d.why, "at": d.at} for d in made],
             "content": stored.content}
        )  # fmt: skip
    return rows

"""Table `decisions`: who decided what of which proposal."""

from __future__ import annotations

from dataclasses import dataclass

from engine.journal.store import Store, now
from engine.records.decision import Decision


def put(store: Store, proposal: str, verdict: str, who: str, why: str) -> None:
    """Write a decision."""
    store.put("decisions", {"proposal": proposal, "verdict": verdict, "who": who, "why": why, "at": now()})


def of_proposal(store: Store, proposal: str) -> list[Decision]:
    """The decisions on a proposal, the oldest first."""
    sql = "SELECT id, proposal, verdict, who, why, at FROM decisions WHERE proposal = ? ORDER BY id"
    return [Decision(**row) for row in store.query(sql, (proposal,))]


def last(store: Store, count: int, without: str) -> list[Decision]:
    """The last decisions, latest first. without: the stage whose proposals are left out."""
    rows = store.query(
        "SELECT d.id, d.proposal, d.verdict, d.who, d.why, d.at FROM decisions d LEFT JOIN proposals p "
        "ON p.id = d.proposal WHERE coalesce(p.stage, '') != ? ORDER BY d.id DESC LIMIT ?",
        (without, count),
    )
    return [Decision(**row) for row in rows]


def cost_approved(store: Store, origin: str, who: str, since: str) -> float:
    """Device-seconds of an origin's proposals that somebody approved since a time (UTC, ISO 8601)."""
    (row,) = store.query(
        "SELECT coalesce(sum(cost), 0) AS cost FROM proposals WHERE origin = ? AND id IN "
        "(SELECT proposal FROM decisions WHERE who = ? AND verdict = 'approve' AND at >= ?)",
        (origin, who, since),
    )
    return float(row["cost"])


@dataclass(frozen=True)
class ProposalDecision:
    """A decision with the kind, stage and origin of its proposal; None where it is on something else."""

    decision: Decision
    kind: str | None
    stage: str | None
    origin: str | None


def with_proposals(store: Store) -> list[ProposalDecision]:
    """All decisions, the oldest first."""
    rows = store.query(
        "SELECT d.id, d.proposal, d.verdict, d.who, d.why, d.at, p.kind, p.stage, p.origin FROM decisions d "
        "LEFT JOIN proposals p ON p.id = d.proposal ORDER BY d.id"
    )
    return [ProposalDecision(kind=r.pop("kind"), stage=r.pop("stage"), origin=r.pop("origin"), decision=Decision(**r))
            for r in rows]  # fmt: skip

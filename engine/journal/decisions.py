"""Table `decisions`: who decided what of which proposal."""

from __future__ import annotations

from engine.journal.store import Store, now
from engine.records.decision import Decision


def put(store: Store, proposal: str, verdict: str, who: str, why: str) -> None:
    """Write a decision."""
    store.put("decisions", {"proposal": proposal, "verdict": verdict, "who": who, "why": why, "at": now()})


def of_proposal(store: Store, proposal: str) -> list[Decision]:
    """The decisions on a proposal, the oldest first."""
    sql = "SELECT id, proposal, verdict, who, why, at FROM decisions WHERE proposal = ? ORDER BY id"
    return [Decision(**row) for row in store.query(sql, (proposal,))]

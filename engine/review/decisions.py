"""Decisions: what a person, or the policy that a person wrote down, makes of proposals.

No proposer may import this module (an import contract holds it); nothing that a model writes reaches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from engine.base.errors import StudyError
from engine.journal.store import now
from engine.study.view import StudyView

Verdict = Literal["approve", "reject", "hold", "edit"]
BECOMES = {"approve": "approved", "reject": "rejected", "hold": "held", "edit": "edited"}
OPEN = ("queued", "held")
AUTO = "policy auto"


def decide(opened: StudyView, proposal: str, verdict: Verdict, who: str, why: str) -> None:
    """Record a decision and what it makes of the proposal. `edit`: an edited version takes its place.

    Raises: StudyError when it was decided on before, or is gone.
    """
    with opened.store.transaction():
        changed = opened.store.execute(
            f"UPDATE proposals SET status = ? WHERE id = ? AND status IN ({', '.join('?' * len(OPEN))})",
            (BECOMES[verdict], proposal, *OPEN),
        )
        if not changed:
            row = opened.store.one("SELECT status FROM proposals WHERE id = ?", (proposal,))
            raise StudyError(f"proposal {proposal} is {row['status'] if row else 'gone'}; nothing was decided")
        opened.store.put("decisions", {"proposal": proposal, "verdict": verdict, "who": who, "why": why, "at": now()})
        opened.store.event("decision", f"{verdict} by {who}: {why}", proposal)


def undo(opened: StudyView, proposal: str, who: str) -> None:
    """Take the last decision on a proposal back: it waits again.

    Raises: StudyError once the engine has made trials of it, or when there is nothing to take back.
    """
    with opened.store.transaction():
        changed = opened.store.execute(
            "UPDATE proposals SET status = 'queued' WHERE id = ? AND status IN ('approved', 'rejected', 'held') "
            "AND NOT EXISTS (SELECT 1 FROM proposal_trials x WHERE x.proposal = proposals.id)",
            (proposal,),
        )
        if not changed:
            raise StudyError(f"proposal {proposal} has no decision, or its trials are in the queue already")
        opened.store.put("decisions", {"proposal": proposal, "verdict": "undo", "who": who, "why": "", "at": now()})
        opened.store.event("decision", f"undo by {who}", proposal)


def undone(opened: StudyView, proposal: str) -> bool:
    """True when a person has taken a decision on it back: no policy decides on it any more."""
    sql = "SELECT 1 FROM decisions WHERE proposal = ? AND verdict = 'undo' LIMIT 1"
    return opened.store.one(sql, (proposal,)) is not None


def waiting_proposals(opened: StudyView, statuses: Sequence[str] = OPEN) -> list[str]:
    """Ids of the proposals that wait for a person."""
    marks = ", ".join("?" * len(statuses))
    rows = opened.store.query(
        f"SELECT id FROM proposals WHERE context = ? AND status IN ({marks}) ORDER BY at",
        (opened.context, *statuses),
    )
    return [r["id"] for r in rows]

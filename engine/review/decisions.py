"""Decisions: what a person, or the policy that a person wrote down, makes of proposals.

No proposer may import this module (an import contract holds it); nothing that a model writes reaches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from engine.base.errors import StudyError
from engine.journal import decisions, proposals
from engine.records.proposal import Status
from engine.study.view import StudyView

Verdict = Literal["approve", "reject", "hold", "edit"]
BECOMES: dict[Verdict, Status] = {"approve": "approved", "reject": "rejected", "hold": "held", "edit": "edited"}
AUTO = "policy auto"


def decide(opened: StudyView, proposal: str, verdict: Verdict, who: str, why: str) -> None:
    """Record a decision and what it makes of the proposal. `edit`: an edited version takes its place.

    Raises: StudyError when it was decided on before, or is gone.
    """
    with opened.store.transaction():
        if not proposals.set_decided(opened.store, proposal, BECOMES[verdict]):
            stored = proposals.get(opened.store, proposal)
            raise StudyError(f"proposal {proposal} is {stored.status if stored else 'gone'}; nothing was decided")
        decisions.put(opened.store, proposal, verdict, who, why)
        opened.store.event("decision", f"{verdict} by {who}: {why}", proposal)


def undo(opened: StudyView, proposal: str, who: str) -> None:
    """Take the last decision on a proposal back: it waits again.

    Raises: StudyError once the engine has made trials of it, or when there is nothing to take back.
    """
    with opened.store.transaction():
        if not proposals.reopen(opened.store, proposal):
            raise StudyError(f"proposal {proposal} has no decision, or its trials are in the queue already")
        decisions.put(opened.store, proposal, "undo", who, "")
        opened.store.event("decision", f"undo by {who}", proposal)


def undone(opened: StudyView, proposal: str) -> bool:
    """True when a person has taken a decision on it back: no policy decides on it any more."""
    return any(d.verdict == "undo" for d in decisions.of_proposal(opened.store, proposal))


def waiting_proposals(opened: StudyView, statuses: Sequence[str] = proposals.OPEN) -> list[str]:
    """Ids of the proposals that wait for a person."""
    return [p.id for p in proposals.of_setup(opened.store, opened.setup, statuses)]

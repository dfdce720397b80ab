"""Decisions: what a person, or the policy that a person wrote down, makes of proposals.

No proposer may import this module (an import contract holds it); nothing that a model writes reaches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from engine.budget import format_seconds, parse_budget
from engine.errors import StudyError
from engine.open_study import OpenStudy
from engine.proposals import stored_proposal
from engine.search.agreement import objection
from engine.store import Row, now

Verdict = Literal["approve", "reject", "hold", "edit"]
BECOMES = {"approve": "approved", "reject": "rejected", "hold": "held", "edit": "edited"}
OPEN = ("queued", "held")
AUTO = "policy auto"


def decide(opened: OpenStudy, proposal: str, verdict: Verdict, who: str, why: str) -> None:
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


def undo(opened: OpenStudy, proposal: str, who: str) -> None:
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
            raise StudyError(f"proposal {proposal} was not decided on, or its trials are in the queue already")
        opened.store.put("decisions", {"proposal": proposal, "verdict": "undo", "who": who, "why": "", "at": now()})
        opened.store.event("decision", f"undo by {who}", proposal)


def undone(opened: OpenStudy, proposal: str) -> bool:
    """True when a person has taken a decision on it back: no policy decides on it any more."""
    sql = "SELECT 1 FROM decisions WHERE proposal = ? AND verdict = 'undo' LIMIT 1"
    return opened.store.one(sql, (proposal,)) is not None


def waiting_proposals(opened: OpenStudy, statuses: Sequence[str] = OPEN) -> list[str]:
    """Ids of the proposals that wait for a person."""
    marks = ", ".join("?" * len(statuses))
    rows = opened.store.query(
        f"SELECT id FROM proposals WHERE context = ? AND status IN ({marks}) ORDER BY at",
        (opened.context, *statuses),
    )
    return [r["id"] for r in rows]


def apply_guard(opened: OpenStudy, wanted: bool) -> list[str]:
    """Let the guard-rails of the study decide on the queued proposals of a language model; ids of the approved ones.

    wanted: the caller asked for it; otherwise `guard.approve` says. What does not pass waits for a person, and why
    is recorded once.
    """
    guard = opened.study.guard
    if not (wanted or guard.approve == "auto"):
        return []
    rows = opened.store.query(
        "SELECT * FROM proposals WHERE context = ? AND origin = 'model' AND status = 'queued' ORDER BY at, id",
        (opened.context,),
    )
    approved = []
    for row in rows:
        if problem := _beyond(opened, row):
            known = "SELECT 1 FROM events WHERE kind = 'guard' AND subject = ? AND text = ?"
            if opened.store.one(known, (row["id"], f"waits for a person: {problem}")) is None:
                opened.store.event("guard", f"waits for a person: {problem}", row["id"])
        else:
            decide(opened, row["id"], "approve", AUTO, "it passed the gate and the guard-rails of the study")
            approved.append(row["id"])
    return approved


def _beyond(opened: OpenStudy, row: Row) -> str | None:
    """Which guard-rail keeps the policy from approving a proposal, or None."""
    guard, cost = opened.study.guard, row["cost"]
    if undone(opened, row["id"]):
        return "an approval of it was taken back"
    if row["kind"] not in guard.kinds:
        return f"guard.kinds allows {', '.join(guard.kinds) or 'none'}, not {row['kind']}"
    if cost is None:
        return "its cost is not known yet"
    if guard.cost is not None and cost > parse_budget(guard.cost):
        return f"it would take {format_seconds(cost)}, and guard.cost is {guard.cost}"
    if guard.cost_per_day is not None:
        today = _approved_today(opened)
        if today + cost > parse_budget(guard.cost_per_day):
            return (
                f"with {format_seconds(today)} approved within a day and {format_seconds(cost)} of its own it is "
                f"beyond guard.cost_per_day, {guard.cost_per_day}"
            )
    if guard.paper_agrees:
        return objection(opened, stored_proposal(row))
    return None


def _approved_today(opened: OpenStudy) -> float:
    """Device-seconds of a model's proposals that the policy approved in the last 24 hours."""
    since = (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="milliseconds")
    row = opened.store.one(
        "SELECT coalesce(sum(p.cost), 0) AS cost FROM proposals p WHERE p.origin = 'model' AND p.id IN "
        "(SELECT proposal FROM decisions WHERE who = ? AND verdict = 'approve' AND at >= ?)",
        (AUTO, since),
    )
    return float(row["cost"]) if row else 0.0

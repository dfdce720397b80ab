"""The guard-rails of the policy for a model's proposals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from engine.base.amounts import format_seconds, parse_budget
from engine.journal.store import Row
from engine.records.proposal import stored_proposal
from engine.review.decisions import AUTO, decide, undone
from engine.review.objection import objection
from engine.study.opened import OpenStudy


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

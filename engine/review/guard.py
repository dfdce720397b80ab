"""The guard-rails of the policy for a model's proposals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from engine.base.amounts import format_seconds, parse_budget
from engine.base.errors import StudyError
from engine.journal import decisions, events, proposals
from engine.proposals.kinds.registry import KINDS
from engine.records.proposal import StoredProposal
from engine.review.decisions import AUTO, decide, undone
from engine.settings.study import Study
from engine.study.opened import OpenStudy


def check_guard(study: Study) -> None:
    """Raises: StudyError when `guard.kinds` names a kind of experiment that there is none of."""
    if unknown := set(study.guard.kinds) - set(KINDS):
        raise StudyError(f"guard.kinds: there is no kind {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")


def apply_guard(opened: OpenStudy, wanted: bool) -> list[str]:
    """Let the guard-rails of the study decide on the queued proposals of a language model; ids of the approved ones.

    wanted: the caller asked for it; otherwise `guard.approve` says. What does not pass waits for a person, and why
    is recorded once.
    """
    guard = opened.study.guard
    if not (wanted or guard.approve == "auto"):
        return []
    approved = []
    for stored in proposals.of_setup(opened.store, opened.setup, ["queued"]):
        if stored.origin != "model":
            continue
        if problem := _beyond(opened, stored):
            text = f"waits for a person: {problem}"
            if not events.is_told(opened.store, "guard", stored.id, text):
                opened.store.event("guard", text, stored.id)
        else:
            decide(opened, stored.id, "approve", AUTO, "it passed the gate and the guard-rails of the study")
            approved.append(stored.id)
    return approved


def _beyond(opened: OpenStudy, stored: StoredProposal) -> str | None:
    """Which guard-rail keeps the policy from approving a proposal, or None."""
    guard, cost = opened.study.guard, stored.cost
    if undone(opened, stored.id):
        return "an approval of it was taken back"
    if stored.kind not in guard.kinds:
        return f"guard.kinds allows {', '.join(guard.kinds) or 'none'}, not {stored.kind}"
    if cost is None:
        return "its cost is not known yet"
    if guard.cost is not None and cost > parse_budget(guard.cost):
        return f"it would take {format_seconds(cost)}, and guard.cost is {guard.cost}"
    if guard.cost_per_day is not None:
        since = datetime.now(UTC) - timedelta(days=1)
        today = decisions.cost_approved(opened.store, "model", AUTO, since.isoformat(timespec="milliseconds"))
        if today + cost > parse_budget(guard.cost_per_day):
            return (
                f"with {format_seconds(today)} approved within a day and {format_seconds(cost)} of its own it is "
                f"beyond guard.cost_per_day, {guard.cost_per_day}"
            )
    if guard.paper_agrees:
        return KINDS[stored.kind].objection(opened, stored.proposal)
    return None

"""Kind `seeds`: more seeds of pools that were trained before."""

from __future__ import annotations

from engine.proposals.kinds.contract import Drafted, Refused, arm_of
from engine.records.experiment import Seeds
from engine.records.trial import FRESH
from engine.study.opened import OpenStudy


def draft_seeds(opened: OpenStudy, wanted: Seeds) -> Drafted:
    """The next seeds of a pool at the longest training that it has, and of the control at the same."""
    trials = opened.store.query(
        "SELECT t.seed, t.samples, t.horizon, t.stage, p.content, p.label, p.kind FROM trials t "
        "JOIN pools p ON p.id = t.pool WHERE t.context = ? AND t.pool = ? AND t.seed < ? AND t.state = 'COMPLETE' "
        "ORDER BY t.samples DESC, t.horizon",
        (opened.context, wanted.pool, FRESH),
    )
    if not trials or trials[0]["kind"] == "control":
        raise Refused(f"pool {wanted.pool} has no finished trial to add seeds to")
    at = trials[0]
    control_row = opened.store.one(
        "SELECT p.content, p.label, p.kind, ? AS samples, ? AS horizon FROM trials t JOIN pools p ON p.id = t.pool "
        "WHERE t.context = ? AND p.kind = 'control' AND t.samples = ? AND t.horizon = ?",
        (at["samples"], at["horizon"], opened.context, at["samples"], at["horizon"]),
    )
    if control_row is None:
        raise Refused(f"pool {wanted.pool} has no control that trained as long")
    had = {t["seed"] for t in trials if (t["samples"], t["horizon"]) == (at["samples"], at["horizon"])}
    seeds = [s for s in range(len(had) + wanted.seeds) if s not in had][: wanted.seeds]
    return at["stage"], [arm_of(control_row), arm_of(at)], seeds

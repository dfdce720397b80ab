"""What the proposal form asks of the study: what may be chosen, what a suggestion would come to, a pool's description.

Runs in the feed's process; nothing is written.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from engine.base.amounts import parse_budget
from engine.base.errors import DjsbError
from engine.journal import results
from engine.journal.store import Row
from engine.proposals.kinds.contract import own_pools
from engine.proposals.kinds.registry import KINDS, kind_of, read_suggestion, runnable
from engine.proposals.queue import examine, stored_id
from engine.proposals.suggest import draft
from engine.records.trial import FRESH
from engine.runner.accounts import Accounts
from engine.study.opened import OpenStudy
from engine.tasks.registry import get_task

DECIDED = ("approved", "rejected", "edited", "held")


def choices(view: OpenStudy) -> Row:
    """kinds: that the task runs. forms: of every kind. statistics: name → its buckets with bounds.

    pools: with results, the latest last.
    """
    cuts = view.store.query(
        "SELECT c.statistic, c.bucket, c.kept, c.reason, p.content FROM pool_cuts c JOIN pools p ON p.id = c.pool "
        "WHERE c.setup = ? ORDER BY c.rowid",
        (view.setup,),
    )
    statistics: dict[str, list[Row]] = {}
    for cut in cuts:
        (part,) = json.loads(cut["content"])["layers"][0]["slices"]
        found = {**{k: cut[k] for k in ("bucket", "kept", "reason")}, "low": part["low"], "high": part["high"]}
        statistics.setdefault(cut["statistic"], []).append(found)
    pools = view.store.query(
        "SELECT p.id, p.label, p.kind FROM pools p JOIN trials t ON t.pool = p.id WHERE t.setup = ? AND t.seed < ? "
        "AND t.state = 'COMPLETE' AND p.kind != 'control' GROUP BY p.id ORDER BY min(t.finished), p.id",
        (view.setup, FRESH),
    )
    kinds = runnable(get_task(view.study)) if view.study.task else []
    forms = {name: {"kind": name, "fields": [asdict(field) for field in kind.form]} for name, kind in KINDS.items()}
    return {"kinds": kinds, "forms": forms, "statistics": statistics, "pools": pools}


def tried(view: OpenStudy, content: Any) -> Row:
    """What a valid suggestion would come to: `id`, `pools`, `trials` that are new and `cost`, or `problem`."""
    try:
        suggestion = read_suggestion(content)
        proposal = draft(view, suggestion, "person")
    except DjsbError as error:
        return {"problem": str(error)}
    limit = results.BUDGET.get(view.store, view.setup) or parse_budget(view.study.budget)
    passed, new = examine(view, proposal, Accounts(view, limit))
    key = stored_id(view, proposal)
    known = view.store.one("SELECT status FROM proposals WHERE id = ?", (key,))
    problem = "" if passed.ok else passed.reason
    if known and known["status"] in DECIDED:
        problem = f"the same was asked for in {key}, which is {known['status']}"
    experiment = suggestion.experiment
    pools = [r.label for r in own_pools(proposal)] or list(kind_of(experiment).names(experiment))
    return {"id": key, "problem": problem, "trials": new, "cost": passed.cost, "pools": pools}


def pool(view: OpenStudy, key: str) -> Row | None:
    """A pool's label and content, by its id."""
    row = view.store.one("SELECT id, label, content FROM pools WHERE id = ?", (key,))
    return row and {**row, "content": json.loads(row["content"])}

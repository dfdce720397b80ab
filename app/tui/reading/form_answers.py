"""What the proposal form asks of the study: what may be chosen, what a suggestion would come to, a pool's description.

Runs in the feed's process; nothing is written.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from engine.base.errors import DjsbError
from engine.base.ids import some
from engine.journal import pools, proposals
from engine.journal.store import Row
from engine.proposals.kinds.contract import own_pools
from engine.proposals.kinds.registry import KINDS, kind_of, read_suggestion, runnable
from engine.proposals.queue import examine, stored_id
from engine.proposals.suggest import draft
from engine.runner.accounts import Accounts
from engine.study.opened import OpenStudy
from engine.tasks.registry import get_task

DECIDED = ("approved", "rejected", "edited", "held")


def choices(view: OpenStudy) -> Row:
    """kinds: that the task runs. forms: of every kind. statistics: name → its buckets with bounds.

    pools: with results, the latest last.
    """
    statistics: dict[str, list[Row]] = {}
    for cut in pools.cuts(view.store, view.setup, sort=False):
        (part,) = cut.pool.slices
        bucket = {**some(cut, "bucket", "kept", "reason"), "low": part.low, "high": part.high}
        statistics.setdefault(cut.statistic, []).append(bucket)
    trained = [some(p, "id", "label", "kind") for p in pools.with_results(view.store, view.setup)]
    kinds = runnable(get_task(view.study)) if view.study.task else []
    forms = {name: {"kind": name, "fields": [asdict(field) for field in kind.form]} for name, kind in KINDS.items()}
    return {"kinds": kinds, "forms": forms, "statistics": statistics, "pools": trained}


def tried(view: OpenStudy, content: Any) -> Row:
    """What a valid suggestion would come to: `id`, `pools`, `trials` that are new and `cost`, or `problem`."""
    try:
        suggestion = read_suggestion(content)
        proposal = draft(view, suggestion, "person")
    except DjsbError as error:
        return {"problem": str(error)}
    passed, new = examine(view, proposal, Accounts(view, view.limit))
    key = stored_id(view, proposal)
    known = proposals.get(view.store, key)
    problem = "" if passed.ok else passed.reason
    if known and known.status in DECIDED:
        problem = f"the same was asked for in {key}, which is {known.status}"
    experiment = suggestion.experiment
    labels = [r.label for r in own_pools(proposal)] or list(kind_of(experiment).names(experiment))
    return {"id": key, "problem": problem, "trials": new, "cost": passed.cost, "pools": labels}


def pool(view: OpenStudy, key: str) -> Row | None:
    """A pool's label and content, by its id."""
    stored = pools.get(view.store, key)
    return None if stored is None else {"id": key, "label": stored.label, "content": stored.pool.to_json()}

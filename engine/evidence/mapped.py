"""What mappers came to: mapped pools against the same rows as they are (Table 15)."""

from __future__ import annotations

from engine.data.mappers import result_name
from engine.evidence.ranking import rank
from engine.journal.store import Row
from engine.study.opened import OpenStudy


def judged(view: OpenStudy) -> list[Row]:
    """Rewritten pools with results, best first: against the same rows as they are, on the probing seeds and fresh ones.

    Each with `fresh` (the same on fresh seeds, or None) and `rewritten` (what the mappers did, with examples).
    """
    fresh = {r.pool.id: r.to_json() for r in rank(view, ("mapper",), fresh=True)}
    return [
        {
            **r.to_json(), "against": str(r.label).split(" → ", maxsplit=1)[0], "fresh": fresh.get(r.pool.id),
            "rewritten": view.store.result(view.context, result_name(r.pool.mappers)),
        }
        for r in rank(view, ("mapper",))
    ]  # fmt: skip

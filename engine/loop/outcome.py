"""What a stage came to: correlations and clusters, entropies, the repetition curves, the confirmed recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from engine.data.cuts import keeps
from engine.evidence.analysis import correlate, distinctive, pool_entropies, split
from engine.evidence.ranking import metric_series
from engine.evidence.recipe import best_recipe, confirmed, scaling
from engine.evidence.sentences import sentences
from engine.records.sentence import Sentence
from engine.search.contract import Adviser
from engine.search.grid import candidates
from engine.study.opened import OpenStudy
from engine.tasks.shared.tokens import captions

SHOWN = 20  # duplicates that the report names
TERMS = 12  # words of a bucket


def analyse(opened: OpenStudy, stage: str) -> None:
    """Store the results of a finished stage."""
    context, store = opened.context, opened.store
    if stage == "probe":
        store.put_result(context, "statistics", _statistic_correlation(opened))
        found = correlate(metric_series(opened), opened.study.combine.clusters or 1)
        store.put_result(context, "metrics", found.to_json() if found else None)
        _texts(opened)
        if opened.scan.duplicates:
            found_rows = {"rows": opened.scan.duplicates, "first": opened.duplicates()[:SHOWN]}
            store.put_result(context, "duplicates", found_rows)
    if stage == "scale":
        store.put_result(context, "scale", scaling(opened))
    if stage == "confirm":
        missing = _unconfirmed(opened)
        best = None if missing else best_recipe(opened)
        store.put_result(context, "recipe", best)
        store.put_result(context, "unconfirmed", missing)
        if best is not None:
            store.event("recipe", f"{best['label']}: {best['change']:+.1f} % on fresh seeds", best["pool"])
        elif missing:
            store.event("recipe", missing, level="warning")
        else:
            store.event("recipe", "no recipe beat the control on fresh seeds; none is called best", level="warning")
    _put_insight(opened, stage, sentences(opened, stage))


def _put_insight(opened: OpenStudy, stage: str, found: Sequence[Sentence]) -> None:
    opened.store.put_result(opened.context, f"insight:{stage}", [asdict(s) for s in found])


def summarise(opened: OpenStudy, stage: str, adviser: Adviser) -> None:
    """Let the adviser put a stage in words; the template's stay where it has none. It never sees the fresh seeds."""
    if stage != "confirm" and (found := adviser.summarise(opened, stage)):
        _put_insight(opened, stage, found)


def _unconfirmed(opened: OpenStudy) -> str | None:
    """Why nothing can be concluded yet: the fresh seeds are read once, when all of them are there."""
    chosen, wanted = candidates(opened), opened.study.confirm.seeds
    done = {r.pool.id: r.effect.seeds for r in confirmed(opened)}
    short = [r.label for r in chosen if done.get(r.pool.id, 0) < wanted]
    if not short:
        return None
    return f"not confirmed yet: {', '.join(short)} lacks some of {wanted} fresh seeds; a larger budget gives them"


def _statistic_correlation(opened: OpenStudy) -> dict[str, Any] | None:
    good = opened.scan.good
    series = {c.statistic: c.column.value[good] for c in opened.statistic_columns}
    found = correlate(series, opened.study.combine.clusters or 1)
    return found.to_json() if found else None


def _texts(opened: OpenStudy) -> None:
    """Word entropy (Eq. 2) of every pool that was cut, on the rows of its first seed; the words of each bucket."""
    if opened.data.fields.text is None:
        return
    cuts = [c for c in opened.cuts if c.reason is None]
    words, good = split(captions(opened.data, opened.scan.good)), opened.scan.good
    found = pool_entropies(words, {c.pool.id: opened.realise(c.pool) for c in cuts})
    kept = {c.pool.id: keeps(c.slice, opened.columns[c.slice.statistic]) for c in cuts}
    terms = {pool: [asdict(t) for t in told] for pool, told in distinctive(words, good, kept, TERMS).items()}
    with opened.store.transaction():
        for pool, entropy in found.items():
            opened.store.execute(
                "UPDATE pool_cuts SET entropy = ? WHERE context = ? AND pool = ?",
                (entropy, opened.context, pool),
            )
        opened.store.put_result(opened.context, "terms", terms)

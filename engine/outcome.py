"""What a stage came to: correlations and clusters, entropies, the repetition curves, the confirmed recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from engine.analysis import correlate, distinctive, pool_entropies, split
from engine.insight import Sentence, sentences
from engine.open_study import OpenStudy
from engine.pools import Slice
from engine.proposals import Adviser
from engine.ranking import Ranked, rank
from engine.search.paper import candidates, metric_series
from engine.study import STAGES
from engine.tasks.text import captions

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


def insights(opened: OpenStudy) -> dict[str, list[dict[str, Any]]]:
    """Stage → its sentences with their evidence."""
    found = {stage: opened.store.result(opened.context, f"insight:{stage}") for stage in STAGES}
    return {stage: told for stage, told in found.items() if told}


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
    kept = {c.pool.id: c.slice.keeps(opened.columns[c.slice.statistic]) for c in cuts}
    terms = {pool: [asdict(t) for t in told] for pool, told in distinctive(words, good, kept, TERMS).items()}
    with opened.store.transaction():
        for pool, entropy in found.items():
            opened.store.execute(
                "UPDATE pool_cuts SET entropy = ? WHERE context = ? AND pool = ?",
                (entropy, opened.context, pool),
            )
        opened.store.put_result(opened.context, "terms", terms)


def scaling(opened: OpenStudy) -> list[dict[str, Any]]:
    """Repetition against lower layers: (kind, label, samples, change against the control of equal samples)."""
    return [
        {**r.to_json(), "samples": r.samples, "repetition": r.pool.repetition}
        for r in sorted(rank(opened, ("repetition", "layers"), ("scale",)), key=lambda r: (r.samples, r.kind))
    ]


def _repetition(opened: OpenStudy, slices: tuple[Slice, ...]) -> int:
    """The highest rate at which repeating the recipe did, on average, as well as adding lower layers; 1 if none."""
    best = 1
    arms = rank(opened, ("repetition", "layers"), ("scale",))
    for arm in arms:
        if arm.kind != "repetition" or arm.pool.slices != slices:
            continue
        rival = next((r for r in arms if r.kind == "layers" and r.samples == arm.samples), None)
        own = arm.effect.change
        if own is not None and own > 0 and (rival is None or rival.effect.change is None or own >= rival.effect.change):
            best = max(best, arm.pool.repetition)
    return best


def confirmed(opened: OpenStudy) -> list[Ranked]:
    """The candidates on fresh seeds against the control, best first."""
    return rank(opened, ("single", "combination", "mapper"), fresh=True, against_control=True)


def best_recipe(opened: OpenStudy) -> dict[str, Any] | None:
    """The best candidate whose interval on fresh seeds lies above zero, as a stored result; None if none does.

    One with mappers must also beat the same rows as they are, or its slices alone are the recipe.
    """
    rewritten = {r.pool.id for r in rank(opened, ("mapper",), fresh=True) if r.effect.verdict == "helps"}
    winners = [
        r for r in confirmed(opened)
        if r.effect.verdict == "helps" and (not r.pool.mappers or r.pool.id in rewritten)
    ]  # fmt: skip
    if not winners:
        return None
    best = winners[0]
    return {**best.to_json(), "samples": best.samples, "repetition": _repetition(opened, best.pool.slices),
            "kept": opened.kept(best.pool), "rows": len(opened.data)}  # fmt: skip

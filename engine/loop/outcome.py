"""What is stored at a stage's end: correlations and clusters, entropies, the repetition curves, the recipe."""

from __future__ import annotations

from engine.data.cuts import keeps
from engine.evidence.analysis import correlate, distinctive, pool_entropies, split
from engine.evidence.answer import answer
from engine.evidence.mixtures import response, surface
from engine.evidence.ranking import metric_series
from engine.evidence.recipe import best_recipe, confirmed, repetitions
from engine.evidence.sentences import sentences
from engine.journal import pools, results, trials
from engine.journal.results import Duplicates
from engine.records.trial import FRESH, Trial
from engine.search.contract import Adviser
from engine.search.screening import candidates
from engine.study.opened import OpenStudy
from engine.tasks.contract import Rows
from engine.tasks.shared.tokens import captions

SHOWN = 20  # duplicates that the report names
TERMS = 12  # words of a bucket


def analyse(opened: OpenStudy, stage: str) -> None:
    """Store the results of a finished stage."""
    setup, store = opened.setup, opened.store
    if stage == "probe":
        if mixtures := response(opened):
            results.MIXTURES.put(store, setup, surface(mixtures))
        _correlations(opened)
        _texts(opened)
        if opened.scan.duplicates:
            results.DUPLICATES.put(store, setup, _duplicates(opened))
    elif stage == "scale":
        results.SCALE.put(store, setup, repetitions(opened))
    elif stage == "confirm":
        _conclude(opened)
    results.insight(stage).put(store, setup, sentences(opened, stage))


def overlap(opened: OpenStudy) -> None:
    """Store which training rows are like what models are judged by, and warn of those that are trained on."""
    found = tuple(opened.comparison.overlaps())
    before = results.OVERLAP.get(opened.store, opened.root) or ()
    for told in found:
        if told.warns and told not in before:
            opened.store.event("data", told.text, level="warning")
    results.OVERLAP.put(opened.store, opened.root, found)


def summarise(opened: OpenStudy, stage: str, adviser: Adviser) -> None:
    """Let the adviser put a stage in words; the template's stay where it has none. It never sees the fresh seeds."""
    if stage != "confirm" and (lines := adviser.summarise(opened, stage)):
        results.insight(stage).put(opened.store, opened.setup, list(lines))


def _conclude(opened: OpenStudy) -> None:
    """Store the confirmed recipe, or why there is none yet."""
    setup, store = opened.setup, opened.store
    missing = _unconfirmed(opened)
    best = None if missing else best_recipe(opened)
    results.RECIPE.put(store, setup, best)
    results.UNCONFIRMED.put(store, setup, missing)
    looks = results.LOOKS.get(store, setup) or []
    if missing is None and opened.study.confirm.seeds > max(looks, default=0):
        results.LOOKS.put(store, setup, [*looks, opened.study.confirm.seeds])
    if best is not None:
        store.event("recipe", f"{best.label}: {best.change:+.1f} % on fresh seeds", best.pool)
    else:
        store.event("recipe", missing or answer(opened).text, level="warning")


def _unconfirmed(opened: OpenStudy) -> str | None:
    """Why nothing can be concluded yet: the fresh seeds are read once, when all of them are there.

    A trial that failed loses its seed only, as long as two are left.
    """
    seeds = opened.study.confirm.seeds
    fresh = confirmed(opened)
    lost = {r.pool.id: {t.seed for t in _failed(opened) if t.kind == "control" or t.pool == r.pool.id} for r in fresh}
    done = {r.pool.id: r.effect.seeds for r in fresh}
    short = [
        r.label for r in candidates(opened)
        if done.get(r.pool.id, 0) < max(2, seeds - len(lost.get(r.pool.id, ())))
    ]  # fmt: skip
    if not short:
        return None
    return f"not confirmed yet: {', '.join(short)} lack{'s' * (len(short) == 1)} some of {seeds} fresh seeds"


def _failed(opened: OpenStudy) -> list[Trial]:
    """Trials of fresh seeds that failed, those that the control alone has left out."""
    last = FRESH + opened.study.confirm.seeds
    return [t for t in trials.failed(opened.store, opened.setup) if FRESH <= t.seed < last]


def _duplicates(opened: OpenStudy) -> Duplicates:
    return Duplicates(opened.scan.duplicates, opened.duplicates()[:SHOWN])


def _correlations(opened: OpenStudy) -> None:
    """Pearson's r and clusters of the statistics over the good rows, and of the metrics over the probing trials."""
    good, clusters = opened.scan.good, opened.study.combine.clusters or 1
    statistics = {c.statistic: c.column.value[good] for c in opened.statistic_columns}
    results.STATISTICS.put(opened.store, opened.setup, correlate(statistics, clusters))
    results.METRICS.put(opened.store, opened.setup, correlate(metric_series(opened), clusters))


def _texts(opened: OpenStudy) -> None:
    """Word entropy (Eq. 2) of every pool that was cut, on the rows of its first seed; the words of each bucket."""
    if opened.data.fields.text is None:
        return
    cuts = [c for c in opened.cuts if c.reason is None]
    words, good = split(captions(Rows(opened.data, opened.folder, opened.scan.good))), opened.scan.good
    entropies = pool_entropies(words, {c.pool.id: opened.realise(c.pool) for c in cuts})
    kept = {c.pool.id: keeps(c.slice, opened.columns[c.slice.statistic]) for c in cuts}
    with opened.store.transaction():
        for pool, entropy in entropies.items():
            pools.put_entropy(opened.store, opened.setup, pool, entropy)
        results.TERMS.put(opened.store, opened.setup, distinctive(words, good, kept, TERMS))

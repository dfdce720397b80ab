"""The leaderboard: stored results turned into evidence. The command line, the report and proposers read it here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from engine.evidence.chances import chances, shrunken
from engine.evidence.claims import Looks, halvings
from engine.evidence.effects import Effect, effects
from engine.journal import drops, metrics, pools, results, trials
from engine.journal.metrics import Key, Table
from engine.journal.pools import StoredPool
from engine.records.leaderboard import Entry
from engine.records.metric import Metric
from engine.records.pool import Pool
from engine.records.trial import FRESH
from engine.settings.study import STAGES
from engine.study.view import StudyView

RECIPES = ("single", "combination", "mixture")  # kinds of pools on the leaderboard


@dataclass(frozen=True)
class Ranked:
    """A pool, how it came about, and its effect.

    samples: rows that each of its trials trained on. share: part of a whole training that this is. best: probability
    that it is the best of those of its size that trained as long, which no other of the size did longer. shrunk: the
    change that is expected of it on fresh seeds, percent. dropped: why the race has dropped it, or None. lost: in
    words, seeds whose trials failed.
    """

    pool: Pool
    label: str
    kind: str
    op: str | None
    statistic: str | None
    bucket: str | None
    samples: int
    share: float
    effect: Effect
    best: float | None = None
    shrunk: float | None = None
    dropped: str | None = None
    lost: tuple[str, ...] = ()

    def entry(self) -> Entry:
        """Its line of the leaderboard."""
        e = self.effect
        return Entry(
            pool=self.pool.id, op=self.op, statistic=self.statistic, bucket=self.bucket, label=self.label,
            kind=self.kind, size=self.pool.size, share=self.share, change=e.change, std=e.std, ci_low=e.ci_low,
            ci_high=e.ci_high, seeds=e.seeds, metrics=dict(e.metrics), verdict=e.verdict, p_best=self.best,
            dropped=self.dropped, skipped=[*e.skipped, *self.lost], p=e.p, q=e.q, shrunk=self.shrunk,
            values=dict(e.values), bound=e.bound,
        )  # fmt: skip


def rank(
    view: StudyView,
    kinds: Sequence[str] = (*RECIPES, "repetition", "layers"),
    stages: Sequence[str] = STAGES[:-1],
    fresh: bool = False,
    against_control: bool = False,
    counted: Sequence[Metric] | None = None,
) -> list[Ranked]:
    """Pools of the given kinds against the control that trained as long, best first.

    A pool counts once, where it trained longest. Those that trained longer go first, and of those as long the ones
    that the race has not dropped: one more seed lowers the estimate of a pool that was best by luck, and must not
    help those that got none.
    stages: whose trials are read; a stage decides on the stages before it only, so that a resumed
    run decides the same. fresh: judge by the confirming seeds instead of the probing ones. Mapped pools (kind
    `mapper`) are judged against the same rows as they are, or `against_control` against the control like all others.
    counted: metrics in place of those that count in the ranking.
    """
    store, setup, study = view.store, view.setup, view.study
    table = metrics.by_pool(store, setup, fresh, ("confirm",) if fresh else stages)
    trained = {p.key: p for p in pools.trained(store, setup)}
    controls = {key[1:]: key for key, p in trained.items() if p.kind == "control"}

    def reference(key: Key) -> Key:
        """What a pool is judged against."""
        if trained[key].kind == "mapper" and not against_control:
            plain = (replace(trained[key].pool, mappers=()).id, *key[1:])
            return plain if plain in trained else controls[key[1:]]
        return controls[key[1:]]

    first = trials.unsettled(store, setup, fresh)
    names = {key: ":".join(map(str, key)) for key in trained}
    least = 2 if fresh else 1  # a candidate of an earlier search, left at one fresh seed, is none any more
    chosen = _longest(view, stages, [
        k for k, p in trained.items() if p.kind in kinds and k[1:] in controls and len(table.get(k, ())) >= least
    ])  # fmt: skip
    changes = effects(
        {names[key]: runs for key, runs in table.items() if key in names},
        {names[k]: names[reference(k)] for k in chosen},
        view.main_metrics if counted is None else counted,
        aggregate=study.evaluation.aggregate,
        confidence=study.search.confidence,
        looks=_looks(view, fresh),
        settled={names[key]: first[key[1:]] for key in trained if key[1:] in first},
        claim="helps" if fresh else "both",
    )
    by_name = {names[key]: p for key, p in trained.items()}
    share = {e.pool: by_name[e.pool].samples / by_name[e.pool].horizon for e in changes}
    # with a target recipes have rows of their own, and the same samples
    sizes = {name: p.horizon if study.target.rows else p.pool.size for name, p in by_name.items()}
    best, shrunk = _by_size_and_length(changes, sizes, share, fresh)
    lost = _lost(view, table, names, fresh)
    dropped = {} if fresh else {d.pool: d.reason for d in drops.standing(store, setup, stages)}
    ranked = [
        replace(
            _ranked(pool, e), samples=pool.samples, share=share[e.pool], best=best.get(e.pool),
            shrunk=shrunk.get(e.pool), dropped=dropped.get(pool.id), lost=lost.get(e.pool, ()),
        )
        for e in changes
        for pool in [by_name[e.pool]]
    ]  # fmt: skip
    return sorted(ranked, key=lambda r: (-r.share, r.dropped is not None))


def _longest(view: StudyView, stages: Sequence[str], found: Sequence[Key]) -> list[Key]:
    """Of each pool and horizon the longest training.

    A length that some pools still miss is used only where there is no other: the order of trials must not matter.
    """
    unfinished = trials.unfinished_lengths(view.store, view.setup, stages)
    longest: dict[tuple[str, int], int] = {}
    for pool, samples, horizon in sorted(found):
        if (samples, horizon) not in unfinished or (pool, horizon) not in longest:
            longest[pool, horizon] = samples
    return [key for key in found if longest[key[0], key[2]] == key[1]]


def _by_size_and_length(
    changes: Sequence[Effect], sizes: Mapping[str, int], share: Mapping[str, float], fresh: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """(P(best) of each pool, its shrunken change), among pools of its size that trained as long."""
    best, shrunk = dict[str, float](), dict[str, float]()
    for size in set(sizes.values()):
        alike = [e for e in changes if sizes[e.pool] == size]
        furthest = max((share[e.pool] for e in alike), default=1.0)
        best |= chances([e for e in alike if share[e.pool] == furthest])
        for length in () if fresh else {share[e.pool] for e in alike}:
            shrunk |= shrunken([e for e in alike if share[e.pool] == length])
    return best, shrunk


def _looks(view: StudyView, fresh: bool) -> Looks | Literal["any"]:
    """When the study says what its results mean. fresh: on the confirming seeds.

    Those are read once at the planned number; who then asks for more spends what is left of the error.
    """
    search = view.study.search
    if fresh:
        had, now = results.LOOKS.get(view.store, view.setup) or [], view.study.confirm.seeds
        looks = [*had, now] if not had or now > had[-1] else had
        return Looks((looks[0],), tuple(looks[1:]))
    if search.looks == "any":
        return "any"
    if search.strategy == "race":
        own = {search.screen.seeds} if search.screen.top else set()
        return Looks(tuple(sorted({n for n in own | {n for _, n in view.rungs} if n > 1})) or (2,))
    return halvings(1 if search.strategy == "mixtures" else search.seeds)


def _lost(
    view: StudyView, table: Table, names: Mapping[Key, str], fresh: bool
) -> dict[str, tuple[str, ...]]:  # fmt: skip
    """Pool → the seeds whose trials failed, in words, and whether the other pools did worse there than elsewhere."""
    found: dict[Key, list[int]] = {}
    for t in trials.failed(view.store, view.setup):
        if (t.seed >= FRESH) == fresh:
            found.setdefault((t.pool, t.samples, t.horizon), []).append(t.seed)
    return {names[key]: _in_words(view, table, key, sorted(seeds)) for key, seeds in found.items() if key in names}


def _in_words(view: StudyView, table: Table, key: Key, seeds: list[int]) -> tuple[str, ...]:
    told = f"lost: the trial at seed {', '.join(map(str, seeds))} failed"
    there, elsewhere = list[float](), list[float]()
    for other, runs in table.items():
        if other[1:] != key[1:] or other == key:
            continue
        for m in view.main_metrics:
            values = {s: v for s, at in runs.items() if (v := at.get(m.name)) is not None}
            if len(values) < 2:
                continue
            mean = float(np.mean(list(values.values())))
            for seed, value in values.items():
                gain = (value - mean) / (abs(mean) or 1.0) * (1 if m.higher_is_better else -1)
                (there if seed in seeds else elsewhere).append(gain)
    if there and elsewhere and (gap := 100 * (float(np.mean(there)) - float(np.mean(elsewhere)))) < 0:
        told += f"; other pools were {-gap:.1f} % worse there than at their other seeds, so the change may flatter it"
    return (told,)


def _ranked(pool: StoredPool, effect: Effect) -> Ranked:
    return Ranked(pool.pool, pool.label, pool.kind, pool.op, pool.statistic, pool.bucket, 0, 0.0, effect)


def degenerate(view: StudyView) -> list[Ranked]:
    """Buckets that were left out; what their effects skip is the reason."""
    return [
        Ranked(
            cut.pool, f"{cut.statistic} {cut.bucket}", "single", cut.op, cut.statistic, cut.bucket, 0, 0.0,
            Effect(cut.pool.id, None, None, None, None, 0, "degenerate", skipped=(cut.reason,)),
        )
        for cut in pools.cuts(view.store, view.setup) if cut.reason
    ]  # fmt: skip


def leaderboard(view: StudyView) -> list[Entry]:
    """Pools of one slice and combinations, best first, degenerate buckets last."""
    return [r.entry() for r in [*rank(view, RECIPES), *degenerate(view)]]


def best_per_op(ranked: Sequence[Ranked]) -> list[Ranked]:
    """The best bucket of every OP that beats the control, best first."""
    best: dict[str, Ranked] = {}
    for entry in ranked:
        if entry.effect.change is not None and entry.effect.change > 0 and entry.op:
            best.setdefault(entry.op, entry)
    return list(best.values())


def metric_series(view: StudyView) -> dict[str, np.ndarray]:
    """Metric → its value in every finished probing trial of the most common length; NaN where it is missing."""
    probed = metrics.of_probe(view.store, view.setup)
    names = dict.fromkeys(name for scores in probed for name in scores)
    return {name: np.array([scores.get(name) for scores in probed], np.float64) for name in names}

"""The paper's fixed procedure: probe, combine, scale, confirm (Sections 3.2.1 to 3.2.3, Appendix D.1).

Each function returns the proposals of one stage from the evidence so far. Nothing here runs a trial.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np

from engine.analysis import correlate
from engine.open_study import OpenStudy
from engine.pools import Layer, Pool, Slice
from engine.proposals import Origin, PoolRequest, Proposal
from engine.ranking import FRESH, Ranked, best_per_op, rank

PoolKind = Literal["control", "single", "combination", "repetition", "layers", "mapper"]


@dataclass(frozen=True)
class Paper:
    """The paper's procedure on one study; `stage` names what `propose` asks for."""

    stage: str
    origin: Origin = "paper"

    def propose(self, evidence: OpenStudy, n: int | None = None) -> Sequence[Proposal]:
        """The stage's proposals, in the order in which they matter; at most n."""
        found = {"probe": probe, "combine": combine, "scale": scale, "confirm": confirm}[self.stage](evidence)
        return found[:n]


def kind_of(pool: Pool) -> PoolKind:
    """The kind of a pool of one layer that is no control."""
    return "mapper" if pool.mappers else "combination" if len(pool.slices) > 1 else "single"


def _current(opened: OpenStudy, ranked: Sequence[Ranked]) -> list[Ranked]:
    """Entries whose statistics the study still computes; OPs may have been taken out since they were probed."""
    known = {(c.op, c.statistic, c.params) for c in opened.statistic_columns}
    return [r for r in ranked if all((s.op, s.statistic, s.params) in known for s in r.pool.slices)]


def request(opened: OpenStudy, pool: Pool, label: str, kind: PoolKind, epochs: float | None = None) -> PoolRequest:
    """A pool with the samples that the study's epochs give it."""
    samples = int(pool.samples * (epochs if epochs is not None else opened.study.train.epochs))
    return PoolRequest.model_validate(
        {"pool": pool.to_json(), "label": label, "kind": kind, "samples": max(1, samples)}
    )


def control(opened: OpenStudy, size: int) -> Pool:
    """The random pool of a size."""
    return Pool((Layer(),), size, seed=opened.study.seed)


def probe(opened: OpenStudy) -> list[Proposal]:
    """3N + 1 equal pools (Section 3.2.1), one proposal a seed, so that a budget that ends leaves whole rounds."""
    cuts = [c for c in opened.cuts if c.reason is None]
    pools = [request(opened, control(opened, opened.pool_size), "control", "control")]
    pools += [request(opened, c.pool, c.label, "single") for c in cuts]
    return [
        Proposal(
            origin="paper", kind="probe", stage="probe", pools=tuple(pools), seeds=(seed,),
            reason=f"{len(cuts)} single-OP pools and the control, seed {seed + 1} of {opened.study.search.seeds}",
            fallback="fewer seeds, wider intervals",
        )
        for seed in range(opened.study.search.seeds)
    ]  # fmt: skip


def _cluster_best(opened: OpenStudy, ranked: Sequence[Ranked], clusters: int) -> list[Ranked]:
    """The best slice of every Ward cluster of the statistics (Appendix D.1, first method)."""
    names = list(dict.fromkeys(r.statistic for r in ranked if r.statistic))
    good = opened.scan.good
    found = correlate({n: opened.columns[n].value[good] for n in names}, clusters)
    if found is None:
        return []
    best: dict[int, Ranked] = {}
    for entry in ranked:
        if entry.statistic and entry.effect.change is not None and entry.effect.change > 0:
            best.setdefault(found.clusters[entry.statistic], entry)
    return list(best.values())


def _lattice(seeds: Sequence[Ranked]) -> list[tuple[Ranked, ...]]:
    """All 2^n - 1 combinations of slices, fewest slices first, in order of rank."""
    return [c for size in range(1, len(seeds) + 1) for c in combinations(seeds, size)]


def chosen_slices(opened: OpenStudy) -> tuple[list[Ranked], list[Ranked]]:
    """(the best slices, one per OP; the best slice of every cluster), from the probe."""
    section = opened.study.combine
    ranked = _current(opened, rank(opened, ("single",), ("probe",)))
    diverse = _cluster_best(opened, ranked, section.clusters) if section.clusters else []
    return best_per_op(ranked)[: section.top], diverse


def lattice(top: Sequence[Ranked], diverse: Sequence[Ranked]) -> list[tuple[Ranked, ...]]:
    """The combinations of both strategies and across them, without repeats, in the paper's order."""
    union = [*top, *(d for d in diverse if d not in top)]
    every = [*_lattice(top), *_lattice(diverse), *(c for c in _lattice(union) if len(c) == 2)]
    seen: dict[frozenset[Slice], tuple[Ranked, ...]] = {}
    for chosen in filter(compatible, every):
        seen.setdefault(frozenset(r.pool.slices[0] for r in chosen), chosen)
    return list(seen.values())


def compatible(chosen: Sequence[Ranked]) -> bool:
    """False for two buckets of one statistic, which share no row."""
    return len({r.statistic for r in chosen}) == len(chosen)


def _candidates(opened: OpenStudy) -> tuple[list[tuple[Ranked, ...]], str]:
    """Singles, then at most `combine.max` combinations; and how they came about."""
    top, diverse = chosen_slices(opened)
    found = lattice(top, diverse)
    named = [", ".join(r.label for r in chosen) or "none" for chosen in (top, diverse)]
    how = f"top: {named[0]}; one per cluster: {named[1]}"
    singles = [chosen for chosen in found if len(chosen) == 1]
    return [*singles, *[chosen for chosen in found if len(chosen) > 1][: opened.study.combine.max]], how


def label(chosen: Sequence[Ranked]) -> str:
    """`text_len mid + char_rep_ratio low`."""
    return " + ".join(r.label for r in chosen)


def combined(opened: OpenStudy, chosen: Sequence[Ranked], size: int) -> PoolRequest:
    """A combination of slices as a pool of a size."""
    if len(chosen) == 1:
        return request(opened, replace(chosen[0].pool, size=size), label(chosen), "single")
    pool = Pool((Layer(ordered(r.pool.slices[0] for r in chosen)),), size, seed=opened.study.seed)
    return request(opened, pool, label(chosen), "combination")


def ordered(slices: Iterable[Slice]) -> tuple[Slice, ...]:
    """Slices in one order, so that equal combinations are equal pools."""
    return tuple(sorted(slices, key=lambda s: (s.op, s.statistic, str(s))))


def combine(opened: OpenStudy) -> list[Proposal]:
    """The lattices of top slices, of one slice per cluster, and their cross (Section 3.2.2), at one size."""
    candidates, how = _candidates(opened)
    floor = fewest_rows(opened)
    rows = [(chosen, opened.kept(combined(opened, chosen, opened.pool_size).to_pool())) for chosen in candidates]
    kept = [(chosen, n) for chosen, n in rows if n >= floor]
    dropped = [f"{label(chosen)} ({n} rows)" for chosen, n in rows if n < floor]
    if not any(len(chosen) > 1 for chosen, _ in kept):
        return []
    size = min(opened.pool_size, *(n for _, n in kept))
    pools = [request(opened, control(opened, size), "control", "control")]
    pools += [combined(opened, chosen, size) for chosen, _ in kept]
    reason = f"{len(kept)} combinations of {size} rows each ({how})"
    if dropped:
        reason += f"; left out, under {floor} rows: {', '.join(dropped)}"
    evidence = tuple(dict.fromkeys(r.pool.id for chosen, _ in kept for r in chosen))
    return [
        Proposal(
            origin="paper", kind="combine", stage="combine", pools=tuple(pools), seeds=(seed,), evidence=evidence,
            reason=f"seed {seed + 1} of {opened.study.search.seeds}: {reason}",
            expected=max((r.effect.change or 0) for chosen, _ in kept for r in chosen),
            fallback="the best single OP is the recipe",
        )
        for seed in range(opened.study.search.seeds)
    ]  # fmt: skip


def fewest_rows(opened: OpenStudy) -> int:
    """Rows below which a combination is left out."""
    return max(int(opened.study.combine.floor * opened.pool_size), opened.fewest_rows)


def recipes(opened: OpenStudy) -> list[Ranked]:
    """Slices that beat the control, best first, each set of slices once."""
    seen: dict[tuple[Slice, ...], Ranked] = {}
    for entry in _current(opened, rank(opened, ("single", "combination"), ("probe", "combine"))):
        if entry.effect.change is not None and entry.effect.change > 0:
            seen.setdefault(ordered(entry.pool.slices), entry)
    return list(seen.values())


def rewritten(opened: OpenStudy) -> list[Ranked]:
    """Pools whose mappers did better than the same rows as they are, best first (Appendix E.11)."""
    ranked = _current(opened, rank(opened, ("mapper",)))
    return [r for r in ranked if r.effect.change is not None and r.effect.change > 0]


def candidates(opened: OpenStudy) -> list[Ranked]:
    """What is to be confirmed on fresh seeds: the best recipes, and the best of the rewritten pools."""
    most = opened.study.confirm.candidates
    return [*recipes(opened)[:most], *rewritten(opened)[:most]]


def scale(opened: OpenStudy) -> list[Proposal]:
    """Repetition of the best recipes against adding lower layers, at equal trained samples (Section 3.2.3)."""
    section, ranked = opened.study.scale, recipes(opened)
    return [repeat(opened, ranked, best, rate) for best in ranked[: section.recipes] for rate in section.rates]


def repeat(opened: OpenStudy, ranked: Sequence[Ranked], best: Ranked, rate: int) -> Proposal:
    """One recipe repeated, lower layers added to it, and the control, at equal trained samples."""
    own = set(best.pool.slices)
    # the pyramid below the recipe: its looser parents, best first, then everything
    lower = [r.pool.slices for r in ranked if set(r.pool.slices) < own]
    layers = (Layer(best.pool.slices), *(Layer(s) for s in lower), Layer())
    distinct = min(best.pool.size * rate, int(opened.scan.good.sum()))
    epochs = opened.study.train.epochs * best.pool.size * rate / distinct
    added = Pool(layers, distinct, seed=best.pool.seed)
    pools = (
        request(opened, control(opened, distinct), "control", "control", epochs),
        request(opened, replace(best.pool, repetition=rate), f"{best.label} ×{rate}", "repetition"),
        request(opened, added, f"{best.label} + lower layers", "layers", epochs),
    )
    samples = pools[1].samples
    return Proposal(
        origin="paper", kind="repeat", stage="scale",
        pools=tuple(p.model_copy(update={"samples": samples}) for p in pools),
        seeds=tuple(range(opened.study.scale.seeds)), evidence=(best.pool.id,), expected=best.effect.change,
        reason=f"{best.label}: repeat ×{rate}, or add lower-ranked rows, at {samples} trained samples",
        fallback="the recipe is used without repetition",
    )  # fmt: skip


def confirm(opened: OpenStudy) -> list[Proposal]:
    """The best recipes and the control on fresh seeds, which took no part in choosing them; one proposal a seed."""
    section = opened.study.confirm
    chosen = candidates(opened)
    if not chosen:
        return []
    sizes = sorted({r.pool.size for r in chosen})
    pools = [request(opened, control(opened, size), "control", "control") for size in sizes]
    named = {r.pool: r.label for r in chosen}
    for plain in [replace(p, mappers=()) for p in named if p.mappers]:  # the same rows as they are
        if not plain.is_control:
            named.setdefault(plain, named[next(p for p in named if replace(p, mappers=()) == plain)].split(" → ")[0])
    pools += [request(opened, pool, label, kind_of(pool)) for pool, label in named.items()]
    return [
        Proposal(
            origin="paper", kind="seeds", stage="confirm", pools=tuple(pools), seeds=(FRESH + seed,),
            evidence=tuple(r.pool.id for r in chosen), expected=chosen[0].effect.change,
            reason=f"fresh seed {seed + 1} of {section.seeds} for {', '.join(r.label for r in chosen)} and the control",
            fallback="fewer fresh seeds; below two, no recipe is called best",
        )
        for seed in range(section.seeds)
    ]  # fmt: skip


def metric_series(opened: OpenStudy) -> dict[str, np.ndarray]:
    """Metric → its value in every finished probing trial of the most common length, in one order of trials."""
    rows = opened.store.query(
        "SELECT t.id, m.name, m.value FROM trials t JOIN metrics m ON m.trial = t.id WHERE t.context = ? "
        "AND t.state = 'COMPLETE' AND t.seed < ? AND t.samples = (SELECT samples FROM trials WHERE context = t.context "
        "AND state = 'COMPLETE' AND stage = 'probe' GROUP BY samples ORDER BY count(*) DESC, samples DESC LIMIT 1) "
        "ORDER BY t.id",
        (opened.context, FRESH),
    )
    trials = {t: i for i, t in enumerate(dict.fromkeys(r["id"] for r in rows))}
    series = {name: np.full(len(trials), np.nan) for name in dict.fromkeys(r["name"] for r in rows)}
    for r in rows:
        if r["value"] is not None:
            series[r["name"]][trials[r["id"]]] = r["value"]
    return series

"""What the results so far point to: the best slices with their lattice, and the best recipes (Section 3.2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from engine.evidence.analysis import correlate
from engine.evidence.ranking import Ranked, best_per_op, rank
from engine.proposals.arms import compatible, ordered
from engine.records.pool import Slice
from engine.study.opened import OpenStudy


def current(opened: OpenStudy, ranked: Sequence[Ranked]) -> list[Ranked]:
    """Entries whose statistics the study still computes; OPs may have been taken out since they were probed."""
    computed = {(c.op, c.statistic, c.params) for c in opened.statistic_columns}
    return [r for r in ranked if all((s.op, s.statistic, s.params) in computed for s in r.pool.slices)]


def _cluster_best(opened: OpenStudy, ranked: Sequence[Ranked], clusters: int) -> list[Ranked]:
    """The best slice of every Ward cluster of the statistics (Appendix D.1, first method)."""
    names = list(dict.fromkeys(r.statistic for r in ranked if r.statistic))
    good = opened.scan.good
    table = correlate({n: opened.columns[n].value[good] for n in names}, clusters)
    if table is None:
        return []
    best: dict[int, Ranked] = {}
    for entry in ranked:
        if entry.statistic and entry.effect.change is not None and entry.effect.change > 0:
            best.setdefault(table.clusters[entry.statistic], entry)
    return list(best.values())


def _lattice(seeds: Sequence[Ranked]) -> list[tuple[Ranked, ...]]:
    """All 2^n - 1 combinations of slices, fewest slices first, in order of rank."""
    return [c for size in range(1, len(seeds) + 1) for c in combinations(seeds, size)]


def chosen_slices(opened: OpenStudy) -> tuple[list[Ranked], list[Ranked]]:
    """(the best slices, one per OP; the best slice of every cluster), from the probe."""
    section = opened.study.combine
    ranked = current(opened, rank(opened, ("single",), ("probe",)))
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


def recipes(opened: OpenStudy) -> list[Ranked]:
    """Slices that beat the control, best first, each set of slices once."""
    seen: dict[tuple[Slice, ...], Ranked] = {}
    for entry in current(opened, rank(opened, ("single", "combination"), ("probe", "combine"))):
        if entry.effect.change is not None and entry.effect.change > 0:
            seen.setdefault(ordered(entry.pool.slices), entry)
    return list(seen.values())

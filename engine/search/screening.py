"""The screening: the best recipes of the search train to the end, and the best of those go to the confirmation.

A race judges beginnings. Which of its best is the best shows at full length only, on some seeds of the search; the
confirmation then has fresh ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine.evidence.mixtures import promising
from engine.evidence.ranking import RECIPES, Ranked, rank
from engine.journal import trials
from engine.proposals.arms import control, kind_of, request
from engine.proposals.best import current, recipes
from engine.records.proposal import Arm, Proposal
from engine.records.trial import Trial
from engine.study.opened import OpenStudy


def finalists(opened: OpenStudy, most: int) -> list[Ranked]:
    """The best of what could be confirmed, as the search has ranked it: recipes, mixtures, mapped pools."""
    return [*recipes(opened)[:most], *promising(opened)[:most], *_mapped(opened)[:most]]


def candidates(opened: OpenStudy) -> list[Ranked]:
    """What is to be confirmed on fresh seeds: the best of the screening, or of the search where none of it has run."""
    most = opened.study.confirm.candidates
    screened = _screened(opened) if opened.study.search.screen.top else []
    if not screened:
        return finalists(opened, most)
    better = [r for r in screened if (r.effect.change or 0.0) > 0]
    groups = ([k for k in RECIPES if k != "mixture"], ("mixture",), ("mapper",))
    return [r for kinds in groups for r in [r for r in better if r.kind in kinds][:most]]


def going_on(opened: OpenStudy, stage: str) -> list[Trial]:
    """Beginnings that the screening may go on from, as things stand after a stage."""
    if not opened.study.search.screen.top or stage in ("screen", "confirm"):
        return []
    chosen = finalists(opened, opened.study.search.screen.top)
    ids = {r.pool.id for r in chosen} | {control(opened, r.pool.size).id for r in chosen}
    return [t for t in trials.of_setup(opened.store, opened.setup) if t.pool in ids and not t.whole]


def _screened(opened: OpenStudy) -> list[Ranked]:
    """The finalists at full length, best first."""
    chosen = {r.pool.id for r in finalists(opened, opened.study.search.screen.top)}
    ranked = [*rank(opened, RECIPES), *rank(opened, ("mapper",))]
    return [r for r in ranked if r.pool.id in chosen and r.share >= 1 and r.effect.change is not None]


def _mapped(opened: OpenStudy) -> list[Ranked]:
    """Pools whose mappers did better than the same rows as they are, best first (Appendix E.11)."""
    ranked = current(opened, rank(opened, ("mapper",), ("probe", "combine", "scale")))
    return [r for r in ranked if r.effect.change is not None and r.effect.change > 0]


def arms_of(opened: OpenStudy, chosen: Sequence[Ranked]) -> tuple[list[Arm], list[Arm]]:
    """(the control of each size, the pools), at full length; with mapped pools also the same rows as they are."""
    named = {r.pool: r.label for r in chosen}
    for plain in [replace(p, mappers=()) for p in named if p.mappers]:
        if not plain.is_control:
            named.setdefault(plain, named[next(p for p in named if replace(p, mappers=()) == plain)].split(" → ")[0])
    sizes = [opened.pool_size] if opened.probe.matched else sorted({r.pool.size for r in chosen})
    controls = [request(opened, control(opened, size), "control", "control") for size in sizes]
    return controls, [request(opened, pool, label, kind_of(pool)) for pool, label in named.items()]


def screen(opened: OpenStudy) -> list[Proposal]:
    """The finalists and their control at full length, one proposal a seed."""
    section = opened.study.search.screen
    chosen = finalists(opened, section.top)
    if not chosen:
        return []
    controls, pools = arms_of(opened, chosen)
    return [
        Proposal(
            origin="paper", kind="seeds", stage="screen", pools=(*controls, *pools), seeds=(seed,),
            cites=tuple(r.pool.id for r in chosen), expected=chosen[0].effect.change,
            reason=f"the best {len(chosen)} of the search to the end, seed {seed + 1} of {section.seeds}; the best "
            f"{opened.study.confirm.candidates} go to the confirmation",
            fallback="the confirmation takes the best of the search",
        )
        for seed in range(section.seeds)
    ]  # fmt: skip

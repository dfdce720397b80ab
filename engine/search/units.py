"""What each stage of a study may ask for: trials, and their length."""

from __future__ import annotations

from dataclasses import dataclass

from engine.search.control import NOISIEST, control_seeds
from engine.search.race import CONTROL_SEEDS, bound
from engine.settings.study import Study
from engine.study.forecast import are_complete
from engine.study.opened import OpenStudy

TAILS = 2  # pools without what is rare, of a statistic of many values


@dataclass(frozen=True)
class Unit:
    """A stage's part of the plan. length: of all its trials together, in whole trials of the common size."""

    stage: str
    trials: int
    length: float
    what: str


def probed(opened: OpenStudy) -> tuple[int, int]:
    """(pools of the probe, their OPs); about, before the statistics are computed."""
    if are_complete(opened):
        sound = [c for c in opened.cuts if c.reason is None]
        return len(sound), len({c.slice.op for c in sound})
    (runs, _), section = opened.op_plan, opened.study.pools
    each = section.buckets + (TAILS if section.rare else 0)
    pools = each * sum(len(run.statistics) for run in runs)
    return min(pools, section.most or pools), len({run.name for run in runs})


def confirming(study: Study) -> int:
    """Trials of the confirmation: of a designed study as is likely; else at most, each candidate of a size of its own.

    What is likely is fitted again to what is left when the confirmation begins.
    """
    section = study.confirm
    if study.design == "auto":
        compared = (section.candidates + section.all_data) * section.seeds
        return compared + control_seeds(section.seeds, section.candidates)
    return section.candidates * ((1 + section.all_data) * section.seeds + control_seeds(section.seeds, 1, NOISIEST))


def recipes(study: Study, ops: int) -> tuple[int, int]:
    """(recipes that race after the pools, those of several slices among them), at most."""
    top, clusters = min(study.combine.top, ops), min(study.combine.clusters, ops)
    several = min(study.combine.max, 2**top - 1 - top + 2**clusters - 1 - clusters + top * clusters)
    return (top + clusters + several if several else 0), several


def units(opened: OpenStudy, known: tuple[int, int] | None = None) -> list[Unit]:
    """The stages' parts. known: what `probed` says, where it is known."""
    study, search = opened.study, opened.study.search
    if search.strategy == "mixtures":
        trials = study.mixtures.max + CONTROL_SEEDS
        fresh = (study.confirm.candidates + 1 + study.confirm.all_data) * study.confirm.seeds
        return [
            Unit("probe", trials, trials, f"at most {study.mixtures.max} mixtures, and the control"),
            *_screening(study, 1),
            Unit("confirm", fresh, fresh, _fresh(opened)),
        ]
    pools, ops = known or probed(opened)
    told = "" if known or are_complete(opened) else "about "
    lattice, _ = recipes(study, ops)

    def stage(name: str, arms: int, best: int, what: str) -> Unit:
        if search.strategy == "race":
            trials, length = bound(*opened.course, arms, max(best, search.screen.top))
            return Unit(name, trials, length, f"{what} in {len(opened.rungs)} rungs")
        trials = arms * search.seeds + control_seeds(search.seeds, arms)
        return Unit(name, trials, trials, f"{what} × {search.seeds} seeds")

    return [
        stage("probe", pools, search.top, f"{told}{pools} pools and the control"),
        *(
            stage("combine", n, study.confirm.candidates, f"at most {n} combinations and the control")
            for n in [lattice]
            if n
        ),
        *(
            Unit("scale", n, float(n * rate), f"×{rate}: repeat, lower layers, control")
            for rate in study.scale.rates
            for n in [3 * study.scale.recipes * study.scale.seeds]
        ),
        *_screening(study, 2),
        Unit("confirm", confirming(study), float(confirming(study)), _fresh(opened)),
    ]


def _screening(study: Study, sizes: int) -> list[Unit]:
    """The recipes that train to the end, with the control of each size; nothing where there is no such stage."""
    section = study.search.screen
    n = (section.top + sizes) * section.seeds
    told = f"at most {section.top} recipes to the end, {section.seeds} seeds, and the control"
    return [Unit("screen", n, float(n), told)] if section.top else []


def _fresh(opened: OpenStudy) -> str:
    """What the confirmation trains on."""
    section = opened.study.confirm
    return f"{section.seeds} fresh seeds: candidates, control" + (", all rows" if section.all_data else "")

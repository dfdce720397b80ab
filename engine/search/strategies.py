"""Search strategies, one per file: each proposes the next trials from the evidence."""

from __future__ import annotations

from engine.search.contract import Proposer
from engine.search.grid import Paper
from engine.search.mixtures import Mixtures
from engine.search.race import Race
from engine.settings.study import Study


def proposer(study: Study, stage: str) -> Proposer:
    """Who asks for the trials of a stage."""
    return named(study.search.strategy, stage)


def named(name: str, stage: str) -> Proposer:
    """The strategy of that name at a stage. Screening and confirmation are the same in every strategy."""
    if stage in ("screen", "confirm"):
        return Paper(stage)
    return Race(stage) if name == "race" else Mixtures(stage) if name == "mixtures" else Paper(stage)

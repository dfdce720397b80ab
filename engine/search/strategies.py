"""Search strategies, one per file: each proposes the next trials from the evidence."""

from __future__ import annotations

from engine.search.contract import Proposer
from engine.search.grid import Paper
from engine.search.race import Race
from engine.settings.study import Study


def proposer(study: Study, stage: str) -> Proposer:
    """Who asks for the trials of a stage. Confirmation is the paper's in every strategy."""
    return Race(stage) if study.search.strategy == "race" and stage != "confirm" else Paper(stage)

"""The same study in another cycle, on another model or on other data."""

from __future__ import annotations

from engine.base.errors import StudyError
from engine.journal import cycles
from engine.study.opened import OpenStudy
from engine.study.view import StudyView
from engine.tasks.registry import fitting_study


def current(opened: OpenStudy) -> OpenStudy:
    """The study in the cycle that the engine was in last."""
    last = cycles.latest(opened.store, opened.root)
    return opened.at(last.setup, last.init, last.cycle) if last and last.parent else opened


def in_cycles(opened: StudyView) -> bool:
    """True where a recipe's best checkpoint is kept, as a further cycle may start from it."""
    return opened.study.cycles.max > 1 or opened.cycle > 1


def elsewhere(opened: OpenStudy, preset: str | None, dataset: str | None, checkpoint: str | None = None) -> OpenStudy:
    """The study on another model or dataset, from the study's model on: a setup of its own.

    checkpoint: a folder, in place of all models that the study names.
    Raises: StudyError when the study does not know the preset, or the dataset cannot be read.
    """
    content = opened.study.model_dump()
    if preset is not None:
        content["model"] |= {"preset": preset, "checkpoint": None}
    if checkpoint is not None:
        content["model"]["checkpoint"] = checkpoint
        content["vlm"] |= {"vision": None, "language": None}
    if dataset is not None:
        content["dataset"] |= {"path": dataset, "sources": {}}
    try:
        study = fitting_study(content)
    except StudyError as error:
        raise StudyError(f"transfer: {error}") from None
    return OpenStudy(opened.folder, study, opened.store, workers=opened.workers, most=opened.most, notice=opened.notice)

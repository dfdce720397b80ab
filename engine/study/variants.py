"""The same study in another cycle, on another model or on other data."""

from __future__ import annotations

from engine.base.errors import StudyError
from engine.journal import cycles
from engine.records.experiment import Scale
from engine.records.proposal import Proposal
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


def where(opened: OpenStudy, proposal: Proposal) -> OpenStudy:
    """The study as a proposal's trials see it: in this cycle, in a next one, or on another model or dataset."""
    wanted = proposal.suggestion and proposal.suggestion.experiment
    if isinstance(wanted, Scale):
        return elsewhere(opened, wanted)
    return opened.following(proposal.init) if proposal.init else opened


def elsewhere(opened: OpenStudy, wanted: Scale) -> OpenStudy:
    """The study on another model or dataset, from the study's model on: a setup of its own.

    Raises: StudyError when the study does not know the preset, or the dataset cannot be read.
    """
    content = opened.study.model_dump()
    if wanted.preset is not None:
        content["model"] |= {"preset": wanted.preset, "checkpoint": None}
    if wanted.dataset is not None:
        content["dataset"] |= {"path": wanted.dataset}
    try:
        study = fitting_study(content)
    except StudyError as error:
        raise StudyError(f"scale: {error}") from None
    return OpenStudy(opened.folder, study, opened.store, workers=opened.workers, notice=opened.notice)

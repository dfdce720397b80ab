"""From the study's database to a tracker: what it lacks, and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module

from engine.base.errors import MachineError
from engine.base.paths import STATE_FOLDER
from engine.journal import trials
from engine.records.trial import Trial
from engine.study.view import NotStarted, StudyView, view_study
from engine.track.bookmark import Bookmark
from engine.track.contract import Target, Tracker
from engine.track.reading import mark_of, study_run, trial_run
from engine.track.targets import lacking

OFTEN = 25  # trials after which the bookmark is put on the disk


def open_tracker(target: Target) -> Tracker:
    """The tracker by its own client. Raises: MachineError where that is missing; what the client raises."""
    if problem := lacking(target.kind):
        raise MachineError(problem)
    module = import_module(f"engine.track.trackers.{target.kind}")
    made: Tracker = getattr(module, target.kind.capitalize())(target)
    return made


@dataclass
class Exported:
    """What a tracker was given. trials: that were new or had gone on. values: that were new to it."""

    trials: int = 0
    values: int = 0

    def add(self, more: Exported) -> None:
        """Count what came later."""
        self.trials, self.values = self.trials + more.trials, self.values + more.values


class Exporter:
    """Exports one study to one tracker, as often as it is asked.

    sign: called after each trial, as a sign of life. opening: makes the tracker when there is something to tell it.
    """

    def __init__(
        self, target: Target, sign: Callable[[], None] = lambda: None,
        opening: Callable[[Target], Tracker] = open_tracker,
    ) -> None:  # fmt: skip
        self.target, self._sign, self._opening = target, sign, opening
        self._bookmark = Bookmark(target.folder / STATE_FOLDER, target)
        self._tracker: Tracker | None = None

    @property
    def tracker(self) -> Tracker:
        """The tracker; its client is imported when there is something to tell it."""
        if self._tracker is None:
            self._tracker = self._opening(self.target)
        return self._tracker

    def once(self, last: bool = False) -> Exported:
        """Bring the tracker up to what the database says now. last: the engine has ended."""
        try:
            view = view_study(self.target.folder)
        except NotStarted:
            return Exported()
        done = Exported()
        with view.store:
            try:
                for trial in trials.begun(view.store):
                    self._one(view, trial, done)
                self._study(view, last, done)
            finally:
                self._bookmark.save()
        return done

    def _one(self, view: StudyView, trial: Trial, done: Exported) -> None:
        over, mark = trial.state in ("COMPLETE", "FAIL", "CANCELLED"), mark_of(trial)
        if self._bookmark.marks.get(trial.id) == mark or not (over or self.tracker.live):
            return
        values = self.tracker.write(trial_run(view, trial))
        self._sign()
        if over:
            self._bookmark.marks[trial.id] = mark
        if values or over:
            done.trials += 1
            done.values += values
        if over and done.trials % OFTEN == 0:
            self._bookmark.save()

    def _study(self, view: StudyView, last: bool, done: Exported) -> None:
        """The study's own run, when trials have ended since, or the engine has."""
        marks = self._bookmark.marks
        so_far = str(sum(key != view.root for key in marks))
        if not last and marks.get(view.root, "").partition(":")[0] == so_far:
            return
        study = study_run(view)
        study = replace(study, ended=study.ended or last)
        mark = f"{so_far}:{study.mark}:{study.ended}"
        if marks.get(view.root) == mark:
            return
        self.tracker.summarise(study)
        self._sign()
        marks[view.root] = mark

    def close(self) -> None:
        """Let go of tracker and bookmark."""
        try:
            if self._tracker is not None:
                self._tracker.close()
        finally:
            self._bookmark.close()

"""A study as the engine last recorded it: its folder, settings, database and setup. Reads no data."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from engine.base.amounts import parse_budget
from engine.base.confine import inside, refuse_links
from engine.base.errors import StudyError, damaged
from engine.base.paths import DATABASE, STATE_FOLDER
from engine.journal import cycles, results, setups
from engine.journal.patience import Patience
from engine.journal.store import Outdated, Store
from engine.records.metric import Metric
from engine.settings.study import Study
from engine.study.lock import engine_pid
from engine.tasks.contract import Task
from engine.tasks.registry import get_task

MOMENT = 0.5  # seconds that somebody else's database is waited for while it is locked
Viewed = TypeVar("Viewed", bound="StudyView")


class NotStarted(StudyError):
    """There is a database, and no engine has recorded the study in it yet."""


@dataclass
class StudyView:
    """What can be said of a study without its data."""

    folder: Path
    study: Study
    store: Store
    cycle: int = 1
    init: str | None = None  # trial whose checkpoint this cycle's trials go on from

    @property
    def state(self) -> Path:
        """The folder of database, caches, checkpoints and logs."""
        return self.folder / STATE_FOLDER

    def checkpoint(self, trial: str) -> Path:
        """The folder of a trial's checkpoint, be it there or not."""
        return inside(self.state, f"checkpoints/{trial}")

    @cached_property
    def setup(self) -> str:
        """What all trials of the cycle share, as a hash; trials of another setup are not compared."""
        return self.root

    @cached_property
    def root(self) -> str:
        """The setup of the first cycle."""
        last = setups.last(self.store)
        if last is None:
            raise NotStarted(f"nothing was run yet in {self.folder}; start with: djsb auto {self.folder}")
        return cycles.get(self.store, last.setup).root

    def at(self: Viewed, setup: str, init: str | None, cycle: int) -> Viewed:
        """The study in another cycle; what was computed is shared."""
        _ = self.root
        other = copy.copy(self)
        other.setup, other.init, other.cycle = setup, init, cycle
        return other

    @cached_property
    def task(self) -> Task:
        """The study's task.

        Raises: StudyError when it has none.
        """
        return get_task(self.study)

    @property
    def limit(self) -> float:
        """Device-seconds that may be spent in all: as the engine was told last, else the study's."""
        return results.BUDGET.get(self.store, self.setup) or parse_budget(self.study.budget)

    @property
    def rungs(self) -> tuple[tuple[float, int], ...]:
        """The race's rungs; a task that always trains whole has those of their seeds only."""
        return self.course[0]

    @property
    def course(self) -> tuple[tuple[tuple[float, int], ...], tuple[float, ...]]:
        """The race's rungs, and the share of the pools that goes on from each."""
        rungs, keeps = self.study.search.course
        if self.study.task is None or self.task.can_shorten(self.study):
            return rungs, keeps
        last = {seeds: keep for (_, seeds), keep in zip(rungs, keeps, strict=True)}
        return tuple((1.0, seeds) for seeds in last), tuple(last.values())

    @cached_property
    def can_pause(self) -> bool:
        """True when a longer trial may go on from a shorter one."""
        return self.study.search.pause_gb > 0 and self.task.traits.can_pause

    @cached_property
    def metrics(self) -> list[Metric]:
        """All metrics that the task measures, as they were recorded."""
        return list(results.METRIC_SCALES.get(self.store, self.setup) or ())

    @cached_property
    def main_metrics(self) -> list[Metric]:
        """The metrics that count in the ranking."""
        names = self.study.evaluation.metrics
        return [m for m in self.metrics if m.main] if names is None else self._named("metrics", names)

    @property
    def held_back(self) -> float:
        """Share of the evaluation's items that the search never sees; 0 where the task judges by itself."""
        return self.study.evaluation.held_back if self.study.task and self.task.traits.holds_back else 0.0

    @property
    def guards(self) -> list[tuple[Metric, float]]:
        """Metrics that a recipe must not collapse in, each with its lowest change, percent. Raises: StudyError."""
        guards = self.study.evaluation.guards
        measured = self._named("guards", [g.metric for g in guards])
        return [(metric, guard.worst) for metric, guard in zip(measured, guards, strict=True)]

    def _named(self, field: str, names: Sequence[str]) -> list[Metric]:
        by_name = {m.name: m for m in self.metrics}
        if unknown := [n for n in names if n not in by_name]:
            raise StudyError(f"evaluation.{field}: {', '.join(unknown)} not measured; choose from {', '.join(by_name)}")
        return [by_name[n] for n in names]


def store_to_read(state: Path) -> Store:
    """The study's database to read, brought up to date where no engine holds it."""
    file = state / DATABASE
    try:
        return Store(file, readonly=True)
    except Outdated:
        if engine_pid(state) is not None:
            raise
        refuse_links(state.parent, STATE_FOLDER)
        Store(file).close()
        return Store(file, readonly=True)


def store_untouched(state: Path) -> Store:
    """A database that is somebody else's, to read: nothing in its folder is made or changed, and no lock is awaited."""
    file = inside(state, DATABASE)
    return Store(file, readonly=True, patience=Patience(file, MOMENT), untouched=True)


def view_study(folder: Path, cycle: int | None = None, untouched: bool = False) -> StudyView:
    """The study to look at, in one of its cycles; None: the one that the engine was in last. Nothing is run.

    untouched: it is somebody else's; nothing in its folder is made or changed.
    Raises: NotStarted when nothing was recorded yet, StudyError for a cycle that is not there, StoreError.
    """
    folder = folder.resolve()
    store = (store_untouched if untouched else store_to_read)(inside(folder, STATE_FOLDER))
    last = setups.last(store)
    if last is None:
        store.close()
        raise NotStarted(f"nothing was run yet in {folder}; start with: djsb auto {folder}")
    chain = cycles.chain(store, last.setup)
    if cycle is not None and not 1 <= cycle <= len(chain):
        store.close()
        raise StudyError(f"there is no cycle {cycle}; the study has {len(chain)}")
    link = chain[cycle - 1 if cycle else -1]
    try:
        study = Study.model_validate_json(last.config)
    except ValueError as error:
        raise damaged("the study's configuration", error) from error
    return StudyView(folder, study, store).at(link.setup, link.init, link.cycle)

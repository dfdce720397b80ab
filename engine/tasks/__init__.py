"""Tasks: what is trained and how it is judged. One file per task, one contract.

`prepare` runs once per study in the engine's process; `run` runs in a worker, once per trial.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.dataset import Dataset
from engine.errors import StudyError
from engine.study import Study

Progress = Callable[[int, int], None]
WORTH = 0.05  # share by which a larger pack must be faster


@dataclass(frozen=True)
class Metric:
    """A score of a reference model.

    higher_is_better: its direction. low, high: its scale, the values it can take. main: counts in the
    ranking unless the study names others.
    """

    name: str
    higher_is_better: bool
    low: float
    high: float
    main: bool = True


@dataclass(frozen=True)
class Job:
    """One trial as a worker gets it. All of it is JSON.

    rows: file with the pool's row numbers. samples: rows to train on in total, repeats counted.
    init: folder of the checkpoint to start from, or None. micro_batch: rows at once, or None for the study's.
    horizon: samples of the whole schedule, of which this is the beginning; None: `samples`. resume: file of the state
    to go on from, or None. pause: file to leave the state in at the end, or None.
    """

    trial: str
    rows: str
    samples: int
    seed: int
    init: str | None
    output: str
    micro_batch: int | None = None
    horizon: int | None = None
    resume: str | None = None
    pause: str | None = None


@dataclass
class Report:
    """What running trials tell and are told: curve points, and which trials are wanted no more.

    dropped: ids of such trials; asked for at every curve point.
    """

    emit: Callable[[str, dict[str, Any]], None]
    dropped: Callable[[], set[str]] = set
    total: int = 0

    def curve(self, trial: str, step: int, **values: float) -> None:
        """Report a trial's values at a step."""
        self.emit("curve", {"trial": trial, "step": step, "total": self.total, "values": values})


def best_pack(seconds: Mapping[int, float]) -> int:
    """The smallest pack within 5 % of the fastest. seconds: per member's sample, by the members of a pack."""
    return min(k for k, s in seconds.items() if s <= (1 + WORTH) * min(seconds.values()))


class Task(Protocol):
    """The contract. A task is built from a study and its prepared data.

    runs: kinds of proposals that it can run.
    """

    version: int
    runs: frozenset[str]

    def metrics(self, study: Study, prepared: Path) -> list[Metric]:
        """What `run` returns, with directions and scales."""
        ...

    def prepare(
        self,
        study: Study,
        folder: Path,
        data: Dataset,
        evaluation: Dataset,
        roots: tuple[Path, Path],
        good: tuple[NDArray[np.bool_], NDArray[np.bool_]],
        workers: int,
        progress: Progress | None,
    ) -> Path:
        """Make (or find) the shared caches; the folder that holds them."""
        ...

    def run(self, study: Study, prepared: Path, job: Job, report: Report) -> dict[str, dict[str, float]]:
        """Train and evaluate one trial; metrics by trial, none if it was dropped.

        Writes a checkpoint to `job.output`.
        """
        ...

    def calibrate(self, study: Study, prepared: Path) -> tuple[float, float]:
        """(seconds per trained sample, seconds of the fixed part) measured on this device."""
        ...

    def can_pack(self, study: Study) -> str | None:
        """Why trials of the study cannot be trained as a pack, or None."""
        ...

    def pack(self, study: Study, prepared: Path, jobs: Sequence[Job], report: Report) -> dict[str, dict[str, float]]:
        """What `run` does, for several trials at once; metrics by trial, without those that were dropped.

        Raises: ValueError when the jobs differ in batch, steps or horizon.
        """
        ...

    def calibrate_pack(self, study: Study, prepared: Path, candidates: Sequence[int] | None = None) -> dict[int, float]:
        """Seconds per member's sample, by the members of a pack, measured on this device; 1 is `run`."""
        ...


def get_task(study: Study) -> Task:
    """The study's task.

    Raises: StudyError when it has none.
    """
    if study.task == "clip":
        from engine.tasks.clip import ClipTask

        return ClipTask()
    raise StudyError("the study has no task, so nothing can be trained; set task: clip (it needs text and images)")

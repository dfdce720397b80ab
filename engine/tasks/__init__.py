"""Tasks: what is trained and how it is judged. One file per task, one contract.

`prepare` runs once per study in the engine's process; `run` runs in a worker, once per trial.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.dataset import Dataset
from engine.errors import StudyError
from engine.study import Study

Progress = Callable[[int, int], None]


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
    """

    trial: str
    rows: str
    samples: int
    seed: int
    init: str | None
    output: str
    micro_batch: int | None = None


@dataclass
class Report:
    """What a running trial tells: curve points as it goes."""

    emit: Callable[[str, dict[str, Any]], None]
    total: int = 0

    def curve(self, step: int, **values: float) -> None:
        """Report values at a step."""
        self.emit("curve", {"step": step, "total": self.total, "values": values})


class Task(Protocol):
    """The contract. A task is built from a study and its prepared data."""

    version: int

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

    def run(self, study: Study, prepared: Path, job: Job, report: Report) -> dict[str, float]:
        """Train and evaluate one trial; its metrics. Writes a checkpoint to `job.output`."""
        ...

    def calibrate(self, study: Study, prepared: Path) -> tuple[float, float]:
        """(seconds per trained sample, seconds of the fixed part) measured on this device."""
        ...


def get_task(study: Study) -> Task:
    """The study's task.

    Raises: StudyError when it has none.
    """
    if study.task == "clip":
        from engine.tasks.clip import ClipTask

        return ClipTask()
    raise StudyError("the study has no task, so nothing can be trained; set task: clip (it needs text and images)")

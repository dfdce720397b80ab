"""What tasks share that train a model of their own: a trial from start to end, and its timing."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.settings.study import Study
from engine.tasks.contract import SILENT, Job, Report, Task


class TrainingTask(Task, Protocol):
    """A task is built, trained, finished, evaluated and saved; `run` and `calibrate` follow from that.

    training_rows: file of the caches with an entry for each row to train on. timed: steps of a warm-up, and steps that
    are timed.
    """

    training_rows: ClassVar[str] = "train-images.npy"
    timed: ClassVar[tuple[int, int]] = (2, 8)

    def build(self, study: Study, prepared: Path, seed: int, init: str | None) -> Any:
        """The model on this worker's device, new or from the checkpoint `init`."""
        ...

    def train(
        self, model: Any, study: Study, prepared: Path, rows: NDArray[np.int64], job: Job, report: Report
    ) -> bool:
        """Train on those rows. True, or False when the trial was dropped."""
        ...

    def finish(self, model: Any, study: Study, prepared: Path, job: Job, report: Report) -> bool:
        """What else is trained, the same for every pool. True, or False when the trial was dropped."""
        return True

    def evaluate(self, model: Any, study: Study, prepared: Path) -> dict[str, float]:
        """All metrics."""
        ...

    def save(self, model: Any, study: Study, prepared: Path, folder: Path) -> None:
        """Write the checkpoint, complete or not at all."""
        ...

    def run(self, study: Study, prepared: Path, job: Job, report: Report) -> dict[str, dict[str, float]]:
        """Train on the job's rows, evaluate, save the checkpoint."""
        model = self.build(study, prepared, job.seed, job.init)
        if not self.train(model, study, prepared, np.load(job.rows), job, report):
            return {}
        if not self.finish(model, study, prepared, job, report):
            return {}
        scores = self.evaluate(model, study, prepared)
        if job.output:
            self.save(model, study, prepared, Path(job.output))
        return {job.trial: scores}

    def sample_rows(self, study: Study, prepared: Path) -> tuple[NDArray[np.int64], float]:
        """(rows to time a training on, samples that a step takes)."""
        count = len(np.load(prepared / self.training_rows, mmap_mode="r"))
        batch = min(study.train.batch_size, count)
        return np.arange(batch, dtype=np.int64), batch

    def calibrate(self, study: Study, prepared: Path) -> tuple[float, float]:
        """Time a few steps after a warm-up; then all that comes after the training."""
        model = self.build(study, prepared, 0, None)
        rows, batch = self.sample_rows(study, prepared)
        for steps in self.timed:
            began = time.perf_counter()
            job = Job("calibration", "", math.ceil(steps * batch), 0, None, "")
            self.train(model, study, prepared, rows, job, SILENT)
            per_sample = (time.perf_counter() - began) / (steps * batch)
        began = time.perf_counter()
        self.finish(model, study, prepared, job, SILENT)
        self.evaluate(model, study, prepared)
        return per_sample, time.perf_counter() - began

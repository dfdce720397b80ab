"""A trial of a task that trains a model of its own, from start to end, and how long it takes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import MachineError
from engine.base.machine import lacks_memory
from engine.settings.study import Study
from engine.tasks.contract import SILENT, Job, Report, Task
from engine.tasks.shared.fitting import USED, changed, fit_memory, misfit, pays
from engine.tasks.shared.items import judged_on
from engine.tasks.shared.packed import open_media
from engine.tasks.shared.procedure import begin, the_device
from engine.tasks.shared.sharded import is_first, ranks

if TYPE_CHECKING:
    from engine.tasks.shared.memory import Shell


def first_rows(name: str, study: Study, prepared: Path) -> tuple[NDArray[np.int64], float]:
    """A batch of rows, and what a step takes of them. name: of a cache of media, with one for each row."""
    batch = min(study.train.batch_size, len(open_media(prepared, name)))
    return np.arange(batch, dtype=np.int64), batch


IMAGES = partial(first_rows, "train-images")

LOG = logging.getLogger("djsb")
T = TypeVar("T")
DOUBT = 1.15  # times a device's memory, beyond which a forecast is believed without a try


@dataclass(frozen=True)
class Training:
    """The parts of a trial.

    build: the model on this worker's device, new by a seed, or from the folder of a checkpoint. train: on those rows;
    False when the trial was dropped. evaluate: all metrics. save: the checkpoint into a folder, complete or absent.
    finish: what else is trained before the evaluation, the same for every pool; False as of train. sample: rows to time
    a training on, and how many samples a step takes. timed: steps of a warm-up, and steps that are timed. shell: the
    model without weights, for the forecast of its memory.
    """

    build: Callable[[Study, Path, int, str | None], Any]
    train: Callable[[Any, Study, Path, NDArray[np.int64], Job, Report], bool]
    evaluate: Callable[[Any, Study, Path], dict[str, float]]
    save: Callable[[Any, Study, Path, Path], None]
    finish: Callable[[Any, Study, Path, Job, Report], bool] = lambda *_: True
    sample: Callable[[Study, Path], tuple[NDArray[np.int64], float]] = IMAGES
    timed: tuple[int, int] = (2, 8)
    shell: Callable[[Study, Path], Shell | None] = lambda *_: None


def _forecast(told: Callable[[], T]) -> T | None:
    """What a forecast says; None, with a line in the log, for a model that cannot be run without weights."""
    try:
        return told()
    except (RuntimeError, NotImplementedError) as error:  # of an operation that has no form without content
        LOG.warning("its memory cannot be forecast: %s", (str(error).splitlines() or [type(error).__name__])[0])
        return None


def _brief(study: Study) -> Study:
    """The study with one step of what is trained besides."""
    return study.model_copy(update={"vlm": study.vlm.model_copy(update={"instruction_epochs": 1e-9})})


class TrainingTask(Task, Protocol):
    """A task whose trials are made of these parts."""

    training: Training

    def run(self, study: Study, prepared: Path, job: Job, report: Report) -> dict[str, dict[str, float]]:
        """Train on the job's rows, evaluate, save the checkpoint."""
        part = self.training
        begin(study)
        model = part.build(study, prepared, job.seed, job.init)
        if not part.train(model, study, prepared, np.load(job.rows), job, report):
            return {}
        if not part.finish(model, study, prepared, job, report):
            return {}
        if not is_first():
            return {}
        with judged_on(study, job.part, job.items):
            scores = part.evaluate(model, study, prepared)
        if job.output:
            part.save(model, study, prepared, Path(job.output))
        return {job.trial: scores}

    def fitted(self, study: Study, prepared: Path) -> Study:
        """On a GPU: found by two steps of ever fewer rows at once. Several devices keep what the study says."""
        import torch

        device, part = the_device(), self.training
        if device.type != "cuda" or ranks() > 1:
            return study
        memory = torch.cuda.mem_get_info(device)[1]
        self.refuse_beyond(study, prepared, memory)
        begin(study)
        model = part.build(study, prepared, 0, None)

        def attempt(candidate: Study) -> bool:
            begin(candidate)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            few = changed(candidate, batch_size=min(study.train.batch_size, 2 * (candidate.train.micro_batch or 1)))
            rows, step = part.sample(few, prepared)
            job = Job("fitting", "", math.ceil(2 * step), 0, None, "")
            part.train(model, few, prepared, rows, job, SILENT)
            part.finish(model, _brief(few), prepared, job, SILENT)
            return torch.cuda.max_memory_allocated(device) <= USED * memory

        return fit_memory(study, study.train.batch_size, attempt, lambda: self._advice(study, prepared, memory))

    def refuse_beyond(self, study: Study, prepared: Path, memory: int) -> None:
        """Raises: MachineError where a training is far beyond so many bytes by its forecast. No weights are loaded."""
        from engine.tasks.shared.memory import fitted
        from engine.tasks.shared.procedure import procedure_of

        def fits() -> bool:
            shell, way = self.training.shell(study, prepared), procedure_of(study, the_device())
            return shell is None or fitted(shell, study, way, int(DOUBT * memory)) is not None

        if _forecast(fits) is False:
            raise MachineError(misfit(self._advice(study, prepared, memory)))

    def quicker(self, study: Study, prepared: Path, alone: float, samples: int) -> Study:
        """On a GPU: timed with compiled blocks, where the study leaves that open. Several devices compile nothing.

        Blocks that take more memory than there is are not compiled.
        """
        if the_device().type != "cuda" or ranks() > 1 or study.train.compile != "auto":
            return study
        made = changed(study, compile="on")
        began = time.perf_counter()
        try:
            compiled, fixed = self.calibrate(made, prepared)
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
            return changed(study, compile="off")
        steps = sum(self.training.timed) * self.training.sample(study, prepared)[1]
        cost = max(0.0, time.perf_counter() - began - fixed - steps * compiled)
        return made if pays(alone, compiled, cost, samples) else changed(study, compile="off")

    def _advice(self, study: Study, prepared: Path, memory: int) -> str:
        """What would make a training fit that does not."""
        from engine.tasks.shared.memory import advice_of

        told = _forecast(lambda: advice_of(lambda other: self.training.shell(other, prepared), study, memory))
        return told or "use a GPU with more memory"

    def memory(self, study: Study, prepared: Path) -> dict[str, int] | None:
        """See Task."""
        from engine.tasks.shared.memory import forecast, way_of
        from engine.tasks.shared.procedure import procedure_of

        def told() -> dict[str, int] | None:
            shell, way = self.training.shell(study, prepared), procedure_of(study, the_device())
            return asdict(forecast(shell, way_of(study, way, shell.rows, ranks()))) if shell else None

        return _forecast(told)

    def parameters(self, study: Study, prepared: Path) -> int | None:
        """See Task."""
        shell = self.training.shell(study, prepared)
        return None if shell is None else sum(weight.numel() for weight in shell.model.parameters())

    def calibrate(self, study: Study, prepared: Path) -> tuple[float, float]:
        """Time a few steps after a warm-up; then all that comes after the training."""
        part = self.training
        begin(study)
        model = part.build(study, prepared, 0, None)
        rows, batch = part.sample(study, prepared)
        for steps in part.timed:
            began = time.perf_counter()
            job = Job("calibration", "", math.ceil(steps * batch), 0, None, "")
            part.train(model, study, prepared, rows, job, SILENT)
            per_sample = (time.perf_counter() - began) / (steps * batch)
        began = time.perf_counter()
        part.finish(model, study, prepared, job, SILENT)
        if is_first():
            part.evaluate(model, study, prepared)
        return per_sample, time.perf_counter() - began

"""What trainings share: device, steps, order of the rows, learning rate, the loop with its curve, pause and resume.

A task gives `fit` its model, its batches and a function that leaves a batch's gradients in the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import StudyError
from engine.settings.study import Study
from engine.tasks.contract import Job, Report
from engine.tasks.shared.procedure import autocast, decayed, described, make_optimizer, settle, strictly
from engine.tasks.shared.sharded import Trained, agreed, pieces, ranks, spread, summed
from engine.tasks.shared.training_state import pause, resume

if TYPE_CHECKING:
    import torch

POINTS = 40  # about as many points in a curve
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Course:
    """How far a training goes. batch: rows of a step; steps: of this trial; whole: of the schedule that it begins."""

    batch: int
    steps: int
    whole: int

    @classmethod
    def of(cls, job: Job, batch: int, samples: Callable[[int], int] = lambda samples: samples) -> Course:
        """That of a job. samples: from those of the job to what batches are made of."""
        steps, whole = (max(1, samples(n) // batch) for n in (job.samples, job.horizon or job.samples))
        return cls(batch, steps, whole)


def course(study: Study, rows: int, job: Job) -> Course:
    """The course of a job on so many rows."""
    return Course.of(job, min(study.train.batch_size, rows))


def micro_batch(study: Study, job: Job, batch: int) -> int:
    """Rows of a batch that go through the model at once."""
    return job.micro_batch or study.train.micro_batch or batch


def accumulate(device: torch.device, rows: int, micro: int, loss: Callable[[slice], torch.Tensor]) -> torch.Tensor:
    """Leave the gradients of a batch's loss, which is the sum of its parts' of `micro` rows; this rank's loss.

    It stays on the device, so that nothing waits for it.
    """
    return summed_up(device, pieces(rows, micro), loss)


def summed_up(device: torch.device, parts: Iterable[T], loss: Callable[[T], torch.Tensor]) -> torch.Tensor:
    """The same of parts that are made already, or made one by one."""
    import torch

    total = torch.zeros((), dtype=torch.float64, device=device)
    for part in parts:
        with autocast(device, keep=False):
            found = loss(part)
        found.backward()  # type: ignore[no-untyped-call]
        total += found.detach()
    return total


def batches(rows: NDArray[np.int64], samples: int, batch: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Row numbers, batch by batch: seeded permutations of `rows`, one after the other, until `samples`."""
    order = np.random.default_rng(seed)
    queue = np.array([], np.int64)
    for _ in range(max(1, samples // batch)):
        while len(queue) < batch:
            queue = np.concatenate([queue, order.permutation(rows)])
        yield np.sort(queue[:batch])
        queue = queue[batch:]


def schedule(step: int, steps: int, warmup: float, warmup_steps: int | None = None) -> float:
    """Share of the peak learning rate at a step (1 … steps): linear warm-up, then cosine to zero."""
    warm = max(1, round(steps * warmup) if warmup_steps is None else warmup_steps)
    if step <= warm:
        return step / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def rates(
    study: Study, course: Course, optimizer: torch.optim.Optimizer, done: int
) -> Iterator[tuple[int, float, bool]]:
    """(step, its learning rate, which the optimizer has, whether the curve has a point there) of the steps to do."""
    every = max(1, course.steps // POINTS)
    for step in range(done + 1, course.steps + 1):
        rate = study.train.learning_rate * schedule(step, course.whole, study.train.warmup, study.train.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        yield step, rate, step % every == 0 or step == course.steps


def is_left(report: Report, is_point: bool) -> bool:
    """Whether the training is to be broken off after this step; several ranks agree on it at points of the curve."""
    return report.leaving() if ranks() == 1 else is_point and agreed(report.leaving())


def fit(
    model: Any,
    study: Study,
    job: Job,
    report: Report,
    course: Course,
    *,
    order: Iterator[S],
    inputs: Callable[[Iterator[S]], Iterator[T]],
    backward: Callable[[T], torch.Tensor],
    after: Callable[[], None] = lambda: None,
    beside: Mapping[str, torch.Tensor] | None = None,
    **optimizer_options: Any,
) -> bool:
    """Train the model's parameters that require gradients: AdamW, `schedule`, clipped gradients.

    order: row numbers (and what belongs to them) of every step from the first on. inputs: from those to what `backward`
    takes. backward: leaves the gradients of a batch, and returns its loss on the device. after: called after each step.
    beside: tensors that `after` changes, which belong to the state of a paused training. optimizer_options: in place of
    those of `procedure.adamw`.
    True, or False when the trial was dropped, or broken off. Raises: StudyError.
    """
    if study.train.optimizer == "adamw8bit" and ranks() > 1:
        raise StudyError("train.optimizer adamw8bit goes on one device; set devices_per_trial to 1, or take adamw")
    settle(model, study)
    with spread(model) as trained:
        run = partial(_fit, model, trained, study, job, report, course, order, inputs, backward, after, beside or {})
        return run(optimizer_options)


def _fit(
    model: Any, trained: Trained, study: Study, job: Job, report: Report, course: Course,
    order: Iterator[S], inputs: Callable[[Iterator[S]], Iterator[T]],
    backward: Callable[[T], torch.Tensor], after: Callable[[], None], beside: Mapping[str, torch.Tensor],
    optimizer_options: dict[str, Any],
) -> bool:  # fmt: skip
    """See `fit`. trained: what of the model is trained."""
    import torch

    report.total = course.steps
    parameters = trained.parameters
    device = next(iter(parameters.values())).device
    optimizer = make_optimizer(study, decayed(study, parameters.values()), device, **optimizer_options)
    model.train()
    report.describe(job.trial, described(model, study, device))
    running: list[torch.Tensor] = []
    done = resume([job.resume], parameters, optimizer, trained.part, beside) if job.resume else 0
    source = inputs(islice(order, done, None))
    for step, rate, is_point in rates(study, course, optimizer, done):
        batch = next(source)
        optimizer.zero_grad(set_to_none=True)
        loss = strictly(backward, batch, optimizer)
        trained.clip(study.train.clip_norm)
        optimizer.step()
        after()
        running.append(loss)
        if is_point:
            losses = torch.stack(running).tolist()
            report.curve(job.trial, step, loss=summed(sum(losses)) / len(losses), learning_rate=rate)
            running.clear()
            if agreed(job.trial in report.dropped()):
                return False
        if job.park and is_left(report, is_point):
            file = report.park(job, step, course.steps)
            pause(file, step, parameters, optimizer, whole=trained.whole, beside=beside)
            return False
    if job.pause:
        pause(job.pause, course.steps, parameters, optimizer, whole=trained.whole, beside=beside)
    return True

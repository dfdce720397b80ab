"""What trainings share: device, steps, order of the rows, learning rate, the loop with its curve, pause and resume.

A task gives `fit` its model, its batches and a function that leaves a batch's gradients in the parameters.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.settings.study import Study
from engine.tasks.contract import Job, Report
from engine.tasks.shared.training_state import pause, resume

if TYPE_CHECKING:
    import torch

POINTS = 40  # about as many points in a curve
T = TypeVar("T")


def the_device() -> torch.device:
    """The device of this worker."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device) -> torch.autocast:
    """bf16 on a GPU, nothing on a CPU."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def extent(study: Study, rows: int, samples: int) -> tuple[int, int]:
    """(rows of a batch, steps) of a training on so many rows for so many samples."""
    batch = min(study.train.batch_size, rows)
    return batch, max(1, samples // batch)


def batches(rows: NDArray[np.int64], samples: int, batch: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Row numbers, batch by batch: seeded permutations of `rows`, one after the other, until `samples`."""
    order = np.random.default_rng(seed)
    queue = np.array([], np.int64)
    for _ in range(max(1, samples // batch)):
        while len(queue) < batch:
            queue = np.concatenate([queue, order.permutation(rows)])
        yield np.sort(queue[:batch])
        queue = queue[batch:]


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at a step (1 … steps): linear warm-up, then cosine to zero."""
    warm = max(1, round(steps * warmup))
    if step <= warm:
        return step / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def adamw(study: Study) -> dict[str, Any]:
    """The keyword arguments of AdamW: CLIP's betas and eps."""
    train = study.train
    return {"lr": train.learning_rate, "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": train.weight_decay}


def fit(
    model: Any,
    study: Study,
    job: Job,
    report: Report,
    *,
    steps: int,
    whole: int,
    order: Iterator[NDArray[np.int64]],
    inputs: Callable[[Iterator[NDArray[np.int64]]], Iterator[T]],
    backward: Callable[[T], float],
    after: Callable[[], None] = lambda: None,
    **optimizer_options: Any,
) -> bool:
    """Train the model's parameters that require gradients: AdamW, `schedule`, clipped gradients.

    steps: of this trial; whole: of the schedule that it begins. order: row numbers of every step from the first on.
    inputs: from those to what `backward` takes. backward: leaves the gradients of a batch, its loss comes back.
    after: called after each step. optimizer_options: in place of those of `adamw`.
    True, or False when the trial was dropped.
    """
    import torch

    train = study.train
    report.total = steps
    every = max(1, steps // POINTS)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), **adamw(study) | optimizer_options)
    model.train()
    running: list[float] = []
    done = resume([job.resume], parameters, optimizer) if job.resume else 0
    for step, batch in enumerate(inputs(islice(order, done, None)), done + 1):
        rate = train.learning_rate * schedule(step, whole, train.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        loss = backward(batch)
        torch.nn.utils.clip_grad_norm_(parameters.values(), train.clip_norm)
        optimizer.step()
        after()
        running.append(loss)
        if step % every == 0 or step == steps:
            report.curve(job.trial, step, loss=sum(running) / len(running), learning_rate=rate)
            running.clear()
            if job.trial in report.dropped():
                return False
    if job.pause:
        pause(job.pause, steps, parameters, optimizer)
    return True


def save(model: Any, folder: Path, beside: Iterable[Path] = ()) -> None:
    """A checkpoint (safetensors) as `save_pretrained` writes it, with files beside it, complete or absent."""
    scratch = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(scratch, ignore_errors=True)
    model.save_pretrained(scratch)
    for file in beside:
        if file.exists():
            shutil.copyfile(file, scratch / file.name)
    scratch.replace(folder)

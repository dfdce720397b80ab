"""The stages of an image-to-text training: rows and instructions to batches, and the loss of their answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.settings.study import Study
from engine.tasks.contract import Job, Report
from engine.tasks.shared.training import autocast, batches, extent, fit
from engine.tasks.vlm.model import NO_LABEL, answer_losses, set_trained
from engine.tasks.vlm.text import collate

if TYPE_CHECKING:
    import torch

# LLaVA's AdamW
OPTIMIZER: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8}
Batch = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor", "torch.Tensor"]


@dataclass(frozen=True)
class Examples:
    """Rows to learn from, memory-mapped: `NAME-images.npy`, `NAME-tokens.npy` and their heads in meta.json.

    images: (rows, side, side, 3). tokens: (rows, length). starts: (rows,) where the answer begins. head: ids before.
    """

    images: NDArray[np.uint8]
    tokens: NDArray[np.int32]
    starts: NDArray[np.int64]
    head: NDArray[np.int64]
    pad: int
    normal: tuple[tuple[float, ...], tuple[float, ...]]

    @classmethod
    def of(cls, prepared: Path, name: str) -> Examples:
        """Those that `prepare` wrote under the name."""
        meta = json.loads((prepared / "meta.json").read_text())
        images, tokens = (np.load(prepared / f"{name}-{kind}.npy", mmap_mode="r") for kind in ("images", "tokens"))
        told = meta["examples"][name]
        starts = np.full(len(tokens), told["start"], np.int64) if "start" in told else np.asarray(told["starts"])
        head = np.asarray(told["head"], np.int64)
        return cls(images, tokens, starts, head, meta["pad"], (tuple(meta["mean"]), tuple(meta["std"])))

    def batch(self, rows: NDArray[np.int64], device: torch.device) -> Batch:
        """(ids, mask, labels, pixels) of the rows on the device."""
        import torch

        made = collate(self.tokens[rows].astype(np.int64), self.starts[rows], self.head, self.pad)
        ids, mask, labels = (torch.from_numpy(part).to(device) for part in made)
        return ids, mask, labels, normalised(self.images[rows], device, self.normal)


def normalised(
    images: NDArray[np.uint8], device: torch.device, normal: tuple[tuple[float, ...], tuple[float, ...]]
) -> torch.Tensor:
    """(rows, side, side, 3) bytes as (rows, 3, side, side); normal: mean and standard deviation of each colour."""
    import torch

    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float().div_(255)
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in normal)
    return pixels.sub_(mean).div_(std)


def backward(model: Any, micro: int) -> Callable[[Batch], float]:
    """Leaves the gradients of a batch's mean loss over its answers' tokens; micro: rows at once."""

    def run(batch: Batch) -> float:
        ids, mask, labels, pixels = batch
        words = int((labels != NO_LABEL).sum())
        total = 0.0
        for at in range(0, len(ids), micro):
            part = slice(at, at + micro)
            with autocast(ids.device):
                loss = answer_losses(model, ids[part], mask[part], labels[part], pixels[part]).sum() / max(1, words)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    return run


def train_rows(
    model: Any, study: Study, examples: Examples, part: str, rows: NDArray[np.int64], job: Job, report: Report
) -> bool:
    """Train a part of the model on the job's rows. True, or False when the trial was dropped."""
    set_trained(model, part)
    batch, steps = extent(study, len(rows), job.samples)
    _, whole = extent(study, len(rows), job.horizon or job.samples)
    device = next(model.parameters()).device

    def inputs(order: Iterator[NDArray[np.int64]]) -> Iterator[Batch]:
        return (examples.batch(chosen, device) for chosen in order)

    return fit(
        model, study, job, report, steps=steps, whole=whole, order=batches(rows, job.samples, batch, job.seed),
        inputs=inputs, backward=backward(model, job.micro_batch or study.train.micro_batch or batch), **OPTIMIZER,
    )  # fmt: skip


def instruct(model: Any, study: Study, examples: Examples, part: str, job: Job, report: Report) -> bool:
    """The second stage: a whole, short training on the fixed instructions, the same for every trial of a seed.

    It leaves no points in the trial's curve and no state. True, or False when the trial was dropped.
    """
    vlm = study.vlm
    rate = vlm.instruction_rate if vlm.instruction_rate is not None else study.train.learning_rate
    own = study.model_copy(update={"train": study.train.model_copy(update={"learning_rate": rate})})
    rows = np.arange(len(examples.tokens), dtype=np.int64)
    samples = max(1, round(vlm.instruction_epochs * len(rows)))
    stage = Job(job.trial, "", samples, job.seed, None, "", job.micro_batch)
    return train_rows(model, own, examples, part, rows, stage, Report(lambda _kind, _content: None, report.dropped))

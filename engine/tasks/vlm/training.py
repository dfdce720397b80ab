"""The stages of an image-to-text training: rows and instructions to batches, and the loss of their answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.settings.study import Study
from engine.tasks.contract import Job, Report
from engine.tasks.shared.batches import Normal, prefetched, to_device, to_pixels
from engine.tasks.shared.caches import read_meta
from engine.tasks.shared.packed import Media, ahead, open_media
from engine.tasks.shared.sharded import share
from engine.tasks.shared.training import accumulate, batches, course, fit, micro_batch
from engine.tasks.vlm.model import NO_LABEL, answer_losses, is_native, set_trained, source_of
from engine.tasks.vlm.native import Told
from engine.tasks.vlm.text import collate

if TYPE_CHECKING:
    import torch

# LLaVA's AdamW
OPTIMIZER: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8}
Batch = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor", "torch.Tensor"]


@dataclass(frozen=True)
class Examples:
    """Rows to learn from: the media `NAME-images`, `NAME-tokens.npy` and their heads in meta.json.

    images: (images, side, side, 3). places: (rows,) which image is a row's. tokens: (rows, length). starts: (rows,)
    where the answer begins. head: ids before.
    """

    images: Media
    places: NDArray[np.int64]
    tokens: NDArray[np.int32]
    starts: NDArray[np.int64]
    head: NDArray[np.int64]
    pad: int
    normal: Normal

    @classmethod
    def of(cls, prepared: Path, name: str) -> Examples:
        """Those that `prepare` wrote under the name."""
        meta = read_meta(prepared)
        images, tokens = open_media(prepared, f"{name}-images"), np.load(prepared / f"{name}-tokens.npy", mmap_mode="r")
        several = prepared / f"{name}-places.npy"  # without it, each row has an image of its own
        places = np.load(several) if several.exists() else np.arange(len(tokens), dtype=np.int64)
        told = meta["examples"][name]
        if "start" in told:
            starts = np.full(len(tokens), told["start"], np.int64)
        elif "starts" in told:  # caches of an earlier form
            starts = np.asarray(told["starts"])
        else:
            starts = np.load(prepared / f"{name}-starts.npy", mmap_mode="r")
        head = np.asarray(told["head"], np.int64)
        return cls(images, places, tokens, starts, head, meta["pad"], (tuple(meta["mean"]), tuple(meta["std"])))

    def batch(self, rows: NDArray[np.int64], device: torch.device) -> Batch:
        """(ids, mask, labels, pixels) of the rows on the device; of several ranks each has the pixels of its share."""

        made = collate(self.tokens[rows].astype(np.int64), self.starts[rows], self.head, self.pad)
        ids, mask, labels = (to_device(part, device) for part in made)
        return ids, mask, labels, to_pixels(self.images[self.places[rows[share(len(rows))]]], device, self.normal)

    def __len__(self) -> int:
        return len(self.tokens)

    def inputs(self, order: Iterator[NDArray[np.int64]], device: torch.device, micro: int) -> Iterator[Batch]:
        """The batches of row numbers; `micro` says nothing here."""
        coming = ahead(self.images, order, lambda chosen: self.places[chosen[share(len(chosen))]])
        return prefetched((self.batch(chosen, device) for chosen in coming), device)

    def backward(self, model: Any, micro: int) -> Callable[[Batch], torch.Tensor]:
        """See `backward`."""
        return backward(model, micro)


def examples_of(study: Study, prepared: Path, name: str) -> Examples | Told:
    """Those that `prepare` wrote under the name."""
    folder = prepared.parents[2]
    return Told(source_of(study, prepared), prepared, name) if is_native(study, folder) else Examples.of(prepared, name)


def backward(model: Any, micro: int) -> Callable[[Batch], torch.Tensor]:
    """Leaves the gradients of a batch's mean loss over its answers' tokens; micro: rows at once."""

    def run(batch: Batch) -> torch.Tensor:
        ids, mask, labels, pixels = batch
        words = (labels != NO_LABEL).sum().clamp(min=1)  # on the device: nothing waits for it
        first = share(len(ids)).start

        def loss(at: slice) -> torch.Tensor:
            seen = pixels[at.start - first : at.stop - first]
            return answer_losses(model, ids[at], mask[at], labels[at], seen).sum() / words

        return accumulate(ids.device, len(ids), micro, loss)

    return run


def train_rows(
    model: Any, study: Study, examples: Examples | Told, part: str, rows: NDArray[np.int64], job: Job, report: Report
) -> bool:
    """Train a part of the model on the job's rows. True, or False when the trial was dropped."""
    set_trained(model, part)
    way = course(study, len(rows), job)
    device = next(model.parameters()).device
    micro = micro_batch(study, job, way.batch)
    backward: Callable[[Any], torch.Tensor] = examples.backward(model, micro)

    def inputs(order: Iterator[NDArray[np.int64]]) -> Iterator[Any]:
        return examples.inputs(order, device, micro)

    return fit(
        model, study, job, report, way, order=batches(rows, job.samples, way.batch, job.seed),
        inputs=inputs, backward=backward, **OPTIMIZER,
    )  # fmt: skip


def instruct(model: Any, study: Study, examples: Examples | Told, part: str, job: Job, report: Report) -> bool:
    """The second stage: a whole, short training on the fixed instructions, the same for every trial of a seed.

    It leaves no points in the trial's curve and no state. True, or False when the trial was dropped.
    """
    vlm = study.vlm
    rate = vlm.instruction_rate if vlm.instruction_rate is not None else study.train.learning_rate
    own = study.model_copy(update={"train": study.train.model_copy(update={"learning_rate": rate})})
    rows = np.arange(len(examples), dtype=np.int64)
    samples = max(1, round(vlm.instruction_epochs * len(rows)))
    stage = Job(job.trial, "", samples, job.seed, None, "", job.micro_batch)
    return train_rows(model, own, examples, part, rows, stage, Report(lambda _kind, _content: None, report.dropped))

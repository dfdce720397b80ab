"""Packed training of task `clip`: several trials at once in one process, as one model with a member axis.

Every parameter of the K members is stacked to (K, …) and the serial model is mapped over that axis, so each
operation does the work of K. Members share the steps and nothing else: weights, batches, clipped norm and
AdamW's moments are their own, so a member's result is that of `train`, up to rounding.

Imported only where a pack is trained; so torch stands at the top.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call, vmap

from engine.base.machine import lacks_memory
from engine.settings.study import Study
from engine.tasks.clip.model import (
    MAX_LOGIT_SCALE,
    build_model,
    contrastive_loss,
    crop_in,
    image_features,
    text_features,
    train,
)
from engine.tasks.contract import WORTH, Job, Report
from engine.tasks.shared.batches import feed
from engine.tasks.shared.crops import drawn, stacked
from engine.tasks.shared.packed import open_media
from engine.tasks.shared.procedure import adamw, autocast, decayed, described
from engine.tasks.shared.training import batches, course, micro_batch, rates
from engine.tasks.shared.training_state import pause, resume

WARM, TIMED = 2, 6  # steps of a calibration
POWERS = [2**i for i in range(9)]
LARGEST = {"cuda": 256, "cpu": 16}


class _Towers(nn.Module):
    """The serial model's features and loss as one forward, which can be given other parameters."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Any, ids: Any) -> torch.Tensor:
        """The features of images or of texts, or with both the loss."""
        if ids is None:
            return image_features(self.model, pixels)
        if pixels is None:
            return text_features(self.model, ids)
        images, texts = image_features(self.model, pixels), text_features(self.model, ids)
        return contrastive_loss(images, texts, self.model.logit_scale)


class Pack:
    """The stacked members.

    parameters: (K, …) by the names of the serial model. towers: the serial model that is mapped over them.
    """

    def __init__(self, models: Iterable[Any], size: int) -> None:
        """models: of one architecture; each is copied before the next is asked for."""
        self.parameters: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            for place, model in enumerate(models):
                for name, value in model.named_parameters():
                    stack = self.parameters.setdefault(name, value.new_empty((size, *value.shape)))
                    stack[place] = value
        for stack in self.parameters.values():
            stack.requires_grad_()
        model.set_attn_implementation("eager")  # the fused kernels cannot be mapped
        patches = model.vision_model.embeddings.patch_embedding
        patches.forward = lambda pixels: _patches(pixels, patches.weight)
        self.towers = _Towers(model.train())

    @property
    def size(self) -> int:
        """Members."""
        return len(self.parameters["logit_scale"])

    @property
    def device(self) -> torch.device:
        """Where the members are."""
        return self.parameters["logit_scale"].device

    def losses(self, pixels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """(K,) of pixels (K, batch, 3, side, side) and ids (K, batch, length)."""
        return self._mapped(pixels, ids, 0)

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """(K, images, projection) unit vectors of the same (images, 3, side, side) for all."""
        return self._mapped(pixels, None, None)

    def text_features(self, ids: torch.Tensor) -> torch.Tensor:
        """(K, texts, projection) unit vectors of the same (texts, length) for all."""
        return self._mapped(None, ids, None)

    def _mapped(self, pixels: torch.Tensor | None, ids: torch.Tensor | None, axis: int | None) -> torch.Tensor:
        def one(parameters: dict[str, torch.Tensor], *inputs: torch.Tensor | None) -> Any:
            return functional_call(self.towers, {f"model.{n}": p for n, p in parameters.items()}, inputs)

        axes = (0, None if pixels is None else axis, None if ids is None else axis)
        found: torch.Tensor = vmap(one, axes, randomness="different")(self.parameters, pixels, ids)
        return found

    def keep(self, places: list[int], optimizer: torch.optim.Optimizer) -> None:
        """Drop all members but those, here and in the optimizer's moments."""
        index = torch.tensor(places, device=self.device)
        for stack in self.parameters.values():
            moments = optimizer.state[stack]
            stack.data, stack.grad = stack.data[index], None
            for name in ("exp_avg", "exp_avg_sq"):
                moments[name] = moments[name][index]

    def member(self, place: int) -> Any:
        """The serial model with a member's weights; the next call changes it."""
        with torch.no_grad():
            for name, value in self.towers.model.named_parameters():
                value.copy_(self.parameters[name][place])
        return self.towers.model


def _patches(pixels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(n, width, rows, columns): the patch convolution, whose stride is its kernel, as a matrix product.

    Mapped over members, a convolution would have K groups, for which kernels are slow.
    """
    side = weight.shape[-1]
    rows, columns = pixels.shape[-2] // side, pixels.shape[-1] // side
    cut = pixels[..., : rows * side, : columns * side].reshape(len(pixels), -1, rows, side, columns, side)
    made = nn.functional.linear(cut.permute(0, 2, 4, 1, 3, 5).flatten(3), weight.flatten(1))
    return made.permute(0, 3, 1, 2)


def train_pack(
    pack: Pack, study: Study, prepared: Path, rows: Sequence[NDArray[np.int64]], jobs: Sequence[Job], report: Report
) -> list[Job]:
    """Train as `train` does, member by member the same; the jobs that are left in the pack, in its order.

    rows: each job's row numbers.
    Raises: ValueError when the jobs differ in batch, steps or horizon, or have micro-batches.
    """
    ways = {course(study, len(r), job) for r, job in zip(rows, jobs, strict=True)}
    if len(ways) != 1:
        told = sorted(astuple(way) for way in ways)
        raise ValueError(f"the trials of a pack need the same batch, steps and horizon, not {told}")
    (way,) = ways
    if any(micro_batch(study, job, way.batch) < way.batch for job in jobs):
        raise ValueError("trials with micro-batches cannot be packed")
    if len({job.trial for job in jobs}) != len(jobs):
        raise ValueError("a trial stands twice in the pack")
    report.total = way.steps
    optimizer = torch.optim.AdamW(decayed(study, pack.parameters.values(), 1), **adamw(study), fused=True)
    for job in jobs:
        report.describe(job.trial, described(pack.towers.model, study, pack.device) | {"optimizer": "adamw fused"})
    left = list(range(len(jobs)))

    crop = crop_in(study, prepared)

    def chosen(after: int) -> Iterator[Any]:
        """(members left, batch) row numbers of every step after that one, and what their crops are drawn by."""
        each = [drawn(batches(rows[i], jobs[i].samples, way.batch, jobs[i].seed), jobs[i].seed, crop) for i in left]
        return islice(map(stacked, zip(*each, strict=True)), after, None)

    states = [job.resume for job in jobs if job.resume]
    if 0 < len(states) < len(jobs):
        raise ValueError("all trials of a pack go on from a state, or none")
    done = resume(states, pack.parameters, optimizer) if states else 0
    source = feed(prepared, pack.device, chosen(done), crop=crop)
    running: list[torch.Tensor] = []
    for step, rate, is_point in rates(study, way, optimizer, done):
        running.append(_step(pack, optimizer, *next(source), study.train.clip_norm))
        if is_point:
            means = torch.stack(running).double().mean(0).tolist()
            running.clear()
            for i, loss in zip(left, means, strict=True):
                report.curve(jobs[i].trial, step, loss=loss, learning_rate=rate)
            gone = report.dropped()
            places = [place for place, i in enumerate(left) if jobs[i].trial not in gone]
            if len(places) < len(left):
                left = [left[place] for place in places]
                if not left:
                    break
                pack.keep(places, optimizer)
                source = feed(prepared, pack.device, chosen(step), crop=crop)
        if report.leaving() and all(jobs[i].park for i in left):
            for place, i in enumerate(left):
                pause(report.park(jobs[i], step, way.steps), step, pack.parameters, optimizer, place)
            return []
    for place, i in enumerate(left):
        if file := jobs[i].pause:
            pause(file, way.steps, pack.parameters, optimizer, place)
    return [jobs[i] for i in left]


def _step(
    pack: Pack, optimizer: torch.optim.Optimizer, pixels: torch.Tensor, ids: torch.Tensor, clip_norm: float
) -> torch.Tensor:
    """One step of every member; their losses (K,), left on the device so that nothing waits for it."""
    optimizer.zero_grad()
    with autocast(pixels.device):
        losses = pack.losses(pixels, ids)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    clip_members([p.grad for p in pack.parameters.values() if p.grad is not None], clip_norm)
    optimizer.step()
    with torch.no_grad():
        pack.parameters["logit_scale"].clamp_(0, MAX_LOGIT_SCALE)
    return losses.detach()


def clip_members(gradients: Sequence[torch.Tensor], norm: float) -> None:
    """Clip each member's gradients to `norm`, as clip_grad_norm_ does a model's. gradients: (K, …) each."""
    # a sum over one row is made in another order than over rows of several, so a lone member goes as two
    twice = 2 if len(gradients[0]) == 1 else 1
    rows = [g.reshape(len(g), -1).expand(twice * len(g), -1) for g in gradients]
    norms = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(r, dim=1) for r in rows]), dim=0)
    factor = (norm / (norms[: len(gradients[0])] + 1e-6)).clamp(max=1)
    for g in gradients:
        g.mul_(factor.view(-1, *[1] * (g.dim() - 1)))


def calibrate(study: Study, prepared: Path, candidates: Sequence[int] | None = None) -> dict[int, float]:
    """Seconds per member's sample, by members; 1 is `train` itself.

    Rises through the candidates (powers of two) until two in a row are not 5 % faster than the best before, or
    memory runs out.
    """
    images = open_media(prepared, "train-images")
    batch = min(study.train.batch_size, len(images))
    # of images in packs as few as will do: making them is no part of a step
    rows = np.arange(len(images) if isinstance(images, np.ndarray) else batch, dtype=np.int64)
    model = build_model(study, prepared, 0, None)
    device = next(model.parameters()).device
    found: dict[int, float] = {}
    start, idle = _peak(), 0
    for size in sorted(candidates or [k for k in POWERS if k <= LARGEST[device.type]]):
        if device.type == "cpu" and found and start + (_peak() - start) * size / max(found) > _share():
            break
        try:
            seconds = _step_seconds(model, size, study, prepared, rows, (WARM + TIMED) * batch) / (size * batch)
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
            break
        idle = idle + 1 if seconds > (1 - WORTH) * min(found.values(), default=np.inf) else 0
        found[size] = seconds
        if idle == 2:
            break
    torch.cuda.empty_cache()
    return found


def _step_seconds(model: Any, size: int, study: Study, prepared: Path, rows: NDArray[np.int64], samples: int) -> float:
    """Median seconds of a step after the warm-up, with a number of members, each as `model`."""
    ends: dict[int, float] = {}

    def emit(_kind: str, content: dict[str, Any]) -> None:
        ends[content["step"]] = time.perf_counter()

    jobs = [Job(str(i), "", samples, i, None, "") for i in range(size)]
    if size == 1:
        train(model, study, prepared, rows, jobs[0], Report(emit))
    else:
        train_pack(Pack(repeat(model, size), size), study, prepared, [rows] * size, jobs, Report(emit))
    return float(np.median(np.diff(list(ends.values()))[WARM - 1 :]))


def _peak() -> int:
    """Bytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _share() -> int:
    """Bytes of memory for each core: as many workers may do the same."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (os.cpu_count() or 1)

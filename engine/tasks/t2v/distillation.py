"""Consistency distillation with rewards (T2V-Turbo, Li et al. 2024; the paper's E.7 adds real data and rounds).

A student learns to say at once where the teacher's path of denoising ends. It holds three sets of weights in one model:
its own, which are trained; the target's, their moving average; the teacher's, as they were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.settings.study import Study
from engine.tasks.contract import Job, Report
from engine.tasks.shared.batches import moved
from engine.tasks.shared.procedure import frozen_dtype
from engine.tasks.t2v.consistency import clean_and_noise, consistent, solved, times
from engine.tasks.t2v.families import Text
from engine.tasks.t2v.frozen import Clips, Encoded
from engine.tasks.t2v.model import Parts
from engine.tasks.t2v.rewards import Reward, load_rewards
from engine.tasks.t2v.student import is_distilled
from engine.tasks.t2v.training import Draws, train, train_by
from engine.tasks.t2v.unets import told_scale, width_of

if TYPE_CHECKING:
    import torch

OPTIMIZER: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8}
Held = dict[str, Any]  # tensors


def train_rows(parts: Parts, study: Study, prepared: Path, rows: NDArray[np.int64], job: Job, report: Report) -> bool:
    """Train on the prepared clips of the rows by the study's objective; see `training.train_by`."""
    if is_distilled(study):
        return distil(parts, study, prepared, rows, job, report)
    return train(parts, study, parts.encoded(Clips(prepared, "train")), rows, job, report)


def distil(parts: Parts, study: Study, prepared: Path, rows: NDArray[np.int64], job: Job, report: Report) -> bool:
    """Train a student on the prepared clips of the rows; see `training.train_by`."""
    encoded = parts.encoded(Clips(prepared, "train"))
    rewards = load_rewards(study, prepared.parents[2], parts.device, frozen_dtype(study))
    distillation = Distillation(parts, study, encoded, rewards)
    options = {**OPTIMIZER, "after": distillation.follow, "beside": distillation.target}
    return train_by(distillation.drawn, distillation.loss, parts, study, encoded, rows, job, report, **options)


@dataclass(frozen=True)
class Drawn:
    """Clips that go through the model at once.

    step: of the solver. scale: w of guidance. nothing: what is heard of no caption; None: the teacher knows the scale.
    frames: those that are rewarded, by the name of what rewards them.
    """

    clean: torch.Tensor
    noise: torch.Tensor
    step: torch.Tensor
    scale: torch.Tensor
    words: Text
    nothing: Text | None
    captions: list[str]
    frames: Held


def distance(one: torch.Tensor, other: torch.Tensor, huber: float) -> torch.Tensor:
    """The mean pseudo-Huber distance of latents."""
    found: torch.Tensor = (((one - other) ** 2 + huber**2).sqrt() - huber).mean()
    return found


class Distillation:
    """The loss of a student. target: weights of its moving average; empty where that is the student itself."""

    def __init__(self, parts: Parts, study: Study, encoded: Encoded, rewards: dict[str, Reward]) -> None:
        self.parts, self.study, self.encoded, self.rewards = parts, study, encoded, rewards
        self.way = study.distill
        self.student: Held = {n: p for n, p in parts.transformer.named_parameters() if p.requires_grad}
        own = {name: p.detach().float().clone() for name, p in self.student.items()}
        from_base = self.way.teacher == "base"
        self.teacher: Held = {n: p * 0 if from_base and ".lora_B." in n else p for n, p in own.items()}
        self.target: Held = {name: p.clone() for name, p in own.items()} if self.way.ema else {}
        noises = parts.scheduler.config.num_train_timesteps
        self.begin, self.end = (t.to(parts.device) for t in times(noises, self.way.solver_steps))

    def follow(self) -> None:
        """The target goes on after a step."""
        for name, tensor in self.target.items():
            tensor.lerp_(self.student[name].detach(), 1 - self.way.ema)

    def says(self, weights: Held, noisy: torch.Tensor, time: torch.Tensor, text: Text) -> torch.Tensor:
        """What the model predicts with other weights; none: its own."""
        from torch.func import functional_call

        model = self.parts.transformer

        def run(*inputs: Any, **named: Any) -> Any:
            return functional_call(model, weights, inputs, named) if weights else model(*inputs, **named)

        return self.parts.family.predict(run, noisy, time, text, self.parts.fps).float()

    def drawn(self, draws: Draws) -> Callable[[slice], Drawn]:
        """See `training.train_by`."""
        import torch

        rows, (low, high), device = len(draws.rows), self.way.scales, self.parts.device
        step = torch.randint(0, self.way.solver_steps, (rows,), generator=draws.generator)
        w, dropped = low + (high - low) * draws.shares(), draws.shares() < self.study.video.drop_text
        frames = self._frames(rows, draws.generator)

        def part(at: slice) -> Drawn:
            chosen = draws.rows[at]
            clean, captions = draws.latents(self.study, self.encoded, at), self.encoded.clips.captions
            words = self.encoded.words(chosen, dropped[at].tolist())
            nothing = None if self.parts.knows else self.encoded.words(chosen, [True] * len(chosen))
            seen = {name: moved(some[at], device) for name, some in frames.items()}
            said = [captions[r] for r in chosen.tolist()]
            noise, scale = draws.noise("noise", clean, at), moved(w[at], device)
            return Drawn(clean, noise, moved(step[at], device), scale, words, nothing, said, seen)

        return part

    def loss(self, part: Drawn) -> torch.Tensor:
        """See `training.train_by`."""
        parts, way, clean = self.parts, self.way, part.clean
        begin = self.begin[part.step]
        noisy = parts.scheduler.add_noise(clean, part.noise, begin)
        told = told_scale(part.words, part.scale, width_of(parts.transformer))
        guess = consistent(parts.scheduler, self.says({}, noisy, begin, told), noisy, begin)
        total = guess.new_zeros(())
        if way.consistency_weight:
            total = total + way.consistency_weight * distance(guess, self._aim(noisy, part, told), way.huber)
        if way.real_weight:
            total = total + way.real_weight * distance(guess, clean, way.huber)
        for name, chosen in part.frames.items():
            reward = self.rewards[name](self.shown(guess, chosen), part.captions, each=name == "image")
            total = total - getattr(way, f"{name}_weight") * reward.mean()
        return total

    def _aim(self, noisy: torch.Tensor, part: Drawn, told: Text) -> torch.Tensor:
        """Where the target ends from where the teacher's step leads, by guidance, of which a student knows itself."""
        import torch

        scheduler, begin, end = self.parts.scheduler, self.begin[part.step], self.end[part.step]
        with torch.no_grad():
            if part.nothing is None:
                clean, noise = clean_and_noise(scheduler, self.says(self.teacher, noisy, begin, told), noisy, begin)
            else:
                both = (self.says(self.teacher, noisy, begin, heard) for heard in (part.words, part.nothing))
                withs, withouts = (clean_and_noise(scheduler, out, noisy, begin) for out in both)
                scale = part.scale.view(-1, 1, 1, 1, 1)
                clean, noise = (a + scale * (a - b) for a, b in zip(withs, withouts, strict=True))
            before = solved(scheduler, clean, noise, end)
            return consistent(scheduler, self.says(self.target, before, end, told), before, end)

    def _frames(self, rows: int, generator: torch.Generator) -> Held:
        """(rows, frames) numbers of those that are rewarded: some at random, and some spread evenly over a clip."""
        import torch

        whole, way, found = self.parts.frames, self.way, {}
        if way.image_weight:
            every = [torch.randperm(whole, generator=generator)[: way.image_frames] for _ in range(rows)]
            found["image"] = torch.stack(every)
        if way.video_weight:
            apart = whole // way.video_frames
            first = torch.randint(0, apart, (rows, 1), generator=generator)
            found["video"] = first + torch.arange(way.video_frames) * apart
        return found

    def shown(self, latents: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """(clips, frames, 3, side, side) from 0 to 1 of the chosen frames of latents."""
        import torch

        assert self.parts.frozen is not None
        at = torch.arange(len(latents), device=latents.device)[:, None]
        some = latents.transpose(1, 2)[at, chosen.to(latents.device)].transpose(1, 2)
        pixels = self.parts.frozen.video(some, chosen.shape[1])
        return (pixels.float() / 2 + 0.5).clamp(0, 1).transpose(1, 2)

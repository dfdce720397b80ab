"""Training and sampling of task `t2v`: the denoising loss of DDPM or flow matching, guidance without a classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.settings.study import Study
from engine.tasks.contract import Job, Report
from engine.tasks.shared.batches import moved, prefetched
from engine.tasks.shared.packed import ahead
from engine.tasks.shared.procedure import autocast
from engine.tasks.shared.sharded import pieces, ranks, share
from engine.tasks.shared.training import batches, course, fit, micro_batch, summed_up
from engine.tasks.t2v.families import COG, DDPM, FLOW, Text
from engine.tasks.t2v.frozen import Encoded
from engine.tasks.t2v.model import Parts, to_video

if TYPE_CHECKING:
    import torch

P = TypeVar("P")
LEVELS = (0.3, 0.5, 0.7, 0.85, 0.95)

"""How noisy the held-out clips are made, as shares of the scheduler's steps: mostly where captions matter."""

OPTIMIZER: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-10}

"""Epsilon as in the paper's D.5."""


def noised(
    parts: Parts, clean: torch.Tensor, noise: torch.Tensor, level: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(noisy latents, timesteps, what the model should predict).

    level: (clips,) share of the noisiest step, 0 to 1; on the host, so that a device is not waited for.
    """
    scheduler = parts.scheduler
    last = scheduler.config.num_train_timesteps - 1
    step = (level * last).round().long()
    if type(scheduler).__name__ == FLOW:
        at = (last - step).cpu()  # its steps fall
        sigma, time = scheduler.sigmas[at].to(clean), scheduler.timesteps[at].to(clean)
        if scheduler.config.use_dynamic_shifting:
            sigma = scheduler.time_shift(parts.family.shift(scheduler.config, tuple(clean.shape[1:])), 1.0, sigma)
            time = sigma * scheduler.config.num_train_timesteps
        sigma = sigma[:, None, None, None, None]
        return (1 - sigma) * clean + sigma * noise, time, noise - clean
    noisy = scheduler.add_noise(clean, noise, step)
    step, kind = step.to(clean.device), scheduler.config.prediction_type
    if kind == "v_prediction":
        return noisy, step, scheduler.get_velocity(clean, noise, step)
    return noisy, step, clean if kind == "sample" else noise


@dataclass(frozen=True)
class _Part:
    """Clips that go through the model at once. level: on the host."""

    clean: torch.Tensor
    noise: torch.Tensor
    level: torch.Tensor
    words: Text


def predict(parts: Parts, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    """What the transformer predicts of noisy latents."""
    return parts.family.predict(parts.transformer, noisy, timesteps, text, parts.fps)


class Draws:
    """What is random in a step, by seed and step only, however its batch is cut. rows: of the whole batch."""

    def __init__(self, seed: int, step: int, rows: NDArray[np.int64], device: torch.device) -> None:
        import torch

        self.rows, self._device = rows, device
        self.generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        self._noises: dict[str, torch.Tensor] = {}

    def shares(self) -> torch.Tensor:
        """(rows,) from 0 to 1."""
        import torch

        return torch.rand(len(self.rows), generator=self.generator)

    def noise(self, of: str, like: torch.Tensor, at: slice) -> torch.Tensor:
        """Of some rows, of the shape of theirs."""
        import torch

        if of not in self._noises:
            self._noises[of] = torch.randn((len(self.rows), *like.shape[1:]), generator=self.generator)
        return moved(self._noises[of][at], self._device)

    def latents(self, study: Study, encoded: Encoded, at: slice) -> torch.Tensor:
        """Clean ones of some rows."""
        sampled = partial(self.noise, "posterior", at=at) if study.video.latents == "sample" else None
        return encoded.latents(self.rows[at], sampled)


def train(parts: Parts, study: Study, encoded: Encoded, rows: NDArray[np.int64], job: Job, report: Report) -> bool:
    """Train by the denoising loss on the rows; see `train_by`."""
    from torch.nn import functional

    def drawn(draws: Draws) -> Callable[[slice], _Part]:
        levels, dropped = draws.shares(), draws.shares() < study.video.drop_text

        def part(at: slice) -> _Part:
            clean = draws.latents(study, encoded, at)
            words = encoded.words(draws.rows[at], dropped[at].tolist())
            return _Part(clean, draws.noise("noise", clean, at), levels[at], words)

        return part

    def loss(part: _Part) -> torch.Tensor:
        noisy, timesteps, target = noised(parts, part.clean, part.noise, part.level)
        return functional.mse_loss(predict(parts, noisy, timesteps, part.words).float(), target)

    return train_by(drawn, loss, parts, study, encoded, rows, job, report, **OPTIMIZER)


def train_by(
    drawn: Callable[[Draws], Callable[[slice], P]], loss: Callable[[P], torch.Tensor],
    parts: Parts, study: Study, encoded: Encoded, rows: NDArray[np.int64], job: Job, report: Report, **options: Any,
) -> bool:  # fmt: skip
    """Train on the rows; see `training.fit`, whose options the last ones are. Draws hang on seed and step only.

    drawn: of a step, what makes a part of its batch. loss: the mean of a part's rows. What is frozen first makes what
    the job will draw and nobody has made yet.
    """
    way, seed, device = course(study, len(rows), job), seed_of(study, job), parts.device
    asked = np.unique(np.concatenate(list(batches(rows, job.samples, way.batch, seed))))
    # several ranks go on together: none leaves by itself
    if not encoded.fill(asked, lambda: ranks() == 1 and job.trial in report.dropped()):
        return False
    each = batches(rows, job.samples, way.batch, seed)
    order = (np.concatenate([[step], chosen]) for step, chosen in enumerate(each, 1))
    micro = micro_batch(study, job, way.batch)

    def made(numbered: NDArray[np.int64]) -> list[tuple[float, P]]:
        """What this rank trains of a batch, in pieces, each with its share."""
        chosen = numbered[1:]
        part = drawn(Draws(seed, int(numbered[0]), chosen, device))
        return [(len(chosen[at]) / len(chosen), part(at)) for at in pieces(len(chosen), micro)]

    def backward(batch: list[tuple[float, P]]) -> torch.Tensor:
        return summed_up(device, batch, lambda shared: loss(shared[1]) * shared[0])

    def own(numbered: NDArray[np.int64]) -> NDArray[np.int64]:
        return numbered[1:][share(len(numbered) - 1)]

    def inputs(order: Iterator[NDArray[np.int64]]) -> Iterator[list[tuple[float, P]]]:
        coming = order if encoded.frozen else ahead(encoded.clips.frames, order, own)
        return prefetched(map(made, coming), device)

    return fit(parts.transformer, study, job, report, way, order=order, inputs=inputs, backward=backward, **options)


def seed_of(study: Study, job: Job) -> int:
    """What the job's seed stands for: `video.seeds` names the first ones."""
    return study.video.seeds[job.seed] if job.seed < len(study.video.seeds) else job.seed


def held_out_loss(parts: Parts, encoded: Encoded, rows: NDArray[np.int64], step: int, guidance: float = 1) -> float:
    """Mean squared error of the prediction over rows and LEVELS, each with its own fixed noise. step: rows at once.

    guidance: the scale that a student is told. Nothing in it is drawn anew, so two models differ by what they have
    learned only.
    """
    import torch
    from torch.nn import functional

    device = parts.device
    parts.transformer.eval()
    total = 0.0
    encoded.fill(rows)
    with torch.no_grad(), autocast(device):
        for at in range(0, len(rows), step):
            part = rows[at : at + step]
            clean, words = encoded.latents(part, None), parts.told(encoded.words(part), guidance)
            for number, level in enumerate(LEVELS):
                noise = torch.stack([
                    torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(int(r) * 101 + number))
                    for r in part
                ]).to(device)  # fmt: skip
                levels = torch.full((len(part),), level)
                noisy, timesteps, target = noised(parts, clean, noise, levels)
                guess = predict(parts, noisy, timesteps, words)
                total += float(functional.mse_loss(guess.float(), target, reduction="sum")) / clean[0].numel()
    return total / (len(rows) * len(LEVELS))


def _sampler(parts: Parts, shape: tuple[int, ...], steps: int) -> Any:
    """The scheduler of denoising steps: of the noise that was trained on, without draws of its own."""
    import diffusers

    config, kind = parts.scheduler.config, type(parts.scheduler).__name__
    maker: Any = getattr(diffusers, kind if kind in (FLOW, COG) else "DDIMScheduler")
    scheduler = maker.from_config(config, **({"timestep_spacing": "trailing"} if kind == DDPM else {}))
    options: dict[str, Any] = {}
    if kind == FLOW and config.use_dynamic_shifting:
        options["mu"] = parts.family.shift(config, shape)
    if kind == FLOW and parts.family.even:
        options["sigmas"] = np.linspace(1, 1 / steps, steps)
    scheduler.set_timesteps(None if "sigmas" in options else steps, device=parts.device, **options)
    return scheduler


def sample(
    parts: Parts, captions: list[str], shape: tuple[int, ...], steps: int, guidance: float, batch: int, seed: int = 0,
    words: Callable[[list[str]], Text] | None = None,
) -> NDArray[np.uint8]:  # fmt: skip
    """(captions, frames, side, side, 3) clips.

    shape: of one clip's latents. batch: clips at once. seed: clip i begins with noise (seed, i). words: in place of
    those of the parts, where they are kept.
    """
    import torch

    device, hear = parts.device, words or parts.words
    parts.transformer.eval()
    made = []
    with torch.no_grad(), autocast(device):
        nothing = hear([""])
        for at in range(0, len(captions), batch):
            count = len(captions[at : at + batch])
            heard = hear(captions[at : at + batch])
            both = {name: torch.cat([t, *[nothing[name]] * count]) for name, t in heard.items()}
            scheduler = _sampler(parts, shape, steps)
            latents = torch.stack([
                torch.randn(shape, generator=torch.Generator().manual_seed(seed * 100_003 + i))
                for i in range(at, at + count)
            ]).to(device)  # fmt: skip
            for t in scheduler.timesteps:
                guess = predict(parts, torch.cat([latents, latents]), t.expand(2 * len(latents)), both).float()
                with_text, without = guess.chunk(2)
                latents = scheduler.step(without + guidance * (with_text - without), t, latents).prev_sample
            made.append(to_video(parts, latents))
    return torch.cat(made).numpy()

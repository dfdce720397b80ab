"""Training and sampling of task `t2v`: the denoising loss of DDPM or flow matching, guidance without a classifier."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.settings.study import Study
from engine.tasks.contract import Job, Report
from engine.tasks.shared.packed import ahead, open_media
from engine.tasks.shared.procedure import autocast
from engine.tasks.shared.training import accumulate, batches, course, fit, micro_batch
from engine.tasks.t2v.model import FLOW, Parts, to_latents, to_video

if TYPE_CHECKING:
    import torch

LEVELS = (0.3, 0.5, 0.7, 0.85, 0.95)

"""How noisy the held-out clips are made, as shares of the scheduler's steps: mostly where captions matter."""

OPTIMIZER: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-10}

"""Epsilon as in the paper's D.5."""


class Clips:
    """A prepared set of clips (rows, frames, side, side, 3) and captions."""

    def __init__(self, prepared: Path, name: str) -> None:
        self.frames = open_media(prepared, f"{name}-clips")
        self.captions: list[str] = json.loads((prepared / f"{name}-captions.json").read_text(encoding="utf-8"))

    def pixels(self, rows: NDArray[np.int64], device: torch.device) -> torch.Tensor:
        """(rows, 3, frames, side, side) from -1 to 1."""
        import torch

        return torch.from_numpy(self.frames[rows]).to(device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def noised(
    scheduler: Any, clean: torch.Tensor, noise: torch.Tensor, level: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(noisy latents, timesteps, what the model should predict). level: (clips,) share of the noisiest step, 0 to 1."""
    last = scheduler.config.num_train_timesteps - 1
    step = (level * last).round().long()
    if type(scheduler).__name__ == FLOW:
        at = (last - step).cpu()  # its steps fall
        sigma = scheduler.sigmas[at].to(clean)[:, None, None, None, None]
        return (1 - sigma) * clean + sigma * noise, scheduler.timesteps[at].to(clean), noise - clean
    noisy = scheduler.add_noise(clean, noise, step)
    kind = scheduler.config.prediction_type
    if kind == "v_prediction":
        return noisy, step, scheduler.get_velocity(clean, noise, step)
    return noisy, step, clean if kind == "sample" else noise


def predict(parts: Parts, noisy: torch.Tensor, timesteps: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """What the transformer predicts of noisy latents; a learned variance, if it has one, is left out."""
    out: torch.Tensor = parts.transformer(noisy, timestep=timesteps, encoder_hidden_states=words).sample
    return out[:, : noisy.shape[1]]


def train(parts: Parts, study: Study, clips: Clips, rows: NDArray[np.int64], job: Job, report: Report) -> bool:
    """Train on the rows; see `training.fit`. Noise, its level and dropped captions hang on seed and step only."""
    import torch
    from torch.nn import functional

    way, seed = course(study, len(rows), job), seed_of(study, job)
    device = next(parts.transformer.parameters()).device
    each = batches(rows, job.samples, way.batch, seed)
    order = (np.concatenate([[step], chosen]) for step, chosen in enumerate(each, 1))

    def backward(numbered: NDArray[np.int64]) -> torch.Tensor:
        step, chosen = int(numbered[0]), numbered[1:]
        draws = torch.Generator().manual_seed(seed * 1_000_003 + step)
        levels, dropped = torch.rand(len(chosen), generator=draws), torch.rand(len(chosen), generator=draws)

        def loss(at: slice) -> torch.Tensor:
            part, level, drop = chosen[at], levels[at].to(device), dropped[at] < study.video.drop_text
            said = ["" if d else clips.captions[r] for r, d in zip(part.tolist(), drop.tolist(), strict=True)]
            clean = to_latents(parts, clips.pixels(part, device))
            noise = torch.randn(clean.shape, generator=draws).to(device)
            noisy, timesteps, target = noised(parts.scheduler, clean, noise, level)
            guess = predict(parts, noisy, timesteps, parts.words(said))
            return functional.mse_loss(guess.float(), target) * (len(part) / len(chosen))

        return accumulate(device, len(chosen), micro_batch(study, job, way.batch), loss)

    def inputs(order: Iterator[NDArray[np.int64]]) -> Iterator[NDArray[np.int64]]:
        return ahead(clips.frames, order, lambda numbered: numbered[1:])

    return fit(parts.transformer, study, job, report, way, order=order, inputs=inputs, backward=backward, **OPTIMIZER)


def train_rows(parts: Parts, study: Study, prepared: Path, rows: NDArray[np.int64], job: Job, report: Report) -> bool:
    """Train on the prepared clips of the rows."""
    return train(parts, study, Clips(prepared, "train"), rows, job, report)


def seed_of(study: Study, job: Job) -> int:
    """What the job's seed stands for: `video.seeds` names the first ones."""
    return study.video.seeds[job.seed] if job.seed < len(study.video.seeds) else job.seed


def held_out_loss(parts: Parts, clips: Clips, rows: NDArray[np.int64], step: int) -> float:
    """Mean squared error of the prediction over rows and LEVELS, each with its own fixed noise. step: rows at once.

    Nothing in it is drawn anew, so two models differ by what they have learned only.
    """
    import torch
    from torch.nn import functional

    device = next(parts.transformer.parameters()).device
    parts.transformer.eval()
    total = 0.0
    with torch.no_grad(), autocast(device):
        for at in range(0, len(rows), step):
            part = rows[at : at + step]
            clean = to_latents(parts, clips.pixels(part, device))
            words = parts.words([clips.captions[r] for r in part])
            for number, level in enumerate(LEVELS):
                noise = torch.stack([
                    torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(int(r) * 101 + number))
                    for r in part
                ]).to(device)  # fmt: skip
                levels = torch.full((len(part),), level, device=device)
                noisy, timesteps, target = noised(parts.scheduler, clean, noise, levels)
                guess = predict(parts, noisy, timesteps, words)
                total += float(functional.mse_loss(guess.float(), target, reduction="sum")) / clean[0].numel()
    return total / (len(rows) * len(LEVELS))


def sample(
    parts: Parts, captions: list[str], shape: tuple[int, ...], steps: int, guidance: float, batch: int, seed: int = 0
) -> NDArray[np.uint8]:
    """(captions, frames, side, side, 3) clips.

    shape: of one clip's latents. batch: clips at once. seed: clip i begins with noise (seed, i).
    """
    import diffusers
    import torch

    device = next(parts.transformer.parameters()).device
    parts.transformer.eval()
    made = []
    with torch.no_grad(), autocast(device):
        nothing = parts.words([""])
        for at in range(0, len(captions), batch):
            words = parts.words(captions[at : at + batch])
            both = torch.cat([words, nothing.expand(len(words), -1, -1)])
            flow = type(parts.scheduler).__name__ == FLOW
            maker: Any = getattr(diffusers, FLOW if flow else "DDIMScheduler")
            scheduler = maker.from_config(parts.scheduler.config, **({} if flow else {"timestep_spacing": "trailing"}))
            scheduler.set_timesteps(steps, device=device)
            latents = torch.stack([
                torch.randn(shape, generator=torch.Generator().manual_seed(seed * 100_003 + i))
                for i in range(at, at + len(words))
            ]).to(device)  # fmt: skip
            for t in scheduler.timesteps:
                guess = predict(parts, torch.cat([latents, latents]), t.expand(2 * len(latents)), both).float()
                with_text, without = guess.chunk(2)
                latents = scheduler.step(without + guidance * (with_text - without), t, latents).prev_sample
            made.append(to_video(parts, latents))
    return torch.cat(made).numpy()

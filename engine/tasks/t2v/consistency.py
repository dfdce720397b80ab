"""Consistency models in the latents of a pipeline (Luo et al. 2023): solver, boundary, scale of guidance, few steps.

f(x, t) = c_skip(t) x + c_out(t) x̂(x, t) takes noisy latents at any time to the clean ones; f(x, 0) = x.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.tasks.shared.procedure import autocast
from engine.tasks.t2v.families import Text
from engine.tasks.t2v.model import Parts, to_video

if TYPE_CHECKING:
    import torch

SIGMA, STRETCH = 0.5, 10.0  # of the boundary, as in diffusers' LCMScheduler


def times(noises: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(times that a step of the solver begins at, those that it ends at), from the least noise on. noises: of them."""
    import torch

    every = noises // steps
    begin = torch.arange(1, steps + 1) * every - 1
    return begin, (begin - every).clamp(min=0)


def _at(values: torch.Tensor, time: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = values.to(like.device)[time].to(like.dtype)
    return found.view(-1, *[1] * (like.dim() - 1))


def clean_and_noise(
    scheduler: Any, out: torch.Tensor, noisy: torch.Tensor, time: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The clean latents and the noise that a model's output means, by the scheduler's prediction type."""
    signal = _at(scheduler.alphas_cumprod**0.5, time, noisy)
    sigma = _at((1 - scheduler.alphas_cumprod) ** 0.5, time, noisy)
    kind = scheduler.config.prediction_type
    if kind == "v_prediction":
        return signal * noisy - sigma * out, signal * out + sigma * noisy
    if kind == "sample":
        return out, (noisy - signal * out) / sigma
    return (noisy - sigma * out) / signal, out


def solved(scheduler: Any, clean: torch.Tensor, noise: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """A step of DDIM without noise of its own, to `time`."""
    signal = _at(scheduler.alphas_cumprod**0.5, time, clean)
    sigma = _at((1 - scheduler.alphas_cumprod) ** 0.5, time, clean)
    return signal * clean + sigma * noise


def boundary(time: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(c_skip, c_out) of times, for latents of clips; 1 and 0 at 0."""
    scaled = (time * STRETCH).double().view(-1, 1, 1, 1, 1)
    whole = scaled**2 + SIGMA**2
    return (SIGMA**2 / whole).float(), (scaled / whole**0.5).float()


def consistent(scheduler: Any, out: torch.Tensor, noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """f of noisy latents, of which the model says `out`."""
    skip, keep = boundary(time)
    return skip * noisy + keep * clean_and_noise(scheduler, out, noisy, time)[0]


def few_steps(
    parts: Parts, captions: list[str], shape: tuple[int, ...], steps: int, guidance: float, batch: int, seed: int = 0,
    words: Callable[[list[str]], Text] | None = None,
) -> NDArray[np.uint8]:  # fmt: skip
    """The clips of a student, by diffusers' LCMScheduler; see `training.sample`. Clip i draws from (seed, i) alone."""
    import torch
    from diffusers import LCMScheduler

    device, hear = parts.device, words or parts.words
    maker: Any = LCMScheduler
    parts.transformer.eval()
    made = []
    with torch.no_grad(), autocast(device):
        for at in range(0, len(captions), batch):
            some = captions[at : at + batch]
            scheduler = maker.from_config(parts.scheduler.config, **lcm_options(parts.solver or 0))
            scheduler.set_timesteps(steps, device=device)
            draws = [torch.Generator().manual_seed(seed * 100_003 + i) for i in range(at, at + len(some))]
            latents = torch.stack([torch.randn(shape, generator=one) for one in draws]).to(device)
            text = parts.told(hear(some), guidance)
            for t in scheduler.timesteps:
                out = parts.family.predict(parts.transformer, latents, t.expand(len(some)), text, parts.fps).float()
                latents, clean = scheduler.step(out, t, latents, generator=draws, return_dict=False)
            made.append(to_video(parts, clean))
    return torch.cat(made).numpy()


def lcm_options(solver: int) -> dict[str, Any]:
    """What of an LCMScheduler is not the pipeline's."""
    return {
        "original_inference_steps": solver, "timestep_scaling": STRETCH, "clip_sample": False, "thresholding": False,
    }  # fmt: skip

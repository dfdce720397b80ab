"""Consistency models: the solver's step, the boundary, the scale of guidance, each against diffusers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, LatentConsistencyModelPipeline, LCMScheduler

from engine.tasks.t2v.consistency import boundary, clean_and_noise, consistent, lcm_options, solved, times
from engine.tasks.t2v.unets import SCALE, told_scale

STEPS = 50
NOISE: dict[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_a_step_of_the_solver_is_that_of_ddim(kind: str) -> None:
    scheduler = DDIMScheduler(
        **NOISE, prediction_type=kind, set_alpha_to_one=False, timestep_spacing="trailing", steps_offset=0
    )
    scheduler.set_timesteps(STEPS)
    begin, end = times(1000, STEPS)
    assert begin.flip(0).tolist() == scheduler.timesteps.tolist() and end[0] == 0
    for at in (0, 1, 25, 49):
        noisy, out = torch.randn(2, 2, 4, 3, 5, 5)
        theirs = scheduler.step(out, int(begin[at]), noisy, eta=0.0).prev_sample
        time = begin[[at, at]]
        ours = solved(scheduler, *clean_and_noise(scheduler, out, noisy, time), end[[at, at]])
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_at_the_boundary_a_clip_is_what_it_is_whatever_the_model_says() -> None:
    scheduler = DDIMScheduler(**NOISE)
    noisy, out = torch.randn(2, 3, 4, 2, 5, 5)
    assert torch.equal(consistent(scheduler, out, noisy, torch.zeros(3, dtype=torch.long)), noisy)
    far = torch.tensor([19, 499, 999])
    clean = clean_and_noise(scheduler, out, noisy, far)[0]
    torch.testing.assert_close(consistent(scheduler, out, noisy, far), clean, atol=1e-1, rtol=1e-2)


def test_the_scalings_and_times_are_those_of_the_scheduler_that_makes_clips() -> None:
    lcm = LCMScheduler.from_config(DDIMScheduler(**NOISE).config, **lcm_options(STEPS))
    for time in (0, 19, 999):
        ours, theirs = boundary(torch.tensor([time])), lcm.get_scalings_for_boundary_condition_discrete(time)
        assert [float(one) for one in ours] == pytest.approx(theirs, rel=1e-6)
    lcm.set_timesteps(STEPS)
    assert lcm.timesteps.flip(0).tolist() == times(1000, STEPS)[0].tolist()


def test_the_scale_is_told_as_latent_consistency_models_are() -> None:
    w = torch.tensor([0.0, 4.0, 7.5, 14.0])
    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, w, 256)
    torch.testing.assert_close(told_scale({}, w, 256)[SCALE], theirs, atol=2e-3, rtol=1e-3)

"""Each family of video pipelines: trained whole and by LoRA, paused, resumed, evaluated, read by its own pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, DDIMScheduler, DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from peft import PeftModel

from engine.base.errors import StudyError
from engine.study.opened import OpenStudy, open_study
from engine.tasks.contract import SILENT, Job
from engine.tasks.shared.videos import Window
from engine.tasks.t2v.frozen import Clips
from engine.tasks.t2v.model import build_model, check_checkpoint
from engine.tasks.t2v.task import T2vTask
from engine.tasks.t2v.training import sample
from tests.conftest import Row, Tiny
from tests.engine.tasks.t2v.pipelines import PIPELINES

torch.set_num_threads(1)
STEPS, GUIDANCE = 3, 3.0
OFTEN = ("wan-2.1", "ltx")
SIDES = {"ltx": 32}  # its pipeline takes no less
UNETS = ("modelscope", "animatediff")
EACH = [name if name in OFTEN else pytest.param(name, marks=pytest.mark.long) for name in PIPELINES]


def study_of(tiny: Tiny, base: Path, side: int | None, **change: Row) -> OpenStudy:
    """A study on a pipeline."""
    tiny.set({
        "task": "t2v",
        "dataset": {"images": None, "videos": "videos"},
        "evaluation": {"label": "label"},
        "model": {"checkpoint": str(base)},
        "train": {"epochs": 1, "batch_size": 4, "learning_rate": 0.01},
        "video": {"samples": 2, "steps": 2, "side": side},
        **change,
    })  # fmt: skip
    return open_study(tiny.study, 1)


def trial(study: OpenStudy, file: Path, **job: Any) -> dict[str, float]:
    """Metrics of one trial of two steps."""
    np.save(file, np.arange(8))
    asked = Job(**{**vars(Job("t", str(file), 8, 0, None, "")), **job})
    return T2vTask().run(study.study, study.prepared, asked, SILENT)["t"]


def by_pipeline(pipe: Any, kind: str, noise: torch.Tensor) -> np.ndarray:
    """(6, side, side, 3): a clip by the pipeline itself, from noise (channels, frames, height, width)."""
    latents, options = noise[None], {"guidance_scale": GUIDANCE, "negative_prompt": ""}
    frames, side = 4 * (noise.shape[1] - 1) + 1, SIDES.get(kind, 16)
    if kind in ("latte", *UNETS):
        options |= {"mask_feature": False, "video_length": 6} if kind == "latte" else {}
        frames = 6
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    elif kind.startswith("cogvideox"):
        latents = latents.transpose(1, 2)
        pipe.scheduler = CogVideoXDDIMScheduler.from_config(pipe.scheduler.config)
    elif kind.startswith("wan"):
        pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    elif kind == "ltx":
        latents = pipe._pack_latents(latents)
        options["frame_rate"] = 25
    elif kind == "hunyuan":
        options |= {"guidance_scale": 1.0, "true_cfg_scale": GUIDANCE}
    if kind != "latte":
        options["num_frames"] = frames
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        made = pipe(
            prompt="a red circle", height=side, width=side, num_inference_steps=STEPS, latents=latents,
            output_type="np", **options,
        ).frames  # fmt: skip
    return np.asarray(made[0])[:6]


def same(study: OpenStudy, init: str | None, pipe: Any, kind: str) -> None:
    """That a model makes the clips that its pipeline makes of the same noise, steps and guidance."""
    parts = build_model(study.study, study.prepared, 0, init)
    shape = tuple(parts.encoded(Clips(study.prepared, "eval")).latents(np.arange(1), None).shape[1:])
    made = sample(parts, ["a red circle"], shape, STEPS, GUIDANCE, 1)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    theirs = by_pipeline(pipe, kind, noise)
    assert made[0].std() > 1  # some picture
    assert np.abs(made[0] / 255 - theirs).max() < 2 / 255


@pytest.mark.parametrize("kind", EACH)
def test_a_family_is_trained_and_its_pipeline_reads_what_is_kept(moving: Tiny, tmp_path: Path, kind: str) -> None:
    base = PIPELINES[kind](tmp_path / "base")
    lora: Row = {"lora": {"rank": 2, "alpha": 8}}
    state, out, rows = tmp_path / "state.safetensors", tmp_path / "out", tmp_path / "rows.npy"
    with (study := study_of(moving, base, SIDES.get(kind), **lora)).store:
        same(study, None, DiffusionPipeline.from_pretrained(base), kind)
        scores = trial(study, rows, output=str(out))
        assert {"loss", "motion_smoothness"} <= set(scores) and np.isfinite(list(scores.values())).all()
        trial(study, rows, samples=4, horizon=8, pause=str(state))
        assert trial(study, rows, horizon=8, resume=str(state)) == scores
        pipe: Any = DiffusionPipeline.from_pretrained(base)
        part = "unet" if kind in UNETS else "transformer"
        setattr(pipe, part, PeftModel.from_pretrained(getattr(pipe, part), str(out)).merge_and_unload())
        same(study, str(out), pipe, kind)
    with (study := study_of(moving, base, SIDES.get(kind))).store:
        assert trial(study, rows, output=str(tmp_path / "whole"))["loss"] != scores["loss"]
        setattr(pipe, part, type(getattr(pipe, part)).from_pretrained(tmp_path / "whole" / part))
        same(study, str(tmp_path / "whole"), pipe, kind)


def _spoil(base: Path, part: str, **change: Any) -> None:
    file = (
        base
        / part
        / ("scheduler_config.json" if part == "scheduler" else "config.json" if part else "model_index.json")
    )
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("", {"_class_name": "WanImageToVideoPipeline"}, "is a WanImageToVideoPipeline; .* trains a WanPipeline"),
        ("", {"transformer_2": ["diffusers", "WanTransformer3DModel"]}, "has two transformers .* Wan 2.1, or Wan 2.2"),
        ("transformer", {"in_channels": 36}, "takes 36 channels, its autoencoder gives 16; give the text-to-video"),
        ("transformer", {"patch_size": [1, 4, 4]}, "16 px do not divide into the 32 px .* a multiple of 32"),
        ("scheduler", {"_class_name": "EDMEulerScheduler"}, "is a EDMEulerScheduler, whose noise is not known"),
        ("scheduler", {"prediction_type": "epsilon"}, r"whose noise is not known; .*\(UniPC with flow_prediction\)"),
        ("text_encoder", {"vocab_size": 50}, "has 79 tokens and its text_encoder 50; they do not belong together"),
        ("text_encoder", {"model_type": "t5"}, "text_encoder is a t5; a WanPipeline reads umt5"),
    ],
)
def test_a_pipeline_that_is_not_trained_is_refused_in_one_line(
    tmp_path: Path, part: str, change: Row, told: str
) -> None:
    base = PIPELINES["wan-2.1"](tmp_path / "base")
    check_checkpoint(base, Window(6, 2, 16))
    _spoil(base, part, **change)
    with pytest.raises(StudyError, match=told) as caught:
        check_checkpoint(base, Window(6, 2, 16))
    assert "\n" not in str(caught.value)

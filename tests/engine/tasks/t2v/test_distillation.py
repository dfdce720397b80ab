"""Consistency distillation with rewards: what is learned, rounds, pause, few steps, read outside, what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers import UNet3DConditionModel
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel, XCLIPConfig, XCLIPModel

from engine.base.errors import StudyError
from engine.study.opened import OpenStudy, open_study
from engine.tasks.contract import SILENT, Job
from engine.tasks.registry import fitting_study
from engine.tasks.shared.procedure import apply_checkpointing
from engine.tasks.t2v.consistency import few_steps
from engine.tasks.t2v.distillation import Distillation
from engine.tasks.t2v.frozen import Clips
from engine.tasks.t2v.model import build_model
from engine.tasks.t2v.rewards import load_rewards
from engine.tasks.t2v.task import T2vTask
from engine.tasks.t2v.training import Draws
from tests.conftest import Row, Tiny
from tests.engine.tasks.t2v.pipelines import animatediff, latte, modelscope, tokenizer

torch.set_num_threads(1)
ROWS = np.arange(8)
WEIGHTS = ("consistency_weight", "real_weight", "image_weight", "video_weight")
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
# what a user does without djsb
OUTSIDE = """
import sys
import torch
from diffusers import DiffusionPipeline, LCMScheduler, UNet3DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from peft import PeftModel
base, folder, target = sys.argv[1:]
pipe = DiffusionPipeline.from_pretrained(base)
unet = UNet3DConditionModel.from_pretrained(base, subfolder="unet", time_cond_proj_dim=256, low_cpu_mem_usage=False)
unet = PeftModel.from_pretrained(unet, folder).merge_and_unload()
scheduler = LCMScheduler.from_config(pipe.scheduler.config, original_inference_steps=10, clip_sample=False)
scheduler.set_timesteps(4)
embeds = pipe.encode_prompt("a red circle", "cpu", 1, False)[0]
w = get_timestep_embedding(torch.tensor([6.5]) * 1000, 256, flip_sin_to_cos=False, downscale_freq_shift=1)
draws = torch.Generator().manual_seed(0)
latents = torch.randn(1, 4, 6, 8, 8, generator=draws)
with torch.no_grad():
    for t in scheduler.timesteps:
        out = unet(latents, t, encoder_hidden_states=embeds, timestep_cond=w).sample
        latents, clean = scheduler.step(out, t, latents, generator=draws, return_dict=False)
    torch.save(pipe.decode_latents(clean), target)
print("engine" in sys.modules)
"""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, and models that reward frames and clips."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    modelscope(folder / "base")
    text = {**SMALL, "vocab_size": 100, "max_position_embeddings": 16, "eos_token_id": 3}
    seen = {**SMALL, "image_size": 16, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=seen, projection_dim=8)).save_pretrained(folder / "clip")
    whole = {"mit_hidden_size": 8, "mit_intermediate_size": 8, "mit_num_hidden_layers": 1, "mit_num_attention_heads": 2}
    XCLIPModel(
        XCLIPConfig(
            text_config=text, vision_config={**seen, "num_frames": 3, **whole}, projection_dim=8, prompt_layers=1,
            prompt_num_attention_heads=2,
        )
    ).save_pretrained(folder / "xclip")  # fmt: skip
    for name in ("clip", "xclip"):
        tokenizer(folder / name).save_pretrained(folder / name)
    return folder


def fields(models: Path, **distill: Any) -> Row:
    """Of a study of students."""
    return {
        "task": "t2v",
        "dataset": {"images": None, "videos": "videos"},
        "evaluation": {"label": "label"},
        "model": {"checkpoint": str(models / "base")},
        "lora": {"rank": 4, "alpha": 4},
        "train": {"epochs": 1, "batch_size": 4, "learning_rate": 0.01, "weight_decay": 0},
        "video": {"objective": "distillation", "samples": 2, "steps": 4, "guidance": 7.5, "drop_text": 0},
        "distill": {
            "image_model": str(models / "clip"), "video_model": str(models / "xclip"), "image_frames": 2,
            "video_frames": 3, "solver_steps": 10, "real_weight": 0.5, "consistency_weight": 0.5, **distill,
        },
    }  # fmt: skip


def opened(tiny: Tiny, models: Path, change: Row | None = None, **distill: Any) -> OpenStudy:
    """A study of students."""
    tiny.set({**fields(models, **distill), **(change or {})})
    return open_study(tiny.study, 1)


def trial(study: OpenStudy, **job: Any) -> dict[str, float]:
    """Metrics of one trial of two steps."""
    file = study.folder / "rows.npy"
    np.save(file, ROWS)
    asked = Job(**{**vars(Job("t", str(file), 8, 0, None, "")), **job})
    return T2vTask().run(study.study, study.prepared, asked, SILENT)["t"]


def made(study: OpenStudy, init: str | None = None) -> Distillation:
    """What trains a student."""
    parts = build_model(study.study, study.prepared, 0, init)
    rewards = load_rewards(study.study, study.folder, parts.device, torch.float32)
    found = Distillation(parts, study.study, parts.encoded(Clips(study.prepared, "train")), rewards)
    found.encoded.fill(ROWS)
    return found


def loss_of(distillation: Distillation, step: int = 7) -> torch.Tensor:
    """Of a batch whose draws are always the same."""
    drawn = distillation.drawn(Draws(5, step, ROWS, distillation.parts.device))
    return distillation.loss(drawn(slice(0, len(ROWS))))


def learn(distillation: Distillation, steps: int) -> tuple[float, float]:
    """The loss of a batch before it is trained on, and afterwards."""
    optimizer = torch.optim.AdamW(distillation.student.values(), lr=0.01, weight_decay=0)
    before = float(loss_of(distillation).detach())
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(distillation).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return before, float(loss_of(distillation).detach())


@pytest.mark.parametrize("term", WEIGHTS)
def test_each_term_reaches_the_student_and_falls(moving: Tiny, models: Path, term: str) -> None:
    """A reward is a loss with a minus: where that falls, the reward rises."""
    only = {name: float(name == term) for name in WEIGHTS}
    with (study := opened(moving, models, **only)).store:
        distillation = made(study)
        loss_of(distillation).backward()  # type: ignore[no-untyped-call]
        reached = {n for n, p in distillation.student.items() if p.grad is not None and bool(p.grad.any())}
        assert any("lora_B" in name for name in reached) and any("cond_proj" in name for name in reached)
        before, after = learn(distillation, 4)
    assert after < before - 1e-4 and (before < 0.2 if term.startswith(("image", "video")) else before > 0)


@pytest.mark.long
def test_the_target_follows_the_student_and_the_teacher_stays(moving: Tiny, models: Path, tmp_path: Path) -> None:
    with (study := opened(moving, models, ema=0.75, image_weight=0, video_weight=0)).store:
        distillation = made(study)
        first = {name: p.detach().clone() for name, p in distillation.student.items()}
        learn(distillation, 2)
        distillation.follow()
        for name, one in distillation.student.items():
            torch.testing.assert_close(distillation.target[name], 0.75 * first[name] + 0.25 * one.detach())
        assert all(torch.equal(first[name], one) for name, one in distillation.teacher.items())
        out = str(tmp_path / "out")
        scores = trial(study, output=out)
        begun = made(study, out)  # a next round
        assert not begun.parts.knows and not any(p.any() for n, p in begun.teacher.items() if "lora_B" in n)
    with (study := opened(moving, models, ema=0, teacher="start", start=out, image_weight=0, video_weight=0)).store:
        begun = made(study)
        assert begun.parts.knows and any(bool(p.any()) for n, p in begun.teacher.items() if "lora_B" in n)
        assert not begun.target  # the student itself
        noisy, time = torch.randn(1, 4, 6, 8, 8), torch.tensor([499])
        told = begun.parts.told(begun.encoded.words(ROWS[:1]), 7.5)
        with torch.no_grad():
            says = [begun.says(weights, noisy, time, told) for weights in (begun.teacher, {})]
        torch.testing.assert_close(*says)
        assert trial(study)["loss"] != scores["loss"]


@pytest.mark.long
def test_a_trial_is_paused_and_goes_on_bit_for_bit(moving: Tiny, models: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.safetensors"
    with (study := opened(moving, models)).store:
        scores = trial(study)
        assert {"loss", "image_reward", "video_reward", "motion_smoothness"} <= set(scores)
        assert {m.name for m in study.metrics} == set(scores) and np.isfinite(list(scores.values())).all()
        assert [m.name for m in study.main_metrics] == ["loss"]
        trial(study, samples=4, horizon=8, pause=str(state))
        kept, held = T2vTask().kept(study.study, study.folder), load_file(state)
        assert any(name.startswith("beside.") for name in held) and kept is not None
        assert sum(t.nbytes for t in held.values()) == pytest.approx(kept.state, rel=0.02)
        assert trial(study, horizon=8, resume=str(state)) == scores
        assert trial(study, micro_batch=2)["loss"] == pytest.approx(scores["loss"], rel=1e-3)


@pytest.mark.long
def test_a_student_makes_the_clips_that_it_makes_without_djsb(moving: Tiny, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (study := opened(moving, models)).store:
        trial(study, output=str(out))
        parts = build_model(study.study, study.prepared, 0, str(out))
        clip = few_steps(parts, ["a red circle", "a blue square"], (4, 6, 8, 8), 4, 7.5, 2)
        alone = few_steps(parts, ["a red circle"], (4, 6, 8, 8), 4, 7.5, 1)
        assert np.abs(clip[:1].astype(int) - alone).max() <= 1 and clip.std() > 1
    done = subprocess.run(
        [sys.executable, "-P", "-c", OUTSIDE, str(models / "base"), str(out), str(tmp_path / "clip.pt")],
        capture_output=True, text=True, cwd="/", timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["False"]
    theirs = torch.load(tmp_path / "clip.pt")[0].permute(1, 2, 3, 0).clamp(-1, 1).numpy() * 127.5 + 127.5
    assert np.abs(alone[0] - theirs).max() < 2


def test_activations_are_made_again_in_a_unet_with_the_same_gradients(models: Path) -> None:
    unet = UNet3DConditionModel.from_pretrained(models / "base", subfolder="unet")
    noisy, words = torch.randn(1, 4, 3, 8, 8), torch.randn(1, 5, 16)
    found = []
    for on in (False, True, False):
        apply_checkpointing(unet, on)
        assert any("forward" in m.__dict__ for m in unet.modules()) == on
        unet.zero_grad()
        unet(noisy, torch.tensor([400]), words).sample.square().sum().backward()
        found.append([p.grad for p in unet.parameters() if p.grad is not None])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


def test_the_template_of_the_papers_settings_is_a_study(models: Path) -> None:
    raw = yaml.safe_load((Path(__file__).parents[4] / "recipes" / "t2v-turbo.yaml").read_text())
    raw["model"]["checkpoint"] = str(models / "base")
    raw["distill"] |= {"image_model": str(models / "clip"), "video_model": str(models / "xclip")}
    data = {"dataset": {"path": "a", "videos": "v"}, "evaluation": {"path": "b"}, "ops": {}, "name": "x"}
    way = fitting_study({**raw, **data}).distill
    assert [getattr(way, name) for name in WEIGHTS] == [0.5, 0.5, 1, 2] and way.teacher == "start"


@pytest.mark.long
def test_weights_are_trained_whole_in_rounds_and_an_animatediff_is_distilled(
    moving: Tiny, models: Path, tmp_path: Path
) -> None:
    out, rounds = tmp_path / "out", {"image_weight": 0, "video_weight": 0, "teacher": "start"}
    with (study := opened(moving, models, {"lora": {"rank": 0}}, **rounds)).store:
        first = trial(study, output=str(out))
        assert (out / "unet" / "config.json").exists()
        assert made(study, str(out)).parts.knows
        assert trial(study, init=str(out))["loss"] != first["loss"]
    base = animatediff(tmp_path / "base")
    with (study := opened(moving, models, {"model": {"checkpoint": str(base)}})).store:
        assert np.isfinite(list(trial(study).values())).all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"video": {"objective": "denoising"}, "distill": {"ema": 0.5}}, "distill is read with video.objective"),
        ({"model": {"preset": "tiny"}}, "distillation needs model.checkpoint"),
        ({"devices_per_trial": 2}, "goes on one device"),
        ({"train": {"compile": "on"}}, "which compiled blocks do not"),
        ({"distill": dict.fromkeys(WEIGHTS, 0)}, "every weight of distill is 0"),
        ({"distill": {"image_weight": 1}}, "image_weight needs distill.image_model"),
        ({"distill": {"image_weight": 0, "video_model": "x"}}, "video_frames 8 is more than a clip's 6"),
        ({"distill": {"image_weight": 0, "video_weight": 0, "solver_steps": 4}}, "video.steps 12 is more than distill"),
        ({"distill": {"scales": [9, 5]}}, "the least w comes first"),
    ],
)  # fmt: skip
def test_a_study_that_cannot_be_distilled_is_told_why(change: Row, told: str) -> None:
    raw: Row = {
        "name": "x", "task": "t2v", "dataset": {"path": "a", "videos": "v"}, "ops": {}, "evaluation": {"path": "b"},
        "video": {"objective": "distillation"}, "model": {"checkpoint": "c"},
    }  # fmt: skip
    with pytest.raises(StudyError, match=told):
        fitting_study({**raw, **change})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, "a LatteTransformer3DModel is told no scale of guidance; distillation needs a UNet"),
        ({"video_frames": 4}, "distill.video_model reads 3 frames of a clip; set distill.video_frames to 3"),
        ({"image_model": "xclip"}, r"distill.image_model: .* is a xclip model; this needs one of clip"),
        ({"start": "nowhere"}, "distill.start: .* has neither adapter_config.json nor unet/"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_decoded(
    moving: Tiny, models: Path, tmp_path: Path, change: Row, told: str
) -> None:
    base = models / "base" if change else latte(tmp_path / "latte")
    named = {"image_model": str(models / change["image_model"])} if "image_model" in change else {}
    study = opened(moving, models, {"model": {"checkpoint": str(base)}}, **{**change, **named})
    with study.store, pytest.raises(StudyError, match=told):
        _ = study.prepared

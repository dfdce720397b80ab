"""Task t2v: what it trains and measures, LoRA, checkpoints that load without djsb, what is refused, kill and resume."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    VideoMAEConfig,
    VideoMAEModel,
)

from engine.base.errors import DataError, StudyError
from engine.settings.study import Study
from engine.study.opened import OpenStudy, open_study
from engine.tasks.contract import Job, Report
from engine.tasks.registry import fitting_study
from engine.tasks.shared.videos import Window, read_clip, write_clip
from engine.tasks.t2v.evaluation import evaluate, metrics_of
from engine.tasks.t2v.families import Family
from engine.tasks.t2v.frozen import Clips
from engine.tasks.t2v.model import Parts, build_model, to_video
from engine.tasks.t2v.task import T2vTask
from engine.tasks.t2v.training import LEVELS, noised, sample, seed_of, train
from tests.conftest import Row, Tiny, write_jsonl
from tests.engine.tasks.killing import ends_alike
from tests.engine.tasks.t2v.conftest import ROWS, T2V
from tests.engine.tasks.t2v.pipelines import easyanimate, latte

torch.set_num_threads(1)
BASE = {"loss", "temporal_flicker", "motion_smoothness", "dynamic_degree", "colour", "object", "motion"}
LEFT_OUT = {"left out: subject_consistency", "left out: fvd"}
# what a user does without djsb
LOAD = """
import sys
import torch
from diffusers import LatteTransformer3DModel
from peft import PeftModel
base, folder, adapted = sys.argv[1:]
model = LatteTransformer3DModel.from_pretrained(base if adapted == "1" else folder, subfolder="transformer")
if adapted == "1":
    model = PeftModel.from_pretrained(model, folder)
width = model.config.caption_channels if adapted == "0" else model.base_model.model.config.caption_channels
channels = 3 if adapted == "0" else 4
out = model(torch.zeros(1, channels, 6, 16 if adapted == "0" else 8, 16 if adapted == "0" else 8),
            timestep=torch.tensor([5]), encoder_hidden_states=torch.zeros(1, 2, width)).sample
print(type(model).__name__, tuple(out.shape)[2], bool(torch.isfinite(out).all()), "engine" in sys.modules)
"""


def run(tiny: Tiny, change: Row, **job: Any) -> tuple[OpenStudy, dict[str, float], list[float]]:
    """The study, metrics and losses of one trial."""
    tiny.set({**T2V, **change})
    losses: list[float] = []
    report = Report(lambda _kind, content: losses.append(content["values"]["loss"]))
    rows = tiny.root / "rows.npy"
    np.save(rows, np.arange(ROWS // 2))
    asked = Job(**{**vars(Job("t", str(rows), 48, 0, None, "")), **job})
    with (study := open_study(tiny.study, 1)).store:
        return study, T2vTask().run(study.study, study.prepared, asked, report)["t"], losses


def load_outside(base: Path, folder: Path, adapted: bool) -> list[str]:
    """What a process without djsb makes of a checkpoint."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOAD, str(base), str(folder), str(int(adapted))],
        capture_output=True, text=True, cwd="/", timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


def test_a_trial_is_repeatable_and_its_checkpoint_loads_without_djsb(moving: Tiny, tmp_path: Path) -> None:
    study, first, losses = run(moving, {}, output=str(tmp_path / "out"))
    assert losses[-1] < losses[0]
    with study.store:
        named = {m.name: m for m in study.metrics}
        told = T2vTask().remarks(study.study, study.prepared)
    assert set(first) == set(named) == BASE
    assert [m.name for m in named.values() if m.main] == ["loss"] and not named["loss"].higher_is_better
    assert all(named[name].low <= value <= named[name].high for name, value in first.items())
    assert {line.split(",")[0].split(";")[0] for line in told if "left out" in line} == LEFT_OUT
    assert any("hold their last frame" in line for line in told)
    assert run(moving, {})[1] == first
    assert load_outside(tmp_path, tmp_path / "out", False) == ["LatteTransformer3DModel", "6", "True", "False"]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "transformer",
        "scheduler",
        "text_encoder",
        "tokenizer.json",
        ".seal",
    }
    again = run(moving, {}, init=str(tmp_path / "out"))[2]
    assert again[0] < losses[0]  # the next cycle goes on from it


def test_a_part_and_its_rest_are_the_whole_training(moving: Tiny, tmp_path: Path) -> None:
    state = str(tmp_path / "state.safetensors")
    whole = run(moving, {})[1]
    run(moving, {}, samples=24, horizon=48, pause=state)
    assert run(moving, {}, horizon=48, resume=state)[1] == whole


def test_pieces_of_a_batch_are_the_whole_batch(moving: Tiny) -> None:
    losses = [run(moving, {}, micro_batch=n)[2] for n in (None, 3)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.long
def test_lora_on_a_latte_leaves_the_base_as_it_was_and_loads_with_plain_peft(moving: Tiny, tmp_path: Path) -> None:
    base = latte(tmp_path / "latte")
    before = load_file(base / "transformer" / "diffusion_pytorch_model.safetensors")
    change = {"model": {"checkpoint": str(base)}, "lora": {"rank": 2}, "evaluation": {"label": "label"}}
    study, scores, _ = run(moving, change, output=str(tmp_path / "out"))
    assert set(scores) == BASE and np.isfinite(list(scores.values())).all()
    files = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= files and "transformer" not in files
    weights = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert weights and all("lora_" in name for name in weights)
    assert any(bool(w.any()) for name, w in weights.items() if "lora_B" in name)
    after = load_file(base / "transformer" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert load_outside(base, tmp_path / "out", True) == ["PeftModel", "6", "True", "False"]
    resumed = build_model(study.study, study.prepared, 0, str(tmp_path / "out")).transformer
    trained = {n: p for n, p in resumed.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    assert any(bool(p.any()) for n, p in trained.items() if "lora_B" in n)


def test_an_easyanimate_pipeline_is_trained_in_its_own_latents(moving: Tiny, tmp_path: Path) -> None:
    base = easyanimate(tmp_path / "easy")
    change = {"model": {"checkpoint": str(base)}, "lora": {"rank": 2}}
    study, scores, losses = run(moving, change, samples=16)
    assert set(scores) == BASE and np.isfinite([*scores.values(), *losses]).all()
    parts = build_model(study.study, study.prepared, 0, None)
    latents = parts.encoded(Clips(study.prepared, "eval")).latents(np.arange(2), None)
    assert latents.shape[1] == 4 and latents.shape[2] < 6 and latents.shape[3] < 16
    assert to_video(parts, latents).shape == (2, 6, 16, 16, 3)


def test_a_latte_on_pixels_learns_a_clip_and_its_caption(moving: Tiny) -> None:
    """Two clips, two captions: after some steps each caption gives its clip."""
    moving.set({**T2V, "train": {"learning_rate": 0.01, "batch_size": 8}, "video": {"drop_text": 0.1}})
    with (study := open_study(moving.study, 1)).store:
        made = study.study.model_copy(update={"evaluation": study.study.evaluation})
        parts = build_model(made, study.prepared, 0, None)
        source = Clips(study.prepared, "eval")
        shown = np.zeros((2, 6, 16, 16, 3), np.uint8)
        shown[0, ..., 0], shown[1, ..., 2] = 220, 220
        source.frames, source.captions = shown, ["a red circle", "a blue square"]
        job = Job("t", "", 640, 0, None, "")
        assert train(parts, made, parts.encoded(source), np.arange(2).repeat(4), job, Report(lambda _k, _c: None))
        clip = sample(parts, source.captions, (3, 6, 16, 16), 6, 2.0, 2).astype(float).mean((1, 2, 3))
    assert clip[0, 0] > clip[0, 2] + 60 and clip[1, 2] > clip[1, 0] + 60


@pytest.mark.parametrize("scheduler", ["DDPMScheduler", "FlowMatchEulerDiscreteScheduler"])
@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_the_target_gives_back_the_clean_clip(scheduler: str, kind: str) -> None:
    import diffusers

    flow = scheduler.startswith("Flow")
    made: Any = getattr(diffusers, scheduler)(**({} if flow else {"prediction_type": kind, "clip_sample": False}))
    clean, noise = torch.rand(len(LEVELS), 3, 2, 4, 4) * 2 - 1, torch.randn(len(LEVELS), 3, 2, 4, 4)
    parts = Parts(None, made, Family({}, {}, {}), lambda _: {}, None, 2)
    noisy, steps, target = noised(parts, clean, noise, torch.tensor(LEVELS))
    if flow:
        sigma = (steps / 1000)[:, None, None, None, None]
        torch.testing.assert_close(noisy - sigma * target, clean, atol=1e-4, rtol=1e-4)
        return
    for i in range(len(LEVELS)):
        back = made.step(target[i : i + 1], int(steps[i]), noisy[i : i + 1]).pred_original_sample
        torch.testing.assert_close(back, clean[i : i + 1], atol=2e-3, rtol=1e-3)


def test_local_models_score_made_clips(moving: Tiny, tmp_path: Path) -> None:
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    CLIPModel(
        CLIPConfig(
            text_config={**small, "vocab_size": 1100, "max_position_embeddings": 16, "eos_token_id": 3},
            vision_config={**small, "image_size": 16, "patch_size": 8}, projection_dim=8,
        )
    ).save_pretrained(tmp_path / "clip")  # fmt: skip
    VideoMAEModel(
        VideoMAEConfig(**small, image_size=16, patch_size=8, num_frames=4, tubelet_size=2)
    ).save_pretrained(tmp_path / "mae")  # fmt: skip
    study, plain, _ = run(moving, {})
    PreTrainedTokenizerFast(
        tokenizer_file=str(study.prepared / "tokenizer.json"), pad_token="<pad>"
    ).save_pretrained(tmp_path / "clip")  # fmt: skip
    video = {**T2V["video"], "clip": str(tmp_path / "clip"), "detector": str(tmp_path / "mae")}
    study, scores, _ = run(moving, {"video": video})
    assert set(scores) == BASE | {"subject_consistency", "text_similarity", "fvd"}
    assert {name: scores[name] for name in BASE} == plain
    assert scores["fvd"] > 0 and 0 <= scores["subject_consistency"] <= 1


FAKE = """
import json, pathlib, sys
videos, prompts, out = sys.argv[1:]
named = json.load(open(prompts))
assert sorted(named) == sorted(str(p) for p in pathlib.Path(videos).iterdir()), named
assert sorted(named.values()) == ["a cat", "a cat", "a dog/cat", "a dog/cat"]
json.dump({"color": [0.5, []], "scene": [0.4111, []]}, open(out + "/x_eval_results.json", "w"))
"""


def test_vbench_is_run_on_clips_of_its_prompts(moving: Tiny, tmp_path: Path) -> None:
    (tmp_path / "fake.py").write_text(FAKE)
    (tmp_path / "prompts.txt").write_text("a cat\n\na dog/cat\n")
    video = {
        "samples": 0, "checks": False, "steps": 1, "vbench_each": 2, "vbench_prompts": str(tmp_path / "prompts.txt"),
        "vbench": f"{sys.executable} {tmp_path}/fake.py {{videos}} {{prompts}} {{out}}",
        "vbench_dimensions": ["color", "scene"],
    }  # fmt: skip
    moving.set({**T2V, "video": video})
    with (study := open_study(moving.study, 1)).store:
        parts = build_model(study.study, study.prepared, 0, None)
        scores = evaluate(parts, study.study, study.prepared)
        assert set(scores) == {m.name for m in study.metrics} == {"loss", "vbench_color", "vbench_scene"}
        assert {m.name for m in study.main_metrics} == set(scores)
        assert (scores["vbench_color"], scores["vbench_scene"]) == pytest.approx((0.5, 0.5))
        whole = study.study.model_copy(
            update={"video": study.study.video.model_copy(update={"vbench_dimensions": None})}
        )
        assert [m.name for m in metrics_of(whole) if m.main] == ["loss", "vbench_total"]
        with pytest.raises(StudyError, match="measured no subject_consistency"):
            evaluate(parts, whole, study.prepared)


def test_seeds_stand_for_the_first_ones() -> None:
    study = Study.model_validate({
        "name": "x", "task": "t2v", "dataset": {"path": "a", "videos": "v"}, "evaluation": {"path": "b"},
        "ops": {}, "video": {"seeds": [42, 45]},
    })  # fmt: skip
    assert [seed_of(study, Job("t", "", 1, seed, None, "")) for seed in (0, 1, 2)] == [42, 45, 2]


# --- bad input ---


def test_bad_videos_are_counted_and_the_others_trained_on(moving: Tiny) -> None:
    data = moving.root / "data"
    (data / "broken.mp4").write_bytes(b"no video at all")
    with av.open(str(data / "silent.mp4"), "w") as container:  # a sound, but no frame
        stream: Any = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    rows = [dict(row) for row in moving.rows]
    rows[3]["videos"], rows[5]["videos"], rows[7]["videos"] = ["broken.mp4"], ["silent.mp4"], ["nowhere.mp4"]
    write_jsonl(moving.train_file, rows)
    with (study := open_study(moving.study, 1)).store:
        assert study.scan.bad == 3
        cache = np.load(study.prepared / "train-clips.npy")
        reasons = {r["row"]: r["reason"] for r in study.store.query("SELECT row, reason FROM quarantine")}
    assert not cache[[3, 5, 7]].any() and cache[0].any()
    assert "not a video file" in reasons[3] and "unreadable video" in reasons[5] and "missing file" in reasons[7]


def test_a_window_is_held_drawn_and_refused(tmp_path: Path) -> None:
    frames = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.full((1, 16, 16, 3), 12, np.uint8)
    write_clip(frames, tmp_path / "a.mp4", 8)
    window = Window(4, 2, 8)

    def seen(draw: float) -> list[int]:
        return [round(float(f.mean()) / 12) for f in read_clip(tmp_path / "a.mp4", window, draw)[0]]

    assert seen(0) == [0, 2, 4, 6] and seen(0.999) == [13, 15, 17, 19]
    write_clip(frames[10:13], tmp_path / "b.mp4", 8)
    clip, held = read_clip(tmp_path / "b.mp4", window, 0.9)
    assert held and [round(float(f.mean()) / 12) for f in clip] == [10, 12, 12, 12]
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "c.mp4").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(ValueError, match="unreadable video"):
        read_clip(tmp_path / "c.mp4", window, 0)


def test_a_video_that_is_gone_since_the_scan_is_left_out(moving: Tiny) -> None:
    with (study := open_study(moving.study, 1)).store:
        assert study.scan.bad == 0 and study.evaluation_scan.bad == 0
        (moving.root / "data" / moving.rows[9]["videos"][0]).unlink()
        assert not np.load(study.prepared / "train-clips.npy")[9].any()
        assert np.flatnonzero(~study.scan.good).tolist() == [9]
        (bad,) = study.store.query("SELECT row, reason FROM quarantine")
        assert bad["row"] == 9 and bad["reason"].startswith("missing file")
    with (again := open_study(moving.study, 1)).store:
        assert np.flatnonzero(~again.scan.good).tolist() == [9]
        _ = again.root  # trials of these rows may be under way
        (moving.root / "data" / moving.rows[11]["videos"][0]).unlink()
        shutil.rmtree(again.prepared)
        del again.prepared
        with pytest.raises(DataError, match=r"train\.jsonl, row 11: missing file .*000011\.mp4; mend it"):
            _ = again.prepared


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        ("architecture", r"transformer is a MochiTransformer3DModel; task t2v trains Latte.*, EasyAnimate.*, Wan"),
        ("frames", r"makes 8 frames, the study 6; set video\.frames: 8"),
        ("autoencoder", r"vae is a AutoencoderKLWan; LatteTransformer3DModel needs an AutoencoderKL"),
        ("nothing", r"config\.json cannot be read .*; give the folder of a diffusers pipeline"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(
    moving: Tiny, tmp_path: Path, break_it: str, told: str
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    if break_it != "nothing":
        latte(base, 8 if break_it == "frames" else 6)
    part = {"architecture": "transformer", "autoencoder": "vae"}.get(break_it)
    if part:
        name = "MochiTransformer3DModel" if part == "transformer" else "AutoencoderKLWan"
        (base / part / "config.json").write_text(json.dumps({"_class_name": name}))
    moving.set({**T2V, "model": {"checkpoint": str(base)}})
    with (study := open_study(moving.study, 1)).store, pytest.raises(StudyError, match=told) as caught:
        _ = study.prepared
    assert "\n" not in str(caught.value)


def test_a_package_that_is_missing_is_named_with_its_remedy(moving: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.tasks.shared.checkpoints.find_spec", lambda _: None)
    with (study := open_study(moving.study, 1)).store, pytest.raises(StudyError) as caught:
        _ = study.prepared
    assert "needs diffusers and av and cv2; install with: pip install 'djsb[t2v]'" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"video": {"samples": 0, "checks": True}}, "video.checks needs evaluation.label"),
        ({"video": {"samples": 0, "checks": False, "clip": "x"}}, "set video.samples"),
        ({"video": {"vbench": "python run.py"}}, "needs {videos} and {out}"),
        ({"video": {"vbench_dimensions": ["smell"]}}, "smell is unknown"),
        ({"dataset": {"videos": None}}, "needs dataset.videos"),
    ],
)
def test_what_a_study_lacks_is_said(change: Row, told: str) -> None:
    raw = {
        "name": "x", "task": "t2v", "dataset": {"path": "a", "videos": "v"}, "ops": {},
        "evaluation": {"path": "b", "label": "label"},
    }  # fmt: skip
    with pytest.raises(StudyError, match=told):
        fitting_study({**raw, **{k: {**raw.get(k, {}), **v} for k, v in change.items()}})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": {"preset": "easyanimate"}}, "no weights of its own; set model.checkpoint"),
        ({"lora": {"rank": 4}}, "lora needs model.checkpoint"),
        ({"video": {"samples": 4, "clip": "../data"}}, r"video\.clip: .* is no transformers checkpoint"),
        ({"video": {"vbench_prompts": "../nowhere.txt"}}, r"video\.vbench_prompts: .* cannot be read"),
    ],
)
def test_what_is_missing_on_disk_is_said_before_anything_is_decoded(moving: Tiny, change: Row, told: str) -> None:
    moving.set({**T2V, **change})
    with (study := open_study(moving.study, 1)).store, pytest.raises(StudyError, match=told):
        _ = study.prepared
    assert not list((moving.study / ".djsb" / "cache").glob("t2v-*"))


def test_parts_hold_what_a_trial_works_with(moving: Tiny) -> None:
    with (study := open_study(moving.study, 1)).store:
        parts = build_model(study.study, study.prepared, 0, None)
    assert isinstance(parts, Parts) and parts.frozen is None
    features = parts.words(["a red circle", "a red circle " * 30, ""])["embeds"]
    assert features.shape == (3, 17, 64) and torch.isfinite(features).all()
    assert not features[2].any() and features[0, 0].any()


@pytest.mark.long
def test_killed_and_resumed_it_ends_alike(moving: Tiny) -> None:
    ends_alike(moving, T2V)

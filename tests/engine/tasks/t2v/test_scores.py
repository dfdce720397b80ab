"""Scores of clips: what moves, flickers and is right in the demo world; Fréchet distance; local models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, VideoMAEConfig, VideoMAEModel

from engine.demo.video import LABELS, draw_motion, render_clip
from engine.tasks.shared.images import fit_square
from engine.tasks.t2v.scores import (
    check_scores,
    clip_scores,
    flow_scores,
    frechet_distance,
    load_detector,
    motion_smoothness,
    seen_in,
)

from PIL import Image  # isort: skip

torch.set_num_threads(1)


def clip(label: str, seed: int, side: int = 16, speed: float | None = None) -> np.ndarray:
    """(6, side, side, 3): every other frame of a clean clip of the demo world."""
    scene = draw_motion(label, np.random.default_rng(seed))
    scene = scene if speed is None else replace(scene, speed=speed)
    return np.stack([fit_square(Image.fromarray(f), side) for f in render_clip(scene)[:12:2]])


def test_clean_clips_are_seen_for_what_they_are() -> None:
    clips = np.stack([clip(label, i) for i, label in enumerate(LABELS)])
    right = check_scores(clips, LABELS)
    assert right["colour"] == right["motion"] == 1
    assert right["object"] > 0.9
    other = [LABELS[(i + 17) % len(LABELS)] for i in range(len(LABELS))]  # every word differs
    assert max(check_scores(clips, other).values()) < 0.1


def test_nothing_is_seen_where_nothing_is() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3)).astype(np.uint8)
    assert seen_in(np.full((6, 16, 16, 3), 120, np.uint8)) == (None, None, None)
    assert seen_in(noise)[2] is None
    assert seen_in(clip("red circle moving left", 0, speed=0))[::2] == ("red", None)


def test_a_label_of_another_world_is_refused() -> None:
    with pytest.raises(ValueError, match="'a dog' is none of the demo world"):
        check_scores(np.zeros((1, 2, 8, 8, 3), np.uint8), ["a dog"])


def test_flow_tells_still_moving_and_flickering_clips_apart() -> None:
    moving = np.stack([clip(label, i, 32, 0.04) for i, label in enumerate(LABELS[:6])])
    still = np.stack([clip(label, i, 32, 0.0) for i, label in enumerate(LABELS[:6])])
    light = np.random.default_rng(0).integers(-50, 50, (6, 6, 1, 1, 1))
    flickering = np.clip(moving + light, 0, 255).astype(np.uint8)
    scores = {n: flow_scores(c) for n, c in (("moving", moving), ("still", still), ("flickering", flickering))}
    assert scores["moving"]["dynamic_degree"] > 0.5 and scores["still"]["dynamic_degree"] == 0
    assert scores["still"]["temporal_flicker"] > scores["moving"]["temporal_flicker"]
    assert scores["moving"]["temporal_flicker"] > scores["flickering"]["temporal_flicker"]
    assert scores["moving"]["motion_smoothness"] > scores["flickering"]["motion_smoothness"]


def test_a_jump_is_less_smooth_than_a_steady_way() -> None:
    steady = clip("red circle moving left", 1, 32, 0.03)
    jumping = steady[[0, 3, 1, 4, 2, 5]]
    assert motion_smoothness(steady) > motion_smoothness(jumping)
    assert np.isnan(motion_smoothness(steady[:2]))


def test_similarities_of_unit_vectors() -> None:
    east, north = np.float32([1, 0]), np.float32([0, 1])
    frames = np.stack([[east, east, east], [east, north, north]])
    scores = clip_scores(frames, np.stack([east, north]))
    assert scores["subject_consistency"] == pytest.approx((1 + (0 + 0.5) / 2) / 2)
    assert scores["text_similarity"] == pytest.approx((1 + 2 / 3) / 2)


def test_the_frechet_distance_of_known_gaussians() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, (20_000, 3)), rng.normal(0, 1, (20_000, 3))
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(one, other * 2 + 3) == pytest.approx(3 * 9 + 3 * 1, rel=0.05)  # |m|² + Σ(σ₁ − σ₂)²
    assert np.isfinite(frechet_distance(one[:2], other[:2]))  # fewer clips than features
    with pytest.raises(ValueError, match="two clips"):
        frechet_distance(one[:1], other)


def test_a_local_video_model_gives_features_and_others_are_refused(tmp_path: Path) -> None:
    config = VideoMAEConfig(
        image_size=16, patch_size=8, num_frames=4, tubelet_size=2, hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=32,
    )  # fmt: skip
    VideoMAEModel(config).save_pretrained(tmp_path / "mae")
    features = load_detector(tmp_path / "mae", torch.device("cpu"))
    clips = np.stack([clip(label, 0) for label in LABELS[:3]])
    assert features(clips).shape == (3, 16)
    assert np.array_equal(features(clips)[:1], features(clips[:1]))
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="a bert model, not a videomae"):
        load_detector(tmp_path / "bert", torch.device("cpu"))

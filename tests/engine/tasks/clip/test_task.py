"""Task clip: what it trains, what it measures, and that a checkpoint can take the preset's place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.study.file import parse_study
from engine.study.opened import open_study
from engine.tasks.clip.model import (
    PRESETS,
    _backward,
    build_model,
    clip_config,
    contrastive_loss,
    image_features,
    text_features,
)
from engine.tasks.clip.task import ClipTask, _recalls
from engine.tasks.contract import Job, Report
from engine.tasks.shared.images import fit_square
from engine.tasks.shared.tokens import EOS, load_encoder
from engine.tasks.shared.training import batches  # fmt: skip
from tests.conftest import Tiny

torch.set_num_threads(1)
SILENT = Report(lambda _kind, _content: None)


def run(
    tiny: Tiny, tmp_path: Path, *, seed: int = 0, samples: int = 320, micro: int | None = None, init: str | None = None
) -> dict[str, float]:
    opened = open_study(tiny.study, 1)
    rows = tmp_path / "rows.npy"
    np.save(rows, np.arange(60))
    job = Job("t", str(rows), samples, seed, init, str(tmp_path / f"out-{seed}-{micro}-{samples}"), micro)
    with opened.store:
        return ClipTask().run(opened.study, opened.prepared, job, SILENT)["t"]


def test_a_trial_learns_and_the_same_trial_gives_the_same_numbers(tiny: Tiny, tmp_path: Path) -> None:
    tiny.set({"train": {"learning_rate": 0.002}})
    first = run(tiny, tmp_path, samples=960)
    assert first["accuracy"] > 0.6  # three colours; chance is 0.33
    assert first == run(tiny, tmp_path, samples=960)
    assert first != run(tiny, tmp_path, samples=960, seed=1)


def test_prompts_of_different_classes_have_different_features(tiny: Tiny) -> None:
    """The end-of-text id must not be the one at which transformers pools elsewhere."""
    opened = open_study(tiny.study, 1)
    with opened.store:
        prepared = opened.prepared
    encode = load_encoder(prepared, PRESETS["tiny"].length)
    ids = torch.from_numpy(encode(["a photo of a red", "a photo of a blue"]).astype(np.int64))
    assert EOS != 2
    model = build_model(opened.study, prepared, 0, None)
    features = text_features(model, ids)
    assert not torch.allclose(features[0], features[1])


def test_gradient_caching_gives_the_gradients_of_the_whole_batch(tiny: Tiny) -> None:
    opened = open_study(tiny.study, 1)
    with opened.store:
        prepared = opened.prepared
    torch.manual_seed(0)
    pixels, ids = torch.randn(12, 3, 32, 32), torch.randint(4, 200, (12, 16))
    ids[:, -1] = EOS
    gradients = []
    for micro in (12, 5):
        model = build_model(opened.study, prepared, 0, None)
        loss = _backward(model, pixels, ids, micro, len(pixels))
        gradients.append((loss, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    for whole, pieces in zip(gradients[0][1], gradients[1][1], strict=True):
        torch.testing.assert_close(whole, pieces, rtol=1e-3, atol=1e-6)


def test_a_checkpoint_takes_the_place_of_the_preset(tiny: Tiny, tmp_path: Path) -> None:
    run(tiny, tmp_path, samples=64)
    checkpoint = tmp_path / "out-0-None-64"
    assert {p.name for p in checkpoint.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    again = run(tiny, tmp_path, samples=16, seed=3, init=str(checkpoint))
    assert set(again) >= {"accuracy", "likelihood", "image_to_text_r1"}
    opened = open_study(tiny.study, 1)
    with opened.store:
        from_file = build_model(opened.study, opened.prepared, 0, str(checkpoint))
        fresh = build_model(opened.study, opened.prepared, 0, None)
    assert not torch.equal(from_file.visual_projection.weight, fresh.visual_projection.weight)


def test_a_folder_that_is_no_checkpoint_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    tiny.set({"model": {"checkpoint": str(tmp_path)}})
    opened = open_study(tiny.study, 1)
    with opened.store, pytest.raises(Exception, match=r"model\.checkpoint.*is no transformers checkpoint"):
        _ = opened.prepared


def test_batches_are_seeded_permutations_without_repeats_in_an_epoch() -> None:
    rows = np.arange(100, 160)
    made = list(batches(rows, 120, 20, seed=5))
    assert [len(b) for b in made] == [20] * 6
    assert sorted(np.concatenate(made[:3]).tolist()) == rows.tolist()
    assert sorted(np.concatenate(made[3:]).tolist()) == rows.tolist()
    again = list(batches(rows, 120, 20, seed=5))
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))
    assert not np.array_equal(made[0], next(batches(rows, 120, 20, seed=6)))


def test_the_loss_is_log_of_the_batch_without_information_and_falls_with_it() -> None:
    same = torch.nn.functional.normalize(torch.ones(8, 4), dim=-1)
    assert float(contrastive_loss(same, same, torch.tensor(0.0))) == pytest.approx(np.log(8))
    apart = torch.eye(8)
    assert float(contrastive_loss(apart, apart, torch.tensor(4.0))) < 0.01


def test_recall_counts_any_row_of_the_same_caption() -> None:
    features = torch.eye(4)
    captions = torch.tensor([0, 0, 1, 2])
    swapped = features[[1, 0, 2, 3]]
    assert _recalls("x", features, swapped, captions)["x_r1"] == 1.0
    wrong = features[[2, 3, 0, 1]]
    assert _recalls("x", features, wrong, captions)["x_r1"] == 0.0


def test_images_are_cropped_to_the_centre() -> None:
    from PIL import Image

    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 255
    assert fit_square(Image.fromarray(wide), 16).min() == 255


def test_presets_are_those_of_the_names() -> None:
    large = clip_config(PRESETS["vit-b-32"])
    assert large["vision_config"]["hidden_size"] == 768
    assert large["vision_config"]["patch_size"] == 32
    assert parse_study("name: a\ndataset: {path: x}\nops: {}\n").model.preset == "tiny"


def test_features_are_unit_vectors(tiny: Tiny) -> None:
    opened = open_study(tiny.study, 1)
    with opened.store:
        model = build_model(opened.study, opened.prepared, 0, None)
    assert image_features(model, torch.randn(3, 3, 32, 32)).norm(dim=-1).tolist() == pytest.approx([1, 1, 1])

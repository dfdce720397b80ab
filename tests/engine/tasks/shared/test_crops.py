"""Random resized crops: torchvision's windows, pixels as Pillow resamples them, the same for a trial always."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.settings.model import TrainSection
from engine.tasks.shared.crops import RATIO, TRIES, Crop, drawn, stacked
from engine.tasks.shared.procedure import decayed
from engine.tasks.shared.training import schedule

CPU = torch.device("cpu")
CROP = Crop(32, (0.9, 1.0))


def smooth(width: int, height: int) -> Image.Image:
    """A picture without sharp edges, so that resampling it twice is as good as once."""
    down, across = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    pixels = np.stack([across, down, (across + down) / 2], -1) * 220 + 20
    return Image.fromarray(pixels.astype(np.uint8))


def uniform(*shape: int) -> Any:
    return np.random.default_rng(1).random((*shape, 2 * TRIES + 2))


def test_windows_have_the_shares_and_ratios_of_a_random_resized_crop() -> None:
    for aspect in (0.7, 1.0, 1.4):
        left, top, width, height = np.moveaxis(CROP.windows(np.full(4_000, aspect, np.float32), uniform(4_000)), -1, 0)
        ratio = width / height * aspect
        assert (RATIO[0] - 1e-6 <= ratio).all() and (ratio <= RATIO[1] + 1e-6).all()
        assert (left >= 0).all() and (left + width <= 1 + 1e-9).all() and (top + height <= 1 + 1e-9).all()
        area = width * height
        drawn_ones = (area > 0.9 - 1e-9) & (area <= 1)
        assert drawn_ones.mean() > 0.8  # the others found no place in ten tries, and are the centre
        if aspect == 1.0:
            assert area.mean() == pytest.approx(0.95, abs=0.01)
            assert left.std() > 0.01


def test_a_long_picture_is_cut_as_torchvision_falls_back() -> None:
    for width, height in ((400, 100), (100, 400)):
        made = CROP.medium.fit(smooth(width, height))
        box = (400 - 133) // 2, 0, (400 - 133) // 2 + 133, 100
        box = box if width > height else (0, box[0], 100, box[2])
        expected = smooth(width, height).crop(box).resize((32, 32), Image.Resampling.BICUBIC)
        cut = CROP.cut(torch.from_numpy(made)[None], uniform(1), CPU)[0].numpy()
        assert np.abs(cut - np.asarray(expected, np.float32)).max() < 3


@pytest.mark.parametrize("size", [(200, 200), (260, 200), (200, 280)])
def test_pixels_are_those_of_the_window_resampled_by_pillow(size: tuple[int, int]) -> None:
    image, draws = smooth(*size), uniform(5)
    made = np.stack([CROP.medium.fit(image)] * 5)
    aspects = np.full(5, size[0] / size[1], np.float32)
    found = CROP.cut(torch.from_numpy(made), draws, CPU).numpy()
    for pixels, (left, top, width, height) in zip(found, CROP.windows(aspects, draws), strict=True):
        box = (left * size[0], top * size[1], (left + width) * size[0], (top + height) * size[1])
        expected = image.resize((32, 32), Image.Resampling.BICUBIC, box=box)
        assert np.abs(pixels - np.asarray(expected, np.float32)).max() < 3
    centre = CROP.cut(torch.from_numpy(made[:1]), None, CPU)[0].numpy()
    short = min(size)
    box = ((size[0] - short) / 2, (size[1] - short) / 2, (size[0] + short) / 2, (size[1] + short) / 2)
    expected = image.resize((32, 32), Image.Resampling.BICUBIC, box=box)
    assert np.abs(centre - np.asarray(expected, np.float32)).max() < 3


def test_a_cache_keeps_the_picture_and_its_shape(tmp_path: Path) -> None:
    medium, file = CROP.medium, tmp_path / "a.png"
    assert medium.shape == (37, 36, 3)  # 32 / 0.9 and a line
    smooth(260, 200).save(file)
    pixels, _ = medium.decode(file, 0)
    assert pixels[-1].reshape(-1)[:4].copy().view(np.float32)[0] == np.float32(1.3)
    for form in ("exact", "jpeg"):
        content, kept = medium.pack(file, 0, form)  # type: ignore[arg-type]
        assert np.array_equal(medium.unpack(content), kept)
        assert np.array_equal(kept[-1], pixels[-1])
        assert np.abs(kept[:-1].astype(int) - pixels[:-1]).max() < 12
    large = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    Image.fromarray(large).save(file)
    content, kept = medium.pack(file, 0, "jpeg")
    assert content[:1] == b"J" and np.array_equal(medium.unpack(content), kept)
    assert kept[-1].reshape(-1)[:4].copy().view(np.float32)[0] == 1


def test_a_trial_draws_the_same_windows_alone_resumed_and_in_a_pack() -> None:
    def order() -> Any:
        return iter(np.arange(24).reshape(4, 6))

    alone = list(drawn(order(), 3, CROP))
    assert len({d.tobytes() for _, d in alone}) == 4
    other = list(drawn(order(), 4, CROP))
    rows, draws = stacked((alone[2], other[2]))
    assert rows.shape == (2, 6) and np.array_equal(draws[0], alone[2][1])
    pictures = torch.randint(0, 255, (2, 6, 37, 36, 3), dtype=torch.uint8)
    pictures[..., -1, :, :] = torch.from_numpy(CROP.medium.fit(smooth(50, 50)))[-1]
    both = CROP.cut(pictures, draws, CPU)
    assert both.shape == (2, 6, 32, 32, 3)
    torch.testing.assert_close(both[1], CROP.cut(pictures[1], other[2][1], CPU))
    assert [b.tolist() for b in drawn(order(), 3, None)] == [b.tolist() for b in order()]


def test_norms_and_biases_have_no_decay_where_the_study_says_so() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))

    class Study:
        train = TrainSection(decay="matrices", weight_decay=0.2)

    matrices, others = decayed(Study, model.parameters())  # type: ignore[arg-type]
    assert [p.shape for p in matrices["params"]] == [(4, 3)]
    assert (len(others["params"]), others["weight_decay"]) == (3, 0.0)
    stacks = [p.detach().expand(2, *p.shape) for p in model.parameters()]
    assert [len(g["params"]) for g in decayed(Study, stacks, 1)] == [1, 3]  # type: ignore[arg-type]
    assert len(decayed(Study, [stacks[0]], 1)) == 1  # type: ignore[arg-type]
    Study.train = TrainSection()
    assert decayed(Study, model.parameters()) == list(model.parameters())  # type: ignore[arg-type]


def test_a_warm_up_may_be_of_steps() -> None:
    assert [schedule(s, 1_000, 0.1, 4) for s in (1, 2, 4)] == [0.25, 0.5, 1]
    assert schedule(502, 1_000, 0.1, 4) == pytest.approx(0.5, abs=0.01)
    assert schedule(50, 1_000, 0.1) == 0.5
    with pytest.raises(ValueError, match="least share comes first"):
        TrainSection(crop=(1, 0.9))

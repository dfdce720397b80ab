"""Distances of videos by a classifier's features, with a classifier that gives colours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.pipeline.components.evaluate_inception import covered, inception_score, kernel_distance
from engine.pipeline.contract import ComponentError, Draft
from engine.pipeline.hooks import EVALUATE_DATA
from engine.pipeline.registry import component_of
from engine.tasks.shared.videos import write_clip
from tests.engine.pipeline.components.run import run_component


class Colours(torch.nn.Module):
    """The mean colour of a clip, on a scale of 1."""

    def forward(
        self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        """(rows, 3)."""
        return x.float().flatten(2).mean(2) / 255


def videos(root: Path, name: str, colours: list[int]) -> str:
    lines = []
    for n, colour in enumerate(colours):
        clip = np.full((4, 16, 16, 3), colour, np.uint8)
        write_clip(clip, root / f"{name}{n}.mp4", 8)
        lines.append(json.dumps({"videos": [f"{name}{n}.mp4"]}))
    (root / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"{name}.jsonl"


def test_videos_are_compared_by_features(tmp_path: Path) -> None:
    torch.jit.script(Colours()).save(str(tmp_path / "d.pt"))
    real, made = videos(tmp_path, "real", [20, 40, 60, 80, 100]), videos(tmp_path, "made", [120, 140, 160, 180, 200])
    keys: dict[str, Any] = {"type": "video_inception_evaluator", "fake_data_path": made, "real_data_path": real}
    keys |= {"detector_path": "d.pt", "result_path": "out/r.jsonl", "height": 16, "width": 16}
    (found,) = run_component(tmp_path, EVALUATE_DATA, keys).outputs
    assert found["fvd2048_16f"] == pytest.approx(3 * (100 / 255) ** 2, rel=0.05)
    assert json.loads((tmp_path / "out" / "r.jsonl").read_text(encoding="utf-8"))["results"] == found
    keys["fake_data_path"] = real
    (found,) = run_component(tmp_path, EVALUATE_DATA, {**keys, "metric": "prv2048_3n_16f"}).outputs
    assert found == {"prv2048_3n_16f_precision": 1.0, "prv2048_3n_16f_recall": 1.0}
    (found,) = run_component(tmp_path, EVALUATE_DATA, {**keys, "metric": "fid50k"}).outputs
    assert found["fid50k"] == pytest.approx(0, abs=1e-6)  # of single frames
    (tmp_path / "d.pt").write_bytes(b"no")
    with pytest.raises(ComponentError, match="is no TorchScript file"):
        run_component(tmp_path, EVALUATE_DATA, keys)


def test_scores_by_hand() -> None:
    sure = np.eye(4)[np.arange(40) % 4]
    assert inception_score(sure)[0] == pytest.approx(4.0)
    assert inception_score(np.full((40, 4), 0.25))[0] == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(300, 4)), rng.normal(size=(300, 4))
    assert abs(kernel_distance(one, other, 0)) < 0.1 < kernel_distance(one, other + 2, 0)
    assert covered(one, one) == 1.0 and covered(one, one + 100) == 0.0


def test_what_it_needs_is_told_before_it_runs() -> None:
    judge = component_of(EVALUATE_DATA, "video_inception_evaluator")
    assert judge
    told = dict(judge.check(Draft({"extra_configs": {"metric": "fid50k"}})))
    assert set(told) == {"extra_configs.real_data_path", "extra_configs.detector_path"}
    assert "none of fvd2048_16f" in dict(judge.check(Draft({"extra_configs": {"metric": "x"}})))["extra_configs.metric"]

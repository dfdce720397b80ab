"""Tasks whose models can be forecast without weights: what they say of a demo's study, and of a checkpoint's family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.settings.study import Study
from engine.tasks.caption.task import TASK as CAPTION
from engine.tasks.clip.task import TASK as CLIP
from engine.tasks.shared.trial import TrainingTask
from engine.tasks.t2v.task import TASK as T2V
from engine.tasks.vlm.task import TASK as VLM


def prepared(folder: Path, study: Study) -> Path:
    """As much of a task's caches as a forecast reads."""
    from engine.tasks.vlm.model import make_base

    target = folder / ".djsb" / "cache" / "x"
    target.mkdir(parents=True)
    (target / "meta.json").write_text('{"side": 32, "length": 16}', encoding="utf-8")
    np.save(target / "train-tokens.npy", np.zeros((4, 24), np.int32))
    if study.task in ("vlm", "caption"):
        make_base(study, folder, target / "base", 0)
    return target


@pytest.mark.parametrize(
    ("task", "more", "share"),
    [
        (CLIP, {"task": "clip"}, 1.0), (VLM, {"task": "vlm", "vlm": {"trains": "all"}}, 1.0),
        (VLM, {"task": "vlm"}, 0.1), (CAPTION, {"task": "caption", "lora": {"rank": 8}}, 0.2),
        (T2V, {"task": "t2v"}, 1.0),
    ],
)  # fmt: skip
def test_a_training_is_forecast_by_what_is_trained(
    task: TrainingTask, more: dict[str, Any], share: float, tmp_path: Path
) -> None:
    fields = {"name": "s", "dataset": {"path": "x"}, "ops": {}, "train": {"batch_size": 8}, **more}
    study = Study.model_validate(fields)
    memory = task.memory(study, prepared(tmp_path, study))
    assert memory is not None
    assert 0.1 * share < memory["gradients"] / memory["weights"] <= share
    assert memory["moments"] == 2 * memory["gradients"] and memory["activations"] > 10_000


def test_an_operation_without_a_form_for_tensors_without_content_leaves_the_forecast_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study = Study.model_validate({"name": "s", "dataset": {"path": "x"}, "ops": {}, "task": "clip"})
    monkeypatch.setattr("engine.tasks.clip.model.loss_of", lambda like, *_: like.logit_scale.clone().reshape(3))
    assert CLIP.memory(study, prepared(tmp_path, study)) is None
    assert "its memory cannot be forecast" in caplog.text

"""Text to video: EasyAnimate by its scripts and by djsb's own task, then VBench; programs are stand-ins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.pipeline.contract import ComponentError, Draft
from engine.pipeline.hooks import EVALUATE_DATA, INFER, TRAIN
from engine.pipeline.registry import component_of
from tests.engine.pipeline.components.run import run_component

PROMPTS = [{"prompt_en": prompt, "dimension": ["color"]} for prompt in ("a red circle", "a blue square")]
VBENCH = """#!/bin/sh
while [ $# -gt 0 ]; do
  [ "$1" = --output_path ] && out="$2"; [ "$1" = --dimension ] && name="$2"; shift
done
echo "{\\"$name\\": [0.25, []]}" > "$out/x_eval_results.json"
"""


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    (folder / name).chmod(0o755)


def keys(root: Path, backend: str, model: str = "model", **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configurations of a training and of an inference, as the peer writes them."""
    models = {"pretrained_model_name_or_path": "none", "transformer_path": model}
    common = {"type": "easyanimate", "backend": backend, "env_name": "env", "env_manager": "venv"}
    train = {
        "tracker_config": {"project_name": "p", "experiment_name": "e"}, "model_path": models,
        "dataset_path": {"dataset_name": "", "dataset_meta_name": "../../../data/v_ea_fmt.json"},
        "training_config": {"num_train_epochs": 2, "batch_size_per_gpu": 2, **more},
        "saving_config": {"output_dir": "../../../out/models"},
    }  # fmt: skip
    infer = {
        "model_path": {**models, "lora_path": "../../../out/models/checkpoint-2.safetensors"},
        "infer_config": {"prompt_info_path": "../../../prompts.json", "video_num_per_prompt": 2, "batch_size": 2},
        "saving_config": {"output_video_dir": "../../../out/clips"},
    }  # fmt: skip
    (root / "prompts.json").write_text(json.dumps(PROMPTS), encoding="utf-8")
    return {**common, "train": train}, {**common, "train": infer}


def test_its_scripts_get_its_arguments(tmp_path: Path) -> None:
    home = tmp_path / "thirdparty" / "models" / "EasyAnimate"
    program(tmp_path / "env" / "bin", "python", "#!/bin/sh\n")
    train, infer = keys(tmp_path, "easyanimate")
    with pytest.raises(ComponentError, match=r"train_lora\.sh is not there; .*backend: djsb"):
        run_component(tmp_path, TRAIN, train)
    program(home, "train_lora.sh", 'echo "$@"; echo "Steps: 50%|, step_loss=0.125, lr=1e-4"\n')
    program(home, "infer_lora.sh", 'echo "$@"\n')
    said: list[str] = []
    points: list[Any] = []
    heard = {"say": said.append, "measure": lambda *point: points.append(point)}
    assert run_component(tmp_path, TRAIN, train, **heard).outputs == [str(tmp_path / "out" / "models")]
    assert said[0] == "none model  ../../../data/v_ea_fmt.json 256 bf16 2 1 2 8 42 ../../../out/models p e"
    assert points == [("loss", 0.125, 1)]
    assert run_component(tmp_path, INFER, infer, **heard).outputs == [str(tmp_path / "out" / "clips")]
    assert said[-1].endswith("checkpoint-2.safetensors 256 ../../../prompts.json 1 2 bf16 2 43 ../../../out/clips")
    trainer = component_of(TRAIN, "easyanimate")
    assert trainer
    draft = Draft({"extra_configs": train})
    assert trainer.reads(draft) == ["thirdparty/models/EasyAnimate/../../../data/v_ea_fmt.json"]


def test_vbench_scores_each_dimension(tmp_path: Path) -> None:
    program(tmp_path / "env" / "bin", "python", "#!/bin/sh\n")
    program(tmp_path / "env" / "bin", "vbench", VBENCH)
    (tmp_path / "clips").mkdir()
    (tmp_path / "prompts.json").write_text(json.dumps(PROMPTS), encoding="utf-8")
    asked = {"type": "vbench_video_evaluator", "env_name": "env", "env_manager": "uv", "videos_path": "clips"}
    asked |= {"full_json_dir": "prompts.json", "output_path": "scores", "eval_name": "mini"}
    dimensions = ["subject_consistency", "dynamic_degree"]
    (mean,) = run_component(tmp_path, EVALUATE_DATA, {**asked, "dimension_list": dimensions}).outputs
    assert mean == 0.25
    told = json.loads((tmp_path / "scores" / "mini_merged_results.json").read_text(encoding="utf-8"))
    assert told == {"mean_score": 0.25, "detail": dict.fromkeys(dimensions, 0.25)}
    vbench = component_of(EVALUATE_DATA, "vbench_video_evaluator")
    assert vbench
    wrong = dict(vbench.check(Draft({"extra_configs": {"dimension_list": ["beauty"]}})))
    assert "beauty is none of" in wrong["extra_configs.dimension_list"]
    assert "vbench is not here" in wrong["extra_configs.type"]


@pytest.mark.long
def test_a_pipeline_is_trained_and_makes_clips_here(tmp_path: Path) -> None:
    from engine.tasks.shared.videos import write_clip
    from tests.engine.tasks.t2v.pipelines import easyanimate

    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    rows = []
    for n in range(4):
        write_clip(rng.integers(0, 255, (6, 16, 16, 3), np.uint8), tmp_path / "data" / f"{n}.mp4", 8)
        rows.append({"file_path": f"{n}.mp4", "text": ["a red circle", "a blue square"][n % 2]})
    (tmp_path / "data" / "v_ea_fmt.json").write_text(json.dumps(rows), encoding="utf-8")
    model = str(easyanimate(tmp_path / "easy"))
    train, infer = keys(tmp_path, "djsb", model, sample_size=16, frames=6, rank=2)
    (out,) = run_component(tmp_path, TRAIN, train, workers=1).outputs
    assert (Path(out) / "checkpoint-2" / "adapter_model.safetensors").exists()
    infer["train"]["infer_config"] |= {"steps": 2, "image_size": 16}
    (clips,) = run_component(tmp_path, INFER, infer, workers=1).outputs
    assert sorted(path.name for path in Path(clips).iterdir()) == [
        f"a {what}-{n}.mp4" for what in ("blue square", "red circle") for n in (0, 1)
    ]
    other, _ = keys(tmp_path, "djsb")
    with pytest.raises(ComponentError, match="is the folder of a diffusers pipeline"):
        run_component(tmp_path, TRAIN, other)

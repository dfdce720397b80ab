"""InternVL on captions: by djsb's own task, and by a stand-in for its program."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.pipeline.contract import ComponentError, Draft
from engine.pipeline.hooks import CONVERT, EVALUATE_MODEL, POOLS, TRAIN
from engine.pipeline.registry import component_of
from engine.pipeline.work import own
from engine.settings.study import Study
from engine.tasks.caption.scores import caption_names, java_problem
from tests.engine.pipeline.components.run import run_component
from tests.engine.tasks.vlm.tiny_models import make_family

COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}


def coco(home: Path, rows: int = 12) -> Path:
    """A home of InternVL with captions of coloured squares; the file to train on."""
    data = home / "internvl_chat" / "data" / "coco"
    (data / "annotations").mkdir(parents=True)
    (data / "train2014").mkdir()
    lines, images, told = [], [], []
    rng = np.random.default_rng(0)
    for n in range(rows):
        name = list(COLOURS)[n % 3]
        pixels = np.clip(np.array(COLOURS[name]) + rng.integers(-20, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(data / "train2014" / f"{n}.jpg")
        talk = [{"from": "human", "value": "<image>\nDescribe."}, {"from": "gpt", "value": f"a {name} photo"}]
        lines.append({"image": f"train2014/{n}.jpg", "conversations": talk})
        if n < 3:
            images.append({"id": n, "image": f"train2014/{n}.jpg"})
            told += [{"image_id": n, "caption": f"a {name} photo"}, {"image_id": n, "caption": f"the {name} image"}]
    test = {"images": images, "annotations": told}
    (data / "annotations" / "coco_karpathy_test.json").write_text(json.dumps(test), encoding="utf-8")
    train = data / "annotations" / "coco_karpathy_train_567k.jsonl"
    train.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return train


def metas(root: Path, home: Path, train: Path) -> list[str]:
    """Meta files of two pools of which only the row numbers are kept."""
    data = str(home / "internvl_chat" / "data" / "coco")
    keys: dict[str, Any] = {"type": "coco_caption_to_dj_conversion", "dataset_path": str(train), "export_path": data}
    (made,) = run_component(root, CONVERT, keys).outputs
    keys = {"type": "data_pool_construction", "dataset_path": made, "export_path": data, "ignore_stats": True}
    (pools,) = run_component(root, POOLS, {**keys, "split_ratios": ["1/2"]}).outputs
    keys = {"type": "coco_caption_meta_generation", "dataset_path": pools, "export_path": data}
    (found,) = run_component(root, CONVERT, {**keys, "data_root_path": str(home / "internvl_chat")}).outputs
    return list(found)


@pytest.mark.long
def test_pools_are_trained_by_lora_and_judged(tmp_path: Path) -> None:
    home = tmp_path / "internvl"
    paths = metas(tmp_path, home, coco(home))
    make_family("internvl", tmp_path / "InternVL-tiny")
    common = {"type": "internvl_coco_caption", "internvl_home": str(home), "backend": "djsb"}
    keys = {"work_dir": "work", "model_name_or_path": "InternVL-tiny", "conv_style_or_scale": "1B", "lora_rank": 4,
            "answer_tokens": 4, "meta_paths": paths}  # fmt: skip
    points: list[Any] = []
    said: list[str] = []
    more = {"measure": lambda *point: points.append(point), "say": said.append, "workers": 1}
    (made,) = run_component(tmp_path, TRAIN, {**common, **keys}, **more).outputs
    stem = "coco_karpathy_train_567k_dj_fmt_ignore_stats"
    assert [Path(path).name for path in made] == [f"{stem}_{n}_meta_InternVL-tiny" for n in (0, 1)]
    assert (Path(made[0]) / "adapter_model.safetensors").exists()
    assert {name for name, *_ in points} >= {f"{stem}_{n}_meta/loss" for n in (0, 1)}
    assert said[0] == "a pool has 6 rows; a step takes 6 in place of 512"
    done = run_component(tmp_path, EVALUATE_MODEL, {**common, "ckpt_paths": made}, **more)
    (results,) = done.outputs
    assert [set(result) >= {"Bleu_1", "ROUGE_L", "CIDEr", "avg_score"} for result in results] == [True, True]
    assert all(("METEOR" in result) is (java_problem() is None) for result in results)
    assert done.tracked["avg_score"] == max(result["avg_score"] for result in results)


@pytest.mark.parametrize("java", [True, False])
def test_meteor_is_judged_where_there_is_java_and_told_where_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, java: bool
) -> None:
    study = Study.model_validate({"name": "captions", "dataset": {"path": "a.jsonl"}, "ops": {}})

    class Task:
        def ask(self, study: Study, _prepared: Path, _checkpoint: Path, prompt: str) -> dict[str, float]:
            assert prompt == study.vlm.prompt
            return dict.fromkeys(caption_names(study.vlm.java), 0.5) | {"likelihood": 0.1}

    @contextmanager
    def opened(*_: object) -> Iterator[Any]:
        yield SimpleNamespace(study=study, prepared=tmp_path), Task()

    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/java" if java else None)
    monkeypatch.setattr(own, "opened", opened)
    monkeypatch.setattr(own, "study_of", lambda *_: tmp_path)
    (tmp_path / own.NOTE).touch()
    said: list[str] = []
    keys = {"type": "internvl_coco_caption", "internvl_home": ".", "backend": "djsb", "ckpt_paths": str(tmp_path)}
    (results,) = run_component(tmp_path, EVALUATE_MODEL, keys, say=said.append).outputs
    assert len(results[0]) == (8 if java else 7) and ("METEOR" in results[0]) is java
    assert "likelihood" not in results[0] and results[0]["avg_score"] == 0.5
    assert any("java is not there; install a Java runtime" in line for line in said) is not java


PROGRAM = """#!/bin/sh
out=""; while [ $# -gt 0 ]; do [ "$1" = --output_dir ] && out="$2"; shift; done
echo "{'loss': 2.5, 'learning_rate': 1e-05, 'epoch': 0.5}"
touch "$out/trained"
"""


def test_its_own_program_is_run_in_its_environment(tmp_path: Path) -> None:
    home = tmp_path / "internvl"
    paths = metas(tmp_path, home, coco(home))
    folder = tmp_path / "env" / "bin"
    folder.mkdir(parents=True)
    for name, text in (("python", "#!/bin/sh\n"), ("torchrun", PROGRAM)):
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    evaluation = home / "internvl_chat" / "evaluate.sh"
    evaluation.write_text('[ -e "$1/trained" ] && echo "Bleu_1: 0.5" && echo "CIDEr: 1.5"\n', encoding="utf-8")
    common = {"type": "internvl_coco_caption", "internvl_home": str(home), "num_gpus": 1, "env_name": "env",
              "env_manager": "venv"}  # fmt: skip
    keys = {"work_dir": "work", "model_name_or_path": "m", "conv_style_or_scale": "1B", "meta_paths": paths[0]}
    points: list[Any] = []
    done = run_component(tmp_path, TRAIN, {**common, **keys}, measure=lambda *point: points.append(point))
    (made,) = done.outputs
    assert [point[1:] for point in points] == [(2.5, 1)]
    annotation = json.loads(Path(paths[0]).read_text(encoding="utf-8"))
    written = home / "internvl_chat" / next(iter(annotation.values()))["annotation"]
    assert len(written.read_text(encoding="utf-8").splitlines()) == 6  # the program gets rows, not row numbers
    (results,) = run_component(tmp_path, EVALUATE_MODEL, {**common, "ckpt_paths": made}).outputs
    assert results == [{"Bleu_1": 0.5, "CIDEr": 1.5, "avg_score": 1.0}]
    with pytest.raises(ComponentError, match="was not trained by djsb"):
        run_component(tmp_path, EVALUATE_MODEL, {**common, "backend": "djsb", "ckpt_paths": made})


def test_what_lacks_is_told_with_the_other_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    trainer = component_of(TRAIN, "internvl_coco_caption")
    assert trainer
    asked = {"env_name": "internvl", "conv_style_or_scale": "3B"}
    told = dict(trainer.check(Draft({"extra_configs": asked})))
    assert "set backend: djsb" in told["extra_configs.env_manager"]
    assert "'3B' is none of 1B" in told["extra_configs.conv_style_or_scale"]
    told = dict(trainer.check(Draft({"extra_configs": {**asked, "backend": "djsb"}})))
    assert "extra_configs.env_manager" not in told

"""Data sets written as other programs take them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.pipeline.contract import ComponentError
from engine.pipeline.hooks import CONVERT, POOLS
from tests.engine.pipeline.components.run import run_component


def write(file: Path, rows: list[Any]) -> str:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def test_captions_of_coco_and_their_meta_files(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "<image>\nDescribe."}, {"from": "gpt", "value": "A cat."}]
    data = write(tmp_path / "coco" / "train.jsonl", [{"image": f"{n}.jpg", "conversations": talk} for n in range(3)])
    keys = {"type": "coco_caption_to_dj_conversion", "dataset_path": data, "export_path": "coco"}
    (made,) = run_component(tmp_path, CONVERT, keys).outputs
    assert [Path(path).name for path in made] == ["train_dj_fmt.jsonl"]
    row = json.loads(Path(made[0]).read_text(encoding="utf-8").splitlines()[2])
    assert (row["text"], row["images"], row["image"]) == ("<__dj__image> A cat.", ["2.jpg"], "2.jpg")

    pools = {"type": "data_pool_downsampling", "dataset_path": made, "export_path": "coco", "target_num_samples": 2}
    (small,) = run_component(tmp_path, POOLS, pools).outputs
    keys = {"type": "coco_caption_meta_generation", "export_path": "metas", "data_root_path": str(tmp_path)}
    (metas,) = run_component(tmp_path, CONVERT, {**keys, "dataset_path": small}).outputs
    assert [Path(path).name for path in metas] == ["train_dj_fmt_2_meta.json"]
    assert json.loads(Path(metas[0]).read_text(encoding="utf-8")) == {
        "train_dj_fmt_2": {
            "root": "data/coco/",
            "annotation": "coco/train_dj_fmt_2.jsonl",
            "data_augment": False,
            "repeat_time": 1,
            "length": 2,
        }
    }  # fmt: skip
    keys = {"type": "coco_caption_to_dj_conversion", "dataset_path": metas, "export_path": "out"}
    with pytest.raises(ComponentError, match="row 0 has no image"):
        run_component(tmp_path, CONVERT, keys)


def test_captions_are_read_by_who_says_them(tmp_path: Path) -> None:
    talk = [
        {"from": "system", "value": "Be short."},
        {"from": "human", "value": "<image>"},
        {"from": "gpt", "value": "A cat."},
    ]
    data = write(tmp_path / "train.jsonl", [{"image": "0.jpg", "conversations": talk}])
    keys = {"type": "coco_caption_to_dj_conversion", "dataset_path": data, "export_path": "out"}
    (made,) = run_component(tmp_path, CONVERT, keys).outputs
    assert json.loads(Path(made[0]).read_text(encoding="utf-8"))["text"] == "<__dj__image> A cat."
    write(tmp_path / "train.jsonl", [{"image": "0.jpg", "conversations": talk[:2]}])
    with pytest.raises(ComponentError, match="row 0: "):
        run_component(tmp_path, CONVERT, keys)


def test_videos_for_easyanimate(tmp_path: Path) -> None:
    rows = [{"videos": ["a.mp4"], "text": "<__dj__video> a man"}, {"videos": [], "text": "x"}]
    (tmp_path / "v.json").write_text(json.dumps(rows), encoding="utf-8")
    said: list[str] = []
    keys = {"type": "dj_to_easyanimate_video_dataset_conversion", "dataset_path": "v.json", "export_path": "out"}
    (made,) = run_component(tmp_path, CONVERT, keys, say=said.append).outputs
    assert Path(made[0]).name == "v_ea_fmt.json"
    found = json.loads(Path(made[0]).read_text(encoding="utf-8"))
    assert found == [{"videos": ["a.mp4"], "text": "a man", "file_path": "a.mp4"}]
    assert said == [f"1 of 2 rows of {tmp_path / 'v.json'} have no video and are left out"]

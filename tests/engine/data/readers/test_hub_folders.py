"""Folders as they are cloned from the Hugging Face hub: the card says which files are which split; nothing is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.base.errors import DataError
from engine.data.readers.contract import Options
from engine.data.readers.opening import open_reader
from tests.engine.data.readers.test_formats import ROWS, WRITERS
from tests.engine.tasks.vlm.test_benchmarks import picture


def card(folder: Path, configs: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text(f"---\nlicense: mit\nconfigs: {json.dumps(configs)}\n---\n# A data set\n")
    return folder


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        WRITERS["." + name.split(".", 1)[1]](ROWS[:4], folder / name)


@pytest.mark.parametrize(
    "data_files",
    [
        [{"split": "train", "path": "data/a-*"}, {"split": "held", "path": ["data/b.jsonl"]}],
        {"train": "data/a-*", "held": ["data/b.jsonl"]},
    ],
)
def test_the_card_names_the_splits(tmp_path: Path, data_files: Any) -> None:
    folder = card(tmp_path / "set", [{"config_name": "x", "data_files": data_files}])
    put(folder, "data/a-0.jsonl", "data/a-1.jsonl", "data/b.jsonl", "data/unrelated.jsonl")
    with pytest.raises(DataError, match=r"several splits: held \(1\), train \(2\); set dataset\.split to one of them"):
        open_reader(folder)
    assert len(open_reader(folder, Options("train"))) == 8
    assert len(open_reader(folder, Options("held"))) == 4
    with pytest.raises(DataError, match="no file of the split test; its files by split: held"):
        open_reader(folder, Options("test"))


def test_one_pattern_is_all(tmp_path: Path) -> None:
    folder = card(tmp_path / "set", [{"config_name": "default", "data_files": "en/*.csv"}])
    put(folder, "en/a.csv", "de/b.csv")
    assert len(open_reader(folder)) == 4


def test_of_several_configurations_one_is_the_default_or_named_by_path(tmp_path: Path) -> None:
    configs = [{"config_name": name, "data_files": f"{name}/*.jsonl"} for name in ("de", "en")]
    folder = card(tmp_path / "set", configs)
    put(folder, "en/a.jsonl", "de/b.jsonl", "de/c.jsonl")
    with pytest.raises(DataError, match=r"configurations de, en; give the files of one as dataset\.path, as .*de/b"):
        open_reader(folder)
    card(folder, [configs[0], {**configs[1], "default": True}])
    assert len(open_reader(folder)) == 4


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../secret.jsonl", "https://example.org/a.jsonl", "hf://datasets/a/b/c.csv"]
)
def test_a_card_names_nothing_outside_of_its_folder(tmp_path: Path, name: str) -> None:
    put(tmp_path, "secret.jsonl")
    folder = card(tmp_path / "set", [{"config_name": "default", "data_files": name}])
    with pytest.raises(DataError, match="names files outside of the folder"):
        open_reader(folder)


def test_a_broken_card_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nconfigs: [\n---\n")
    put(tmp_path, "a.jsonl")
    with pytest.raises(DataError, match=r"README\.md.* is not YAML") as caught:
        open_reader(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "README.md").write_text("No front matter.\n")
    assert len(open_reader(tmp_path)) == 4


def test_no_script_is_run(tmp_path: Path) -> None:
    put(tmp_path, "data/train-00000-of-00001.parquet")
    (tmp_path / f"{tmp_path.name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert len(open_reader(tmp_path)) == 4 and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_images_with_metadata(tmp_path: Path, suffix: str) -> None:
    for split in ("train", "test"):
        for name in ("a.png", "b.png"):
            (tmp_path / split / "in").mkdir(parents=True, exist_ok=True)
            picture(tmp_path / split / "in" / name)
        WRITERS[suffix]([{"file_name": f"in/{n}.png", "text": n} for n in "ab"], tmp_path / split / f"metadata{suffix}")
    with pytest.raises(DataError, match=r"several splits: test \(1\), train \(1\)"):
        open_reader(tmp_path)
    reader = open_reader(tmp_path, Options("train"))
    assert reader.read(0, 2, {"text", "image"})[0].items() >= {"text": "a", "image": "train/in/a.png"}.items()
    assert list(reader.files) == [tmp_path / "train" / f"metadata{suffix}"]
    assert open_reader(tmp_path / "train").read(1, 2)[0]["image"] == "in/b.png"


def test_images_alone(tmp_path: Path) -> None:
    for name in ("cat/a.png", "cat/b.png", "dog/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(tmp_path / name)
    reader = open_reader(tmp_path)
    assert reader.read(1, 3) == [{"image": "cat/b.png", "label": "cat"}, {"image": "dog/c.png", "label": "dog"}]


def test_a_folder_without_data_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="holds no data set that can be read"):
        open_reader(tmp_path)

"""Data as people have it, from `djsb init` to two trained trials."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.commands.check import check
from app.commands.init import write_study
from tests.conftest import Tiny, make_rows, run_until
from tests.engine.data.readers.test_formats import WRITERS

TEXTS = [{"id": n, "text": " ".join(f"word{(n * k) % 31}" for k in range(1, 5 + n % 9))} for n in range(240)]
SMALL = {
    "train": {"epochs": 0.5, "batch_size": 16, "micro_batch": 8, "keep_checkpoints": 0},
    "model": {"preset": "tiny"}, "search": {"strategy": "grid", "seeds": 1}, "budget": "1h",
    "ops": {"text_length_filter": {}, "words_num_filter": {}},
}  # fmt: skip


def silent(*_: Any) -> None:
    """No progress."""


def a_file(suffix: str) -> Callable[[Path], tuple[Path, Path]]:
    def write(root: Path) -> tuple[Path, Path]:
        for name, rows in (("rows", TEXTS), ("held", TEXTS[:20])):
            WRITERS[suffix](rows, root / f"{name}{suffix}")
        return root / f"rows{suffix}", root / f"held{suffix}"

    return write


def shards(root: Path) -> tuple[Path, Path]:
    """Parquet shards as the hub names them."""
    for split, rows in (("train", TEXTS), ("test", TEXTS[:20])):
        for part in (0, 1):
            (root / "set" / "data").mkdir(parents=True, exist_ok=True)
            WRITERS[".parquet"](rows[part::2], root / f"set/data/{split}-0000{part}-of-00002.parquet")
    return root / "set/data/train-*.parquet", root / "set/data/test-*.parquet"


def images(root: Path) -> tuple[Path, Path]:
    """A folder of images with metadata for each split."""
    for split, n in (("train", 240), ("test", 60)):
        rows = make_rows(root / split, "in", n, n, label=True)
        told = [{"file_name": row["images"][0], "text": row["text"], "label": row["label"]} for row in rows]
        WRITERS[".csv"](told, root / split / "metadata.csv")
    return root / "train", root / "test"


def talks(root: Path) -> tuple[Path, Path]:
    """ShareGPT, a list of conversations."""
    for name, rows in (("rows", TEXTS), ("held", TEXTS[:20])):
        said = [[{"from": "human", "value": "Go on."}, {"from": "gpt", "value": row["text"]}] for row in rows]
        (root / f"{name}.json").write_text(json.dumps([{"conversations": turns} for turns in said], indent=1))
    return root / "rows.json", root / "held.json"


LAYOUTS = {"csv": a_file(".csv"), "jsonl.gz": a_file(".jsonl.gz"), "json": a_file(".json"), "arrow": a_file(".arrow"),
           "shards": shards, "images": images, "conversations": talks}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_from_init_to_two_trials(tmp_path: Path, layout: str) -> None:
    data, held = LAYOUTS[layout](tmp_path)
    file, _ = write_study(tmp_path / "study", data, held, None, force=False)
    study = yaml.safe_load(file.read_text())
    assert study["task"] == ("clip" if layout == "images" else "lm")
    file.write_text(yaml.safe_dump({**study, **SMALL}))
    found = check(tmp_path / "study", 1, silent)
    assert found["problems"] == [] and found["inputs"][0]["used"] == 240, found
    tiny = Tiny(tmp_path, [], [])
    run_until(tiny, 2)
    assert sum(state == "COMPLETE" for _, state, _ in tiny.trials()) >= 2, tiny.trials()

"""A small demo world of videos, and a study of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from engine.demo.video import write_test, write_train
from tests.conftest import Row, Tiny

ROWS, TESTED = 48, 12
T2V: Row = {
    "task": "t2v",
    "dataset": {"images": None, "videos": "videos"},
    "evaluation": {"label": "label"},
    "train": {"epochs": 1, "batch_size": 8, "learning_rate": 0.004, "keep_checkpoints": 1},
    "video": {"samples": 4, "steps": 2, "checks": True},
}


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo world."""
    folder = tmp_path_factory.mktemp("clips")
    write_train(folder, ROWS, 0)
    write_test(folder, TESTED, 0)
    return folder


@pytest.fixture
def moving(clips: Path, tmp_path: Path) -> Tiny:
    """A study of it."""
    shutil.copytree(clips, tmp_path / "data")
    read = {n: [json.loads(x) for x in (clips / f"{n}.jsonl").read_text().splitlines()] for n in ("train", "test")}
    tiny = Tiny(tmp_path, read["train"], read["test"])
    tiny.set(T2V)
    return tiny

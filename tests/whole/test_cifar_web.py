"""The main job on real photographs with web-like captions; skipped where the data is not there."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.conftest import run_djsb

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar-web"


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(not (DATA / "train.jsonl").exists(), reason=f"{DATA} is not there")
def test_long_captions_hurt_and_a_recipe_beats_the_control_on_real_photographs(tmp_path: Path) -> None:
    study = tmp_path / "study"
    made = run_djsb("init", study, "--data", DATA / "train.jsonl", "--eval", DATA / "test.jsonl")
    assert made.returncode == 0, made.stderr
    settings = yaml.safe_load((study / "study.yaml").read_text())
    settings["ops"] = {"text_length_filter": {}, "words_num_filter": {}}
    settings["pools"] |= {"size": 2000, "rare": False}  # with one pool more the race drops num_words high sooner
    settings["combine"] |= {"top": 2, "clusters": 0}
    settings["scale"]["rates"] = []
    settings["confirm"] |= {"candidates": 1, "seeds": 3}
    (study / "study.yaml").write_text(yaml.safe_dump(settings))
    done = run_djsb("auto", study, "--budget", "40min", "--json", timeout=800)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    board = {r["label"]: r for r in result["leaderboard"] if r["verdict"] != "degenerate"}
    for label in ("text_len high", "num_words high"):
        assert board[label]["change"] < -10
        assert board[label]["verdict"] != "helps"
        assert label not in result["recipe"]["label"] if result["recipe"] else True
    assert result["unconfirmed"] is None and "against all your data" in " ".join(
        [result["answer"]["text"], *result["answer"]["reasons"]]
    )
    exported = run_djsb("export", "results", study)
    fresh = [
        r for r in csv.DictReader(io.StringIO(exported.stdout)) if r["stage"] == "confirm" and r["metric"] == "accuracy"
    ]
    control = np.mean([float(r["value"]) for r in fresh if r["pool"] == "control"])
    recipe = np.mean([float(r["value"]) for r in fresh if r["label"] not in ("control", "all rows")])
    assert recipe > control

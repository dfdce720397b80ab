"""The main job on real photographs with web-like captions; skipped where the data is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.conftest import run_djsb

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "cifar-web"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not (DATA / "train.jsonl").exists(), reason=f"{DATA} is not there")
def test_long_captions_hurt_on_real_photographs(tmp_path: Path) -> None:
    study = tmp_path / "study"
    made = run_djsb("init", study, "--data", DATA / "train.jsonl", "--eval", DATA / "test.jsonl")
    assert made.returncode == 0, made.stderr
    settings = yaml.safe_load((study / "study.yaml").read_text())
    settings["ops"] = {"text_length_filter": {}, "words_num_filter": {}}
    settings["pools"]["size"] = 2000
    settings["search"]["seeds"] = 2
    (study / "study.yaml").write_text(yaml.safe_dump(settings))
    done = run_djsb("auto", study, "--until", "probe", "--json", timeout=800)
    assert done.returncode == 0, done.stderr
    verdicts = {r["label"]: r for r in json.loads(done.stdout)["leaderboard"]}
    assert verdicts["text_len high"]["change"] < -15
    assert verdicts["num_words high"]["change"] < -15
    assert verdicts["text_len high"]["change"] < verdicts["text_len low"]["change"]

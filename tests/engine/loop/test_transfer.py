"""Scaling and transfer: points on other models, amounts of training and data, and the line through them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.evidence.transfer import fit
from engine.proposals.kinds.contract import Refused
from engine.proposals.kinds.transfer import place_of
from engine.study.opened import open_study
from engine.study.variants import elsewhere
from tests.conftest import Row, Tiny, make_tiny, run_djsb, write_jsonl


@pytest.fixture
def one(two_cycles: Tiny, tmp_path: Path) -> Tiny:
    """A copy of a study of two cycles, whose recipes are confirmed at three seeds."""
    copy = replace(two_cycles, root=tmp_path / "copy")
    shutil.copytree(two_cycles.root, copy.root)
    return copy


def suggest(tiny: Tiny, pool: str, **wanted: Any) -> Row:
    """What has become of a person's proposal of kind transfer."""
    file = tiny.root / "wanted.json"
    file.write_text(json.dumps({"experiment": {"kind": "transfer", "pool": pool, **wanted}, "reason": "does it hold?"}))
    done = run_djsb("propose", tiny.study, "--by", "person", "--from", file, "--json")
    assert done.returncode == 0, done.stderr
    found: Row = json.loads(done.stdout)["proposals"][0]
    return found


def grown(tiny: Tiny) -> Path:
    """A checkpoint in the study's folder: a model of twice the width. The path within the study."""
    from transformers import CLIPConfig, CLIPModel

    from engine.tasks.clip.model import PRESETS, clip_config
    from engine.tasks.shared.tokens import save_tokenizer

    place = tiny.study / "weights" / "grown"
    preset = replace(PRESETS["tiny"], width=128, text_width=128)
    CLIPModel(CLIPConfig(**clip_config(preset))).save_pretrained(place)
    words = next((tiny.study / ".djsb" / "cache").glob("clip-*/tokenizer.json"))
    save_tokenizer(words, preset.length, place)
    return place.relative_to(tiny.study)


def best(tiny: Tiny) -> str:
    found: list[Row] = json.loads(run_djsb("rank", tiny.study, "--json").stdout)
    return str(found[0]["pool"])


@pytest.mark.long
def test_a_recipe_is_compared_on_more_training_another_model_and_other_data(one: Tiny) -> None:
    pool = best(one)
    (one.study / "other").mkdir()
    shutil.copytree(one.root / "data" / "train", one.study / "other" / "train")
    write_jsonl(one.study / "other" / "rows.jsonl", one.rows[:260])
    asked = [
        suggest(one, pool, compute=0.5),
        suggest(one, pool, compute=2),
        suggest(one, pool, preset="small", compute=0.1),
        suggest(one, pool, dataset="other/rows.jsonl"),
        suggest(one, pool, checkpoint=str(grown(one)), compute=0.1),
    ]
    assert [a["status"] for a in asked] == ["queued"] * 5
    assert run_djsb("review", "--all", "--dir", one.study, "--approve", "--why", "does it hold?").returncode == 0
    board = run_djsb("rank", one.study, "--json").stdout
    done = run_djsb("auto", one.study, timeout=600)
    assert done.returncode == 0, done.stderr
    assert run_djsb("rank", one.study, "--json").stdout == board  # the study's own ranking is none the wiser

    stages = json.loads(run_djsb("status", one.study, "--json").stdout)["stages"]
    assert stages[-1] == {"stage": "transfer", "trials": {"COMPLETE": 30}}  # five points at three seeds
    found = json.loads(run_djsb("show", "scaling", one.study, "--json").stdout)
    assert [p["proposal"] for p in found["points"]] == [a["id"] for a in asked]
    half, double, small, other, wide = found["points"]
    assert (half["checkpoint"], wide["checkpoint"]) == (None, "weights/grown")
    assert wide["flops_per_sample"] > 1.5 * half["flops_per_sample"]
    assert all(p["seeds"] == 3 and p["ci_low"] < p["change"] < p["ci_high"] for p in found["points"])
    assert (half["samples"], double["samples"], half["preset"]) == (112, 450, "tiny")
    assert double["flops"] / half["flops"] == pytest.approx(450 / 112)
    assert small["flops_per_sample"] > 10 * half["flops_per_sample"]
    assert (small["preset"], other["dataset"]) == ("small", "other/rows.jsonl")
    assert double["change"] > 0
    line = found["lines"][pool]
    assert line["points"] == 4  # other data are another line
    assert line["ahead"]["extrapolated"]
    assert "extrapolated to" in run_djsb("show", "scaling", one.study).stdout


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"preset": "enormous"}, "model.preset"),
        ({"dataset": "other/none.jsonl"}, "none.jsonl"),
        ({"dataset": "../data/train.jsonl"}, "folder"),
        ({"checkpoint": "../data"}, "beside its model.checkpoint"),
        ({"checkpoint": "weights/none"}, "is no folder"),
        ({"checkpoint": "."}, "no transformers checkpoint"),
    ],
)
def test_what_cannot_be_scaled_to_is_refused(one: Tiny, wanted: Row, reason: str) -> None:
    refused = suggest(one, best(one), **wanted)
    assert refused["status"] == "refused"
    assert reason in refused["gate"]


def test_a_point_without_a_difference_is_not_valid(one: Tiny) -> None:
    file = one.root / "wanted.json"
    file.write_text(json.dumps({"experiment": {"kind": "transfer", "pool": best(one)}, "reason": "?"}))
    done = run_djsb("propose", one.study, "--by", "person", "--from", file)
    assert done.returncode == 1
    assert "name a preset, a checkpoint, a dataset, or a compute" in done.stderr


def test_the_line_is_found_with_an_interval_that_covers_it() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        flops = 10.0 ** np.linspace(9, 13, 6)
        line = fit(flops.tolist(), (3 + 2 * np.log10(flops) + rng.normal(0, 1, 6)).tolist(), 0.9)
        assert line is not None and line.slope_low is not None and line.slope_high is not None
        covered += line.slope_low <= 2 <= line.slope_high
    assert 0.85 < covered / 300 < 0.95


def test_a_line_says_where_it_is_drawn_on_and_widens_there() -> None:
    line = fit([1e9, 1e10, 1e11, 1e12], [1.0, 2.1, 2.9, 4.0])
    assert line is not None
    inside, beyond = line.at(1e10), line.at(1e13)
    assert (inside.extrapolated, beyond.extrapolated) == (False, True)
    assert inside.change == pytest.approx(2, abs=0.2)
    assert beyond.change == pytest.approx(5, abs=0.2)
    assert beyond.ci_high - beyond.ci_low > inside.ci_high - inside.ci_low


def test_two_points_have_no_interval_and_one_has_no_line() -> None:
    two = fit([1e9, 1e10], [1.0, 2.0])
    assert two is not None and two.slope_low is None and two.at(1e11).ci_low is None
    assert fit([1e9, 1e9], [1.0, 2.0]) is None


def test_another_checkpoint_takes_the_place_of_every_model_and_may_lie_beside_the_study_s_own(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path, 12, 6)
    for place in (tiny.study / "weights", tmp_path / "models" / "small", tmp_path / "models" / "large"):
        place.mkdir(parents=True)
        (place / "config.json").write_text('{"model_type": "clip"}')
    opened = open_study(tiny.study, 1)
    with opened.store:
        place_of(opened, "weights")
        for path, says in (
            ("../models/large", "beside its model.checkpoint"), ("/", "beside its"), ("weights/x", "no folder")
        ):  # fmt: skip
            with pytest.raises(Refused, match=says):
                place_of(opened, path)
        other = elsewhere(opened, None, None, "weights")
        assert (other.study.model.checkpoint, other.study.model.preset) == ("weights", "tiny")
        assert other._checkpoint_content() and not opened._checkpoint_content()
    tiny.set({"model": {"checkpoint": "../models/small"}})
    opened = open_study(tiny.study, 1)
    with opened.store:
        place_of(opened, "../models/large")
        with pytest.raises(Refused, match="beside its"):
            place_of(opened, "../data")

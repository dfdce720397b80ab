"""Items that are held back: a trial of the search never sees them, and one of the confirmation sees nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from engine.base.errors import DataError
from engine.data.held_back import held_back, keys_of
from engine.demo.text import clean_text, facts, questions
from engine.records.trial import FRESH
from engine.settings.study import Study
from engine.study.opened import OpenStudy, open_study
from engine.tasks.contract import Part
from engine.tasks.shared.items import judged_items, judged_on
from engine.tasks.vlm.evaluation import read_questions
from tests.conftest import TEXT_ONLY, Row, make_tiny, merged, run_djsb, write_jsonl

torch.set_num_threads(1)
SHARE = 0.4
PARTS: tuple[Part, ...] = ("all", "search", "held back")


def scores(opened: OpenStudy) -> dict[Part, dict[str, float]]:
    """What an untrained model scores on each part."""
    task: Any = opened.task
    model = task.training.build(opened.study, opened.prepared, 0, None)
    found: dict[Part, dict[str, float]] = {}
    for part in PARTS:
        file = None if part == "all" else opened.items_file(part)
        with judged_on(opened.study, part, str(file) if file else None), torch.inference_mode():
            found[part] = task.training.evaluate(model, opened.study, opened.prepared)
    return found


def test_an_item_stays_on_its_side_when_others_are_added() -> None:
    names = [f"item {i}" for i in range(2000)]
    back = held_back(keys_of(names), SHARE, 7)
    assert 0.37 < back.mean() < 0.43
    assert (held_back(keys_of(["new", *names[::-1]]), SHARE, 7)[1:] == back[::-1]).all()
    assert (held_back(keys_of(names), SHARE, 8) != back).any()
    assert back[held_back(keys_of(names), 0.2, 7)].all()  # a smaller share is part of a larger one


def test_image_rows_are_judged_by_part(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path)
    tiny.set({"evaluation": {"held_back": SHARE}})
    opened = open_study(tiny.study)
    back = int(opened.rows_held_back.sum())
    assert 10 < back < 50
    found = scores(opened)
    for name in ("accuracy", "likelihood"):
        together = (60 - back) * found["search"][name] + back * found["held back"][name]
        assert together == pytest.approx(60 * found["all"][name], rel=1e-5)
    assert found["search"]["likelihood"] != found["held back"]["likelihood"]


def test_texts_and_questions_are_judged_by_part(tmp_path: Path) -> None:
    tiny, towns, rng = make_tiny(tmp_path, rows=120), facts(0), np.random.default_rng(0)
    test: list[Row] = [{"id": i, "text": clean_text(towns[i % 8], rng)} for i in range(40)]
    write_jsonl(tiny.test_file, test)
    write_jsonl(tmp_path / "data" / "facts.jsonl", questions(towns, 0))
    evaluation = {"path": "../data/test.jsonl", "label": None, "held_back": SHARE}
    tiny.set(merged(TEXT_ONLY, {
        "task": "lm", "evaluation": {**evaluation, "benchmarks": {"facts": "../data/facts.jsonl"}},
    }))  # fmt: skip
    opened = open_study(tiny.study)
    found = scores(opened)
    offsets = np.load(opened.prepared / "eval-offsets.npy")
    tokens, back = np.diff(offsets) - 1, opened.rows_held_back
    nats = {part: f["log_perplexity"] for part, f in found.items()}
    apart = tokens[~back].sum() * nats["search"] + tokens[back].sum() * nats["held back"]
    assert apart == pytest.approx(tokens.sum() * nats["all"], rel=1e-5)
    # of 24 questions: mean of the parts' likelihoods, weighted by their number
    with judged_on(opened.study, "held back", None):
        from engine.tasks.lm.choices import judged_questions

        with np.load(opened.prepared / "choices-facts.npz") as saved:
            asked = judged_questions("facts", dict(saved))
    count = len(set(asked["question"].tolist()))
    assert 0 < count < 24 and asked["question"].max() == count - 1
    each = {part: f["facts_likelihood"] for part, f in found.items()}
    assert (24 - count) * each["search"] + count * each["held back"] == pytest.approx(24 * each["all"], rel=1e-5)


def test_questions_of_one_item_stay_together(tmp_path: Path) -> None:
    study = Study.model_validate({"name": "x", "dataset": {"path": "d"}, "ops": {}, "evaluation": {"held_back": SHARE}})
    told = [
        {
            "image": i // 2,
            "text": f"q{i}",
            "answers": ["yes"],
            "options": ["yes", "no"],
            "group": "g",
            "item": f"{i // 2}",
        }
        for i in range(80)
    ]
    (tmp_path / "mme.json").write_text(json.dumps(told))
    np.save(tmp_path / "mme-images.npy", np.zeros((40, 2, 2, 3), np.uint8))
    asked: dict[Part, list[str]] = {}
    for part in PARTS:
        with judged_on(study, part, None):
            asked[part] = [q.item for q in read_questions(tmp_path, "mme")[0]]
    assert sorted(asked["search"] + asked["held back"]) == sorted(asked["all"])
    assert not set(asked["search"]) & set(asked["held back"]) and 20 < len(asked["held back"]) < 50


def test_a_side_without_items_is_refused(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path, rows=60)
    tiny.set({"evaluation": {"held_back": SHARE}})
    study = open_study(tiny.study).study
    with judged_on(study, "held back", None):
        one = next(name for name in map(str, range(99)) if not held_back(keys_of([name]), SHARE, study.seed)[0])
        with pytest.raises(DataError, match="none is held back"):
            judged_items([one])


def test_check_says_how_many_and_where_nothing_can_be_held_back(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path)
    before = open_study(tiny.study).setup
    tiny.set({"evaluation": {"held_back": 0.0}})
    assert open_study(tiny.study).setup == before
    tiny.set({"evaluation": {"held_back": SHARE}})
    opened = open_study(tiny.study)
    assert opened.setup != before
    assert f"evaluation: {opened.rows_held_back.sum()} of 60 rows are held back" in run_djsb("check", tiny.study).stdout
    content = yaml.safe_load((tiny.study / "study.yaml").read_text())
    command = {"run": ["true", "{pool}", "{seed}"], "metrics": [{"name": "m"}]}
    content |= {"task": "command", "command": command}
    del content["model"]
    content["evaluation"].pop("label")
    (tiny.study / "study.yaml").write_text(json.dumps(content))
    opened = open_study(tiny.study)
    assert opened.held_back == 0.0
    assert "task command judges by itself, so nothing is held back" in run_djsb("check", tiny.study).stdout


def test_a_run_is_judged_by_part(tmp_path: Path) -> None:
    """Trials of one pool, init and length: the seeds that confirm are judged on other rows than those that search."""
    from engine.runner.scheduler import Scheduler

    tiny = make_tiny(tmp_path, rows=60)
    tiny.set({"evaluation": {"held_back": SHARE}})

    class Only:
        opened = open_study(tiny.study)

    parts = [Scheduler.judged(Only(), seed) for seed in (0, FRESH)]  # type: ignore[arg-type]
    assert [part for part, _ in parts] == ["search", "held back"]
    masks = [np.load(str(file)) for _, file in parts]
    assert (masks[0] == ~masks[1]).all() and masks[1].any()
